//! The statements that a client has prepared by the protocol, by its own names for them.
//!
//! **Invariant:** a session that goes on has not much more than [`BYTES_MAX`] of them: what its servers would hold in
//! memory of their own, all sessions hold in ours.
//!
//! It does not know which of them a server has.

use crate::prepared::Prepared;
use std::collections::HashMap;
use std::sync::Arc;

/// Names and texts, and what it takes to find them.
pub(super) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an entry takes beside its name and its text, in bytes.
const ENTRY_BYTES: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Statements {
    all: HashMap<Box<[u8]>, Arc<Prepared>>,
    bytes: usize,
}

impl Statements {
    pub(super) fn insert(&mut self, name: Box<[u8]>, prepared: Arc<Prepared>) {
        self.remove(&name);
        self.bytes += bytes(&name, &prepared);
        self.all.insert(name, prepared);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some((name, prepared)) = self.all.remove_entry(name) {
            self.bytes -= bytes(&name, &prepared);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.all.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Prepared>)> {
        self.all.iter().map(|(name, prepared)| (&**name, prepared))
    }

    /// Names and texts, and what it takes to find them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether there may not be another one.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > BYTES_MAX
    }
}

/// In transaction mode a text is its own key, too.
fn bytes(name: &[u8], prepared: &Prepared) -> usize {
    name.len() + 2 * prepared.text_bytes() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_away_counts_no_more() {
        let mut all = Statements::default();
        let prepared = Arc::new(Prepared::alone(&vec![b'x'; BYTES_MAX / 4], true));
        for _ in 0..5 {
            all.insert((*b"a").into(), Arc::clone(&prepared));
        }
        assert!(!all.is_full());
        all.insert((*b"b").into(), Arc::clone(&prepared));
        assert!(all.is_full());
        all.remove(b"a");
        all.remove(b"a");
        assert!(!all.is_full() && !all.is_empty());
        all.remove(b"b");
        assert_eq!(all.bytes, 0);
    }
}
