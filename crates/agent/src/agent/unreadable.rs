//! Records that can't be read: those that are done without, and those that nothing can be decided without.
//!
//! **Invariant:** while nothing can be decided, the lease is renewed only for a Postgres that works as a primary. The
//! others can't decide either, but the lease says no more than what is true, and when the record is mended the election
//! begins at once.

use super::Agent;
use crate::clock::now;
use crate::observe::Observation;
use ha::{Instant, Postgres};
use std::time::Duration;
use store::layout::Unreadable;

/// What stays unreadable is said again this often.
const AGAIN: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(1);

impl Agent {
    /// Says what is done without, when it changes and from time to time.
    pub(super) fn passed_over(&mut self, bad: &[Unreadable]) {
        self.memory.idle_since = None;
        let said: Vec<String> = bad.iter().map(Unreadable::to_string).collect();
        if self.is_news(said.join("; ")) {
            tracing::error!(
                error = said.join("; "),
                hint = "write it anew, or delete the key",
                "a record in the store can't be read: an unreadable member counts as absent, settings stay as they were"
            );
        }
    }

    /// Nothing can be decided. Returns how long to rest without an event.
    pub(super) fn undecided(&mut self, bad: &Unreadable, at: Instant) -> Duration {
        if self.is_news(bad.to_string()) {
            tracing::error!(
                error = %bad,
                hint = "write it anew, or delete the key",
                "a record in the store can't be read: nothing is decided"
            );
        }
        self.rest_undecided(at)
    }

    pub(super) fn rest_undecided(&mut self, at: Instant) -> Duration {
        self.memory.last = None;
        let Some(observation) = self.observed.borrow_and_update().clone() else {
            return REST;
        };
        // An action ends by itself, and what was seen before its end is out of date.
        if self.memory.running.is_none() && observation.at >= self.memory.fresh_from {
            self.leave_an_idle_office(&observation, at);
        }
        self.shown.undecided(&observation, self.tenure.lease());
        REST
    }

    fn leave_an_idle_office(&mut self, observation: &Observation, at: Instant) {
        let Some(office) = self.tenure.office() else {
            return;
        };
        let settings = self.memory.reader.settings();
        let patience = settings.map_or(Duration::ZERO, |settings| settings.hang_timeout);
        let over = match observation.postgres {
            Postgres::Primary(_) => {
                self.memory.idle_since = None;
                return;
            }
            Postgres::Down { .. } => true,
            Postgres::Unresponsive { since } => at.since(since) > patience,
            Postgres::Starting | Postgres::Standby(_) => {
                at.since(*self.memory.idle_since.get_or_insert(at)) > patience
            }
        };
        if over {
            tracing::warn!(
                epoch = office.epoch.0,
                "Postgres does not work and nothing can be decided: the lease is left to end"
            );
            self.tenure.let_end();
        }
    }

    pub(super) fn is_news(&mut self, what: String) -> bool {
        if what.is_empty() {
            self.memory.unreadable = None;
            return false;
        }
        let known = self.memory.unreadable.as_ref();
        if known.is_some_and(|(last, said)| *last == what && now().since(*said) < AGAIN) {
            return false;
        }
        self.memory.unreadable = Some((what, now()));
        true
    }
}
