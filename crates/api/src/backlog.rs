//! How far the log is behind what was said, for `GET /patroni`.
//!
//! Counted by whoever keeps the log; it knows neither lines nor files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the log's queue. Clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    lost: AtomicU64,
}

impl Backlog {
    /// A line is about to be put into the queue.
    pub fn comes(&self) {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A line has left the queue, or was not taken by it.
    pub fn goes(&self) {
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// A line will never be written.
    pub fn loses(&self) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines that are not written yet.
    pub fn waiting(&self) -> u64 {
        self.counts.waiting.load(Ordering::Relaxed)
    }

    /// Lines that were lost since the start.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}
