//! The one clock of this crate: CLOCK_BOOTTIME, which goes on while the machine sleeps.

use ha::Instant;
use rustix::time::{ClockId, clock_gettime};

pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
