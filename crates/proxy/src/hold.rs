//! Requests that wait because there is no primary.
//!
//! **Invariant:** their number and their bytes are bounded, and who leaves gives its place back.

use crate::options::Limits;
use crate::seldom::Seldom;
use crate::swap::Swap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One for a proxy.
#[derive(Debug)]
pub(crate) struct Hold {
    limits: Arc<Swap<Limits>>,
    clients: AtomicUsize,
    bytes: AtomicUsize,
    /// That somebody has waited in vain.
    pub(crate) in_vain: Seldom,
}

/// A place among those who wait.
#[derive(Debug)]
pub(crate) struct Held {
    hold: Arc<Hold>,
    bytes: usize,
}

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} requests wait already")]
    Clients(usize),
    #[error("requests of {0} bytes wait already")]
    Bytes(usize),
}

impl Hold {
    pub(crate) fn new(limits: Arc<Swap<Limits>>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            clients: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            in_vain: Seldom::default(),
        })
    }

    /// A place for a request of which `bytes` are here.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize) -> Result<Held, Full> {
        let add = |counter: &AtomicUsize, more: usize, most: usize| {
            let within = |now: usize| now.checked_add(more).filter(|sum| *sum <= most);
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        };
        let limits = self.limits.load();
        add(&self.clients, 1, limits.hold_clients).map_err(Full::Clients)?;
        if let Err(waiting) = add(&self.bytes, bytes, limits.hold_bytes) {
            self.clients.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Bytes(waiting));
        }
        Ok(Held {
            hold: Arc::clone(self),
            bytes,
        })
    }
}

impl Held {
    /// So much more of its request is here.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.hold.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    /// Whether more may be here.
    pub(crate) fn has_room(&self) -> bool {
        self.hold.bytes.load(Ordering::Relaxed) < self.hold.limits.load().hold_bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hold.clients.fetch_sub(1, Ordering::Relaxed);
        self.hold.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_bytes_are_bounded_and_given_back() {
        let hold = Hold::new(Arc::new(Swap::new(Limits {
            hold_clients: 2,
            hold_bytes: 10,
            ..Limits::default()
        })));
        let first = hold.enter(6).unwrap();
        assert_eq!(hold.enter(5).err(), Some(Full::Bytes(6)));
        let second = hold.enter(4).unwrap();
        assert_eq!(hold.enter(0).err(), Some(Full::Clients(2)));
        drop(first);
        let mut third = hold.enter(5).unwrap();
        assert!(third.has_room());
        third.grow(1);
        assert!(!third.has_room());
        drop((second, third));
        assert_eq!(hold.enter(10).err(), None);
    }
}
