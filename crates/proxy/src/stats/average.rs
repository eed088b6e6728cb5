//! What a second of the last minute or two has cost, for each database.
//!
//! **Invariant:** the time that an average is over has passed: from the proxy's start on, no division makes much of
//! little.

use super::Work;
use crate::pool::Pools;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// As PgBouncer's `stats_period` is, unless somebody says otherwise.
const PERIOD: Duration = Duration::from_secs(60);
/// Over less than this nothing is said per second.
const LEAST: Duration = Duration::from_secs(1);

/// Counters of one database, in the order of their columns.
pub(crate) type Sums = [u64; 5];

/// Of all databases at one moment.
#[derive(Debug, Clone)]
struct Moment {
    at: Instant,
    sums: BTreeMap<String, Sums>,
}

/// The beginning of this period, and that of the one before.
#[derive(Debug)]
pub(crate) struct Averages(Mutex<[Moment; 2]>);

/// What each database has done since the proxy's start.
pub(crate) fn sums(pools: &Pools) -> BTreeMap<String, Sums> {
    let mut all: BTreeMap<String, Sums> = BTreeMap::new();
    for pool in pools.all() {
        let sums = all.entry(pool.database.to_string()).or_default();
        for (sum, counted) in sums.iter_mut().zip(of(&pool.work)) {
            *sum += counted;
        }
    }
    all
}

fn of(work: &Work) -> Sums {
    [
        work.transactions.get(),
        work.queries.get(),
        work.received.get(),
        work.sent.get(),
        work.waited.get(),
    ]
}

impl Default for Averages {
    fn default() -> Self {
        Self::begin(Instant::now())
    }
}

impl Averages {
    fn begin(at: Instant) -> Self {
        let sums = BTreeMap::new();
        let moment = Moment { at, sums };
        Self(Mutex::new([moment.clone(), moment]))
    }

    /// Begins another period, if it is time.
    pub(crate) fn turn(&self, now: Instant, sums: impl FnOnce() -> BTreeMap<String, Sums>) {
        let mut moments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(moments[1].at) < PERIOD {
            return;
        }
        moments.swap(0, 1);
        moments[1] = Moment {
            at: now,
            sums: sums(),
        };
    }

    /// By the second since the beginning of the period before this one.
    pub(crate) fn of(&self, database: &str, sums: Sums, now: Instant) -> Sums {
        let moments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = &moments[0];
        let passed = now.saturating_duration_since(before.at).max(LEAST);
        let mut averages = before.sums.get(database).copied().unwrap_or_default();
        for (average, sum) in averages.iter_mut().zip(sums) {
            // A pool that was forgotten takes what it had done along.
            let done = u128::from(sum.saturating_sub(*average));
            *average = u64::try_from(done * 1000 / passed.as_millis()).unwrap_or(u64::MAX);
        }
        averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_is_over_the_last_minute_or_two() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let done = |count| [count, 0, 0, 0, 0];
        let averages = Averages::begin(start);
        let of = |sum, seconds| averages.of("app", done(sum), at(seconds))[0];
        let turn = |sum, seconds| {
            averages.turn(at(seconds), || {
                BTreeMap::from([("app".to_owned(), done(sum))])
            });
        };
        assert_eq!([of(0, 0), of(7, 0), of(300, 30)], [0, 7, 10]);
        turn(0, 30);
        turn(600, 60);
        assert_eq!(of(600, 60), 10);
        turn(600, 120);
        // Nothing since.
        assert_eq!(of(600, 180), 0);
        turn(600, 180);
        assert_eq!(of(1200, 240), 5);
        // The pool is another one.
        assert_eq!(of(3, 240), 0);
    }
}
