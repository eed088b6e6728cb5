//! Statements that clients have prepared by the protocol.
//!
//! In transaction mode a client's statement gets a name of ours on the servers, the same for all
//! clients that prepare the same text, and is prepared wherever it is needed and not there.
//!
//! **Invariant:** two texts never share a name, nor does one that was read with backslashes as escapes
//! with one that was not.

use crate::sql::Reading;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What our names begin with.
const PREFIX: &str = "standfast_";

/// One text with its parameter types.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) id: u64,
    /// A Parse message's body behind the name.
    body: Box<[u8]>,
    pub(crate) reading: Reading,
}

/// All of a proxy's.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    next: u64,
    /// Those read with plain strings by the standard, and the others.
    texts: [Texts; 2],
}

#[derive(Debug, Default)]
struct Texts {
    prepared: HashMap<Arc<[u8]>, Weak<Prepared>>,
    /// When there are so many, those that no client and no server has any more are taken out.
    sweep_at: usize,
}

impl Registry {
    /// The statement with this body, which is the same for everybody.
    pub(crate) fn prepared(&self, body: &[u8], standard: bool) -> Arc<Prepared> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { next, texts } = &mut *known;
        let texts = &mut texts[usize::from(standard)];
        if let Some(prepared) = texts.prepared.get(body).and_then(Weak::upgrade) {
            return prepared;
        }
        if texts.prepared.len() >= texts.sweep_at.max(1024) {
            let is_used = |_: &_, prepared: &mut Weak<_>| prepared.strong_count() > 0;
            texts.prepared.retain(is_used);
            texts.sweep_at = texts.prepared.len() * 2;
        }
        *next += 1;
        let prepared = Arc::new(Prepared {
            id: *next,
            ..Prepared::alone(body, standard)
        });
        let weak = Arc::downgrade(&prepared);
        texts.prepared.insert(body.into(), weak);
        prepared
    }
}

impl Prepared {
    /// One that no other client knows of.
    pub(crate) fn alone(body: &[u8], standard: bool) -> Self {
        let query = body.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            id: 0,
            body: body.into(),
            reading: Reading::of(query, standard),
        }
    }

    /// Another text that stands for this one on the server. `types`: of the parameters, as they came.
    pub(crate) fn with_text(self, text: &std::ffi::CStr, types: &[u8]) -> Self {
        let body = [text.to_bytes_with_nul(), types].concat().into();
        Self { body, ..self }
    }

    pub(crate) fn is(&self, body: &[u8]) -> bool {
        *self.body == *body
    }

    /// Under which a server has it in transaction mode.
    pub(crate) fn name(&self) -> String {
        name(self.id)
    }

    /// Writes the Parse message that makes it.
    pub(crate) fn parse(&self, name: &[u8], out: &mut Vec<u8>) {
        let length = 4 + name.len() + 1 + self.body.len();
        out.push(b'P');
        // The body came in a message, so its length fits into one; a name is short.
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(&self.body);
    }
}

pub(crate) fn name(id: u64) -> String {
    format!("{PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_has_one_name() {
        let registry = Registry::default();
        let one = registry.prepared(b"select 1\0\0\0", true);
        let same = registry.prepared(b"select 1\0\0\0", true);
        let other = registry.prepared(b"select 2\0\0\0", true);
        assert_eq!(one.id, same.id);
        assert_ne!(one.id, other.id);
        let mut out = Vec::new();
        one.parse(b"x", &mut out);
        assert_eq!(out, b"P\0\0\0\x11x\0select 1\0\0\0");
    }
}
