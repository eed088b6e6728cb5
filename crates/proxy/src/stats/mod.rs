//! What a proxy can say of itself: who is there, what was done, what a failover has cost.
//!
//! It is told by the sessions as they go, by counters that nobody waits for.

mod average;
mod failover;
mod metrics;
mod roster;

pub(crate) use average::{Averages, sums};
pub(crate) use failover::watch;
pub(crate) use metrics::text;
pub(crate) use roster::{Card, Entry, Roster, State};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one pool.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) transactions: Counter,
    /// Queries, and batches up to a Sync.
    pub(crate) queries: Counter,
    /// From clients, in bytes.
    pub(crate) received: Counter,
    /// To clients, in bytes.
    pub(crate) sent: Counter,
    /// How long requests have waited for a server, in microseconds.
    pub(crate) waited: Counter,
}

/// Of a whole proxy.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Sessions that went on with a server of a newer epoch.
    pub(crate) moved: Counter,
    /// Requests that had to wait because there was no primary.
    pub(crate) held: Counter,
    /// Requests that waited for too long, or found no room to wait in: 57P03.
    pub(crate) refused: Counter,
    /// Transactions and requests that went with their server: 40001.
    pub(crate) lost: Counter,
    /// Failovers and switchovers that were seen.
    pub(crate) failovers: Counter,
    /// Sessions that the proxy has ended, by the reason.
    closed: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) averages: Averages,
    /// The longest that a request has waited since this was last taken, in microseconds.
    longest: AtomicU64,
}

impl Stats {
    /// A session was ended.
    pub(crate) fn close(&self, reason: &'static str) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed.entry(reason).or_default() += 1;
    }

    pub(crate) fn closed(&self) -> BTreeMap<&'static str, u64> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.clone()
    }

    /// A request has waited.
    pub(crate) fn waited(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(time, Ordering::Relaxed);
    }

    /// Waits of ordinary days are no failover's.
    fn forget_longest(&self) {
        self.longest.store(0, Ordering::Relaxed);
    }

    fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }
}
