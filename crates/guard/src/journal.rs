//! The guard's lines in the log of the instance.
//!
//! **Invariant:** while the guard watches it writes nothing, because a write can hang with the disk that it
//! has to fence. The last line is written by a forked child, so that the guard can end meanwhile.

use crate::text::Text;
use std::fmt;

/// One line, with the time as PostgreSQL writes it.
pub(crate) fn say(args: fmt::Arguments<'_>) {
    let guard = rustix::process::getpid();
    let line = Text::<512>::of(format_args!("{} [{guard}] guard: {args}\n", Utc::now()));
    let _nowhere_to_complain = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// Wall-clock time, for readers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Utc {
    seconds: i64,
    millis: i64,
}

impl Utc {
    fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Self {
            seconds: now.tv_sec,
            millis: now.tv_nsec / 1_000_000,
        }
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.seconds.div_euclid(86_400));
        let second = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let millis = self.millis;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03} UTC"
        )
    }
}

/// The date of a day counted from 1970-01-01. Years begin in March here, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_postgres_prints_them() {
        let text = |seconds| Utc { seconds, millis: 7 }.to_string();
        assert_eq!(text(0), "1970-01-01 00:00:00.007 UTC");
        assert_eq!(text(951_782_399), "2000-02-28 23:59:59.007 UTC");
        assert_eq!(text(951_782_400), "2000-02-29 00:00:00.007 UTC");
        assert_eq!(text(1_709_251_199), "2024-02-29 23:59:59.007 UTC");
        assert_eq!(text(1_798_761_599), "2026-12-31 23:59:59.007 UTC");
    }
}
