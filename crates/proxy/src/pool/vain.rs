//! Those who have a place of a pool and get no server, because there is no primary or it lets nobody in: all who wait
//! for their places wait for that, too.

use super::Pool;
use super::refusals::Refusals;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of one pool.
#[derive(Debug, Default)]
pub(super) struct Vain {
    waiting: AtomicUsize,
    /// What the last one was told.
    why: Mutex<String>,
    /// What servers have said to the proxy.
    pub(super) refusals: Refusals,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct InVain(Arc<Pool>);

impl Vain {
    pub(super) fn why(&self) -> Option<String> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(
            self.why
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

impl InVain {
    pub(super) fn new(pool: &Arc<Pool>, why: &str) -> Self {
        let mut known = pool.vain.why.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *why {
            why.clone_into(&mut known);
        }
        pool.vain.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pool))
    }
}

impl Drop for InVain {
    fn drop(&mut self) {
        self.0.vain.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
