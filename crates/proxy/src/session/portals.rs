//! The portals that a client has bound: what each was made of.
//!
//! **Invariant:** none is kept beyond its transaction, whatever its client calls it.

use super::ledger::Values;
use crate::prepared::Prepared;
use std::collections::HashMap;
use std::sync::Arc;

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
            _ => drop(self.named.insert(name.into(), bound)),
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        match name {
            [] => self.unnamed = None,
            _ => drop(self.named.remove(name)),
        }
    }

    /// Some drivers give each portal a name of its own: the map goes with them.
    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        if !self.named.is_empty() {
            self.named = HashMap::new();
        }
    }
}
