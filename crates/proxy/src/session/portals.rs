//! The portals that a client has bound: what each was made of.
//!
//! **Invariant:** none is kept beyond its transaction, whatever its client calls it.
//!
//! **Invariant:** it has not more than [`BYTES_MAX`]. Of a portal that did not fit nobody knows what it was made of.

use super::ledger::Values;
use crate::prepared::Prepared;
use std::collections::HashMap;
use std::sync::Arc;

/// Names and values, and what it takes to find them.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an entry takes beside them, in bytes.
const ENTRY_BYTES: usize = 128;

/// What a portal was made of.
#[derive(Debug)]
pub(super) struct Bound {
    /// `None`: nobody knows.
    pub(super) prepared: Option<Arc<Prepared>>,
    pub(super) values: Option<Arc<Values>>,
}

/// The one without a name comes and goes with every query, and most clients have no other.
#[derive(Debug, Default)]
pub(super) struct Portals {
    unnamed: Option<Bound>,
    named: HashMap<Box<[u8]>, Bound>,
    /// Of those with names.
    bytes: usize,
}

impl Portals {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Bound> {
        match name {
            [] => self.unnamed.as_ref(),
            _ => self.named.get(name),
        }
    }

    pub(super) fn insert(&mut self, name: &[u8], bound: Bound) {
        match name {
            [] => self.unnamed = Some(bound),
            _ => self.insert_named(name, bound),
        }
    }

    fn insert_named(&mut self, name: &[u8], bound: Bound) {
        self.remove(name);
        let bytes = bytes(name, &bound);
        if self.bytes + bytes <= BYTES_MAX {
            self.bytes += bytes;
            self.named.insert(name.into(), bound);
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        match name {
            [] => self.unnamed = None,
            _ => {
                if let Some(bound) = self.named.remove(name) {
                    self.bytes -= bytes(name, &bound);
                }
            }
        }
    }

    /// Some drivers give each portal a name of its own: the map goes with them.
    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        if !self.named.is_empty() {
            self.named = HashMap::new();
            self.bytes = 0;
        }
    }
}

fn bytes(name: &[u8], bound: &Bound) -> usize {
    let value = |value: &Option<Box<[u8]>>| {
        let held = value.as_ref().map_or(0, |value| value.len());
        size_of::<Option<Box<[u8]>>>() + held
    };
    let values = bound.values.iter().flat_map(|values| values.all.iter());
    ENTRY_BYTES + name.len() + values.map(value).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_known_and_what_goes_makes_room() {
        let mut portals = Portals::default();
        let bound = |bytes: usize| Bound {
            prepared: None,
            values: Some(Values::new(Box::new([Some(vec![0; bytes].into())]))),
        };
        for _ in 0..3 {
            portals.insert(b"a", bound(BYTES_MAX / 2));
        }
        portals.insert(b"b", bound(BYTES_MAX / 4));
        assert!(portals.get(b"a").is_some() && portals.get(b"b").is_some());
        // Whatever it was before, it is that no more.
        portals.insert(b"b", bound(BYTES_MAX / 2));
        assert!(portals.get(b"b").is_none());
        portals.remove(b"a");
        portals.insert(b"b", bound(BYTES_MAX / 2));
        assert!(portals.get(b"b").is_some());
        portals.remove(b"b");
        assert_eq!(portals.bytes, 0);
    }
}
