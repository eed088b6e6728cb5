//! True time, which only the simulation knows, and the clocks that the nodes read instead.

use ha::Instant;

/// True time in microseconds since the world began.
pub(crate) type Micros = u64;

pub(crate) const fn ms(millis: u64) -> Micros {
    millis * 1000
}

/// A machine's CLOCK_BOOTTIME: runs at a rate of its own, and may stand still with the machine.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// What it showed at `since`, in nanoseconds.
    shown: u64,
    since: Micros,
    /// Nanoseconds a true microsecond adds: 1000 ± 10.
    rate: u64,
    stopped: bool,
}

impl Clock {
    pub(crate) fn new(shown: u64, since: Micros, rate: u64) -> Self {
        Self {
            shown,
            since,
            rate,
            stopped: false,
        }
    }

    pub(crate) fn read(&self, now: Micros) -> Instant {
        let passed = if self.stopped {
            0
        } else {
            now.saturating_sub(self.since)
        };
        Instant(self.shown + passed * self.rate)
    }

    /// True time at which this clock will show `local`, if it does not stop.
    pub(crate) fn when(&self, local: Instant) -> Micros {
        let ahead = local.0.saturating_sub(self.shown);
        self.since + ahead.div_ceil(self.rate)
    }

    /// A local span of `micros`, in true microseconds.
    pub(crate) fn span(&self, micros: Micros) -> Micros {
        micros * 1000 / self.rate
    }

    pub(crate) fn stop(&mut self, now: Micros) {
        self.shown = self.read(now).0;
        self.since = now;
        self.stopped = true;
    }

    pub(crate) fn go(&mut self, now: Micros) {
        if self.stopped {
            self.since = now;
            self.stopped = false;
        }
    }
}
