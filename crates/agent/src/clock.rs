//! CLOCK_BOOTTIME, the clock of every deadline: it goes on while the machine sleeps.

use ha::Instant;

/// Now, in nanoseconds since the machine's boot.
pub fn now() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds * 1_000_000_000 + nanos)
}
