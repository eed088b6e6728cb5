//! What servers have said to logins that they refused: it is logged, for who looks after the proxy reads no client's
//! errors.
//!
//! **Invariant:** the same words of the same server are logged once a minute at most, however many clients come.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same.
const AGAIN: Duration = Duration::from_secs(60);
/// A server that is not open yet refuses everybody by its rules, and has too many connections for a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many are told apart.
const MOST: usize = 16;

/// Of one pool.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Vec<Refusal>>);

#[derive(Debug)]
struct Refusal {
    address: String,
    words: String,
    first: Instant,
    last: Instant,
    said: Option<Instant>,
}

/// How a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It will be again until somebody changes something.
    Lasting,
    /// It may pass.
    Passing,
}

impl Refusals {
    /// Takes note; whether it is to be logged.
    pub(super) fn note(&self, address: &str, words: &str, kind: Kind, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| now.duration_since(one.last) < AGAIN);
        let is_same = |one: &Refusal| one.address == address && one.words == words;
        let at = match known.iter().position(is_same) {
            Some(at) => at,
            None if known.len() == MOST => return false,
            None => {
                known.push(Refusal {
                    address: address.to_owned(),
                    words: words.to_owned(),
                    first: now,
                    last: now,
                    said: None,
                });
                known.len() - 1
            }
        };
        let one = &mut known[at];
        one.last = now;
        let is_due = match one.said {
            Some(said) => now.duration_since(said) >= AGAIN,
            None => kind == Kind::Lasting || now.duration_since(one.first) >= PATIENCE,
        };
        if is_due {
            one.said = Some(now);
        }
        is_due
    }

    /// It lets us in.
    pub(super) fn forget(&self, address: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.address != address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which something is logged.
    fn logged(kind: Kind, words: &[(u64, &str)]) -> Vec<u64> {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let is_logged = |(second, words): &&(u64, &str)| {
            refusals.note("a:1", words, kind, start + Duration::from_secs(*second))
        };
        let logged = words.iter().filter(is_logged);
        logged.map(|(second, _)| *second).collect()
    }

    #[test]
    fn the_same_is_said_once_a_minute_and_what_may_pass_when_it_does_not() {
        let words = [(0, "no"), (3, "no"), (6, "no"), (7, "never"), (64, "no")];
        assert_eq!(logged(Kind::Lasting, &words), [0, 7, 64]);
        assert_eq!(logged(Kind::Passing, &words), [6]);
        // What has not happened for a minute is new.
        assert!(logged(Kind::Passing, &[(0, "no"), (60, "no")]).is_empty());
    }

    #[test]
    fn who_was_let_in_meanwhile_begins_anew_and_not_everything_is_kept() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.note("a:1", "no", Kind::Lasting, now));
        assert!(refusals.note("b:1", "no", Kind::Lasting, now));
        refusals.forget("a:1");
        assert!(refusals.note("a:1", "no", Kind::Lasting, now));
        assert!(!refusals.note("b:1", "no", Kind::Lasting, now));
        let more = (0..100)
            .filter(|n| refusals.note("c:1", &n.to_string(), Kind::Lasting, now))
            .count();
        assert_eq!(more, MOST - 2);
    }
}
