//! How many clients there are, and whether they are to go.
//!
//! **Invariant:** there are never more than was said when the last one came, but administrators.
//!
//! It does not know those who have not said yet what they want.

use crate::seldom::Seldom;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// One for a proxy.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    begun: AtomicBool,
    clients: Arc<AtomicUsize>,
    /// That there was no place for somebody.
    pub(crate) full: Seldom,
}

/// A client's place.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Closing {
    /// A place for one more, if there are fewer than `most`.
    pub(crate) fn enter(&self, most: usize) -> Option<Place> {
        let within = |now: usize| (now < most).then_some(now + 1);
        let clients = &self.clients;
        clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .ok()?;
        Some(Place(Arc::clone(clients)))
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// From now on sessions end when they are between two transactions. They must be woken.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
