//! The places of a pool: who has one may have a connection.
//!
//! **Invariant:** who waits longest gets the next one that is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to one of a pool's connections.
#[derive(Debug)]
pub(crate) struct Permit(
    #[allow(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit,
);

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    permits: Arc<Semaphore>,
    /// How many there are, those that are taken included.
    size: AtomicUsize,
}

impl Places {
    pub(super) fn new(size: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(size)),
            size: AtomicUsize::new(size),
        }
    }

    /// Waits for its turn.
    pub(super) async fn enter(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.ok().map(Permit)
    }

    /// The same if nobody waits.
    pub(super) fn try_enter(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.ok().map(Permit)
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> usize {
        let size = self.size();
        size - self.permits.available_permits().min(size)
    }

    pub(super) fn resize(&self, size: usize) {
        let before = self.size.swap(size, Ordering::Relaxed);
        self.permits.add_permits(size.saturating_sub(before));
        let fewer = before.saturating_sub(size);
        let Ok(fewer @ 1..) = u32::try_from(fewer) else {
            return;
        };
        // Those that are out are taken away when they come back.
        let permits = Arc::clone(&self.permits);
        tokio::spawn(async move {
            if let Ok(taken) = permits.acquire_many_owned(fewer).await {
                taken.forget();
            }
        });
    }
}
