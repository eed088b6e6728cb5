//! What Postgres is taken for when it does not answer a probe.
//!
//! **Invariant:** a Postgres that answers, if only that it is full, is never taken for one that hangs.
//! It does not know how long a silence may last.

use ha::{Instant, Postgres};
use postgres::PostgresError;

/// What is known of one postmaster's answers.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    postmaster: i32,
    /// When it last answered.
    answered: Option<Instant>,
    /// When it was first found silent, though it says that it is ready.
    silent: Option<Instant>,
    /// What it answered, of a primary.
    primary: Option<Postgres>,
}

impl Answers {
    /// Of a postmaster that is gone nothing is known.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The look that began at `at` found this.
    pub(crate) fn answered(&mut self, postmaster: i32, at: Instant, found: &Postgres) {
        let primary = matches!(found, Postgres::Primary(_)).then(|| found.clone());
        *self = Self {
            postmaster,
            answered: Some(at),
            silent: None,
            primary,
        };
    }

    /// The look that began at `at` failed. `ready`: its pid file says that it takes connections.
    pub(crate) fn unanswered(
        &mut self,
        postmaster: i32,
        at: Instant,
        error: &PostgresError,
        ready: bool,
    ) -> Postgres {
        if self.postmaster != postmaster {
            self.forget();
            self.postmaster = postmaster;
        }
        if matches!(error, PostgresError::TooManyConnections) {
            self.answered = Some(at);
            // A primary stays what it was. What a standby was is not believed any longer: it may have been told to
            // stream since, and a promise would stand on it.
            return match &self.primary {
                Some(primary) => primary.clone(),
                None => Postgres::Unresponsive { since: at },
            };
        }
        match (self.answered, self.silent) {
            (Some(since), _) => Postgres::Unresponsive { since },
            (None, _) if !ready => {
                self.silent = None;
                Postgres::Starting
            }
            // It may have become ready during this very look.
            (None, None) => {
                self.silent = Some(at);
                Postgres::Starting
            }
            (None, Some(since)) => Postgres::Unresponsive { since },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::{Primary, Standby};
    use std::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::default().plus(Duration::from_secs(seconds))
    }

    fn silence() -> PostgresError {
        PostgresError::Timeout {
            doing: "probe the instance",
            after: Duration::from_secs(1),
        }
    }

    const FULL: PostgresError = PostgresError::TooManyConnections;

    #[test]
    fn to_a_new_agent_a_silent_postgres_that_says_ready_hangs_since_the_first_look() {
        let mut answers = Answers::default();
        let mut look = |n, ready| answers.unanswered(7, at(n), &silence(), ready);
        assert_eq!(look(1, false), Postgres::Starting);
        assert_eq!(look(2, true), Postgres::Starting);
        assert_eq!(look(3, true), Postgres::Unresponsive { since: at(2) });
        assert_eq!(look(9, true), Postgres::Unresponsive { since: at(2) });
    }

    #[test]
    fn a_postgres_that_has_answered_hangs_since_then() {
        let mut answers = Answers::default();
        answers.answered(7, at(1), &Postgres::Standby(Standby::default()));
        let look = answers.unanswered(7, at(5), &silence(), true);
        assert_eq!(look, Postgres::Unresponsive { since: at(1) });
        // Another postmaster is another story.
        let look = answers.unanswered(8, at(6), &silence(), false);
        assert_eq!(look, Postgres::Starting);
    }

    #[test]
    fn a_full_primary_stays_one() {
        let primary = Postgres::Primary(Primary::default());
        let mut answers = Answers::default();
        answers.answered(7, at(1), &primary);
        assert_eq!(answers.unanswered(7, at(50), &FULL, true), primary);
        let look = answers.unanswered(7, at(51), &silence(), true);
        assert_eq!(look, Postgres::Unresponsive { since: at(50) });
    }

    #[test]
    fn a_full_postgres_of_which_nothing_is_known_never_hangs() {
        let mut answers = Answers::default();
        answers.answered(7, at(1), &Postgres::Standby(Standby::default()));
        for n in [2, 90] {
            let look = answers.unanswered(7, at(n), &FULL, true);
            assert_eq!(look, Postgres::Unresponsive { since: at(n) });
        }
    }
}
