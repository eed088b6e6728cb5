//! Whether the cluster's store answers, as it is seen from what the proxy asks of it anyway.
//!
//! **Invariant:** what is said here decides nothing: a store that does not answer leaves the primary what it was.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

/// While a new leader of the store is elected nothing is wrong with it.
const PATIENCE: Duration = Duration::from_secs(3);

/// One for a proxy.
#[derive(Debug)]
pub(crate) struct Ear {
    memory: Mutex<Memory>,
    told: watch::Sender<Contact>,
}

/// What is known of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Contact {
    /// There is none, or it has not been asked for long enough.
    #[default]
    Unknown,
    Answers,
    /// It said something last at that time.
    Silent {
        since: SystemTime,
        why: String,
    },
    /// It has not said anything yet.
    Mute {
        why: String,
    },
    /// It lets this proxy not in.
    Refuses {
        why: String,
    },
}

/// When it was heard.
#[derive(Debug, Default)]
struct Memory {
    heard: Option<SystemTime>,
    /// Since when it was asked in vain.
    in_vain: Option<Instant>,
}

impl Default for Ear {
    fn default() -> Self {
        Self {
            memory: Mutex::default(),
            told: watch::channel(Contact::Unknown).0,
        }
    }
}

impl Ear {
    /// It has been asked something at `begun`, or has told some news.
    pub(crate) fn note(&self, begun: Instant, answer: Result<(), &StoreError>) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (Instant::now(), SystemTime::now());
        let Some(contact) = memory.note(begun, now, answer) else {
            return;
        };
        self.told.send_if_modified(|before| {
            let is_other = !before.is_like(&contact);
            if is_other {
                log(before, &contact);
                *before = contact;
            }
            is_other
        });
    }

    pub(crate) fn heard(&self) {
        self.note(Instant::now(), Ok(()));
    }

    pub(crate) fn contact(&self) -> Contact {
        self.told.borrow().clone()
    }

    /// Follows the changes.
    pub(super) fn follow(&self) -> watch::Receiver<Contact> {
        self.told.subscribe()
    }
}

impl Contact {
    /// What is wrong.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Self::Unknown | Self::Answers => None,
            Self::Silent { .. } | Self::Mute { .. } | Self::Refuses { .. } => {
                Some(format!("the store {self}"))
            }
        }
    }

    /// The same trouble, in whatever words.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What the store does.
impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("has not answered yet"),
            Self::Answers => f.write_str("answers"),
            Self::Silent { since, why } => {
                let since = jiff::Timestamp::try_from(*since);
                let since = since.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
                let since = since.strftime("%Y-%m-%d %H:%M:%S UTC");
                write!(f, "has been silent since {since}: {why}")
            }
            Self::Mute { why } => write!(f, "has not answered yet: {why}"),
            Self::Refuses { why } => write!(f, "answers, and does not let this proxy in: {why}"),
        }
    }
}

impl Memory {
    /// `None`: nothing can be said yet that was not said before.
    fn note(
        &mut self,
        begun: Instant,
        (now, calendar): (Instant, SystemTime),
        answer: Result<(), &StoreError>,
    ) -> Option<Contact> {
        let error = match answer {
            // Of a lease it knows.
            Ok(()) | Err(StoreError::LeaseEnded(_)) => {
                self.heard = Some(calendar);
                self.in_vain = None;
                return Some(Contact::Answers);
            }
            Err(error) => error,
        };
        let why = error.to_string();
        let in_vain = *self.in_vain.get_or_insert(begun);
        match self.heard {
            None if matches!(error, StoreError::Denied(_)) => Some(Contact::Refuses { why }),
            _ if now.duration_since(in_vain) < PATIENCE => None,
            None => Some(Contact::Mute { why }),
            Some(since) => Some(Contact::Silent { since, why }),
        }
    }
}

fn log(before: &Contact, now: &Contact) {
    match (before, now) {
        (_, Contact::Silent { why, .. }) => tracing::warn!(
            error = why,
            "the store is silent: the proxy goes on with what it knew last"
        ),
        (Contact::Silent { since, .. }, Contact::Answers) => {
            let silent_s = since.elapsed().unwrap_or_default().as_secs();
            tracing::info!(silent_s, "the store answers again");
        }
        // Who looks out for a primary says the rest.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answers: &[(u64, Result<(), StoreError>)], expected: &[&str]) {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let at = |second| {
            let time = Duration::from_secs(second);
            (start + time, SystemTime::UNIX_EPOCH + time)
        };
        let said = answers.iter().map(|(second, answer)| {
            let answer = answer.as_ref().copied();
            let contact = memory.note(at(*second).0, at(*second + 1), answer);
            contact.map_or_else(|| "nothing new".to_owned(), |it| it.to_string())
        });
        assert_eq!(said.collect::<Vec<_>>(), expected);
    }

    fn unreachable() -> Result<(), StoreError> {
        Err(StoreError::Unreachable("no leader is known".to_owned()))
    }

    #[test]
    fn it_is_silent_since_it_was_heard_last_and_after_a_while_of_asking() {
        let why = "store not reachable: no leader is known";
        check(
            &[
                (4, Ok(())),
                (9, unreachable()),
                (10, unreachable()),
                (11, unreachable()),
                (12, Ok(())),
                (17, unreachable()),
                (18, Err(StoreError::LeaseEnded(store::LeaseId(1)))),
                (19, unreachable()),
            ],
            &[
                "answers",
                "nothing new",
                "nothing new",
                &format!("has been silent since 1970-01-01 00:00:05 UTC: {why}"),
                "answers",
                "nothing new",
                "answers",
                "nothing new",
            ],
        );
    }

    #[test]
    fn who_is_refused_from_the_first_hears_so_at_once() {
        let denied = || Err(StoreError::Denied("another cluster".to_owned()));
        check(
            &[(0, unreachable()), (3, unreachable()), (4, denied())],
            &[
                "nothing new",
                "has not answered yet: store not reachable: no leader is known",
                "answers, and does not let this proxy in: refused: another cluster",
            ],
        );
    }
}
