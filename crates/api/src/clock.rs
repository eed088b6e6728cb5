//! The clocks of this crate: CLOCK_BOOTTIME for leases and ages, the calendar for documents.

use ha::Instant;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// CLOCK_BOOTTIME, the clock that leases are counted on.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Seconds since 1970, `ago` before now.
pub(crate) fn epoch_seconds(ago: Duration) -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(ago)
        .as_secs()
}

/// Now in seconds since 1970, with their fractions.
pub(crate) fn epoch_seconds_exact() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// Now in RFC 3339 with microseconds, as events carry it.
pub(crate) fn timestamp() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
