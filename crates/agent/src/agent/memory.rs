//! What the loop remembers between two decisions.
//!
//! **Invariant:** everything here may be forgotten at any moment: a new agent begins without it, and decides safely.
//! It does not know what a decision makes of it.

use super::Agent;
use super::absence::Absence;
use super::logical::Logical;
use crate::observe::Observation;
use crate::shell::Giving;
use ha::quorum::Applied;
use ha::{Action, ClusterView, Decision, Epoch, Instant, Job, Postgres, Walsender};
use store::layout::Reader;
use tokio::task::JoinHandle;

/// One running action, or none.
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) job: Job,
    pub(super) action: Action,
    pub(super) task: JoinHandle<()>,
}

/// For whom, in which term of the instance's streams, their names, and the logical ones.
pub(super) type Slots = (Giving, u64, Vec<String>, Logical);

/// What the loop remembers between two decisions.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) running: Option<Running>,
    /// How many actions were begun.
    pub(super) begun: u64,
    pub(super) applied: Option<Applied>,
    /// The node's record was seen.
    pub(super) registered: bool,
    pub(super) promised: Option<(Epoch, Instant)>,
    pub(super) down_since: Option<Instant>,
    /// Since when processes of a dead instance are there though they were killed.
    pub(super) stuck_since: Option<Instant>,
    /// The guard whose kill was told of.
    pub(super) fenced_by: Option<i32>,
    pub(super) primary_since: Option<Instant>,
    pub(super) start_failures: u32,
    /// Observations from before this moment are out of date.
    pub(super) fresh_from: Instant,
    pub(super) last: Option<Decision>,
    /// When a decision was last said.
    pub(super) said: Option<Instant>,
    pub(super) reader: Reader,
    /// What could not be read, and when that was last said.
    pub(super) unreadable: Option<(String, Instant)>,
    /// Since when nothing can be decided and Postgres does not work as a primary.
    pub(super) idle_since: Option<Instant>,
    /// Which slots were asked for last, and when.
    pub(super) slots: Option<(Slots, Instant)>,
    pub(super) absence: Absence,
    /// The action that failed last, how often in a row, and until when it is not tried again.
    pub(super) trouble: Option<(&'static str, u32, Instant)>,
    /// Why, for people.
    pub(super) failure: Option<(&'static str, String)>,
    /// Why this node is not to be promoted, and since when.
    pub(super) barred: Option<(String, Instant)>,
    pub(super) left: bool,
    /// The last sign of another leader's life, and that of the one that was taken over from until clients can write.
    pub(super) last_sign: Option<Instant>,
    pub(super) taking_over: Option<Instant>,
    /// The revision on which a scheduled switchover was taken up last.
    pub(super) ordered_at: Option<store::Revision>,
}

impl Memory {
    /// The action whose task has ended.
    pub(super) fn take_dead(&mut self) -> Option<Running> {
        self.running.take_if(|running| running.task.is_finished())
    }
}

impl Agent {
    pub(super) fn remember(&mut self, view: &ClusterView, observation: &Observation, at: Instant) {
        let open = matches!(observation.postgres, Postgres::Standby(_));
        let fresh = observation.at >= self.memory.fresh_from && self.memory.running.is_none();
        if open && fresh && self.shell.rewound.is_set() {
            self.shell.rewound.seen_whole();
        }
        if let ClusterView::Known(cluster) = view {
            self.memory.registered |= cluster.nodes.contains_key(&self.name);
            // Also a promise whose acknowledgement was lost, or that this agent's predecessor made.
            let epoch = cluster.current_epoch();
            let stands = cluster
                .promises
                .get(&self.name)
                .is_some_and(|it| it.epoch == epoch);
            if stands && self.memory.promised.is_none_or(|(of, _)| of != epoch) {
                self.memory.promised = Some((epoch, at));
            }
        }
        match &observation.postgres {
            Postgres::Down { .. } | Postgres::Starting => {
                self.memory.down_since.get_or_insert(at);
                self.memory.applied = None;
            }
            Postgres::Standby(_) => {
                self.memory.down_since = None;
                self.memory.start_failures = 0;
                self.memory.applied = None;
            }
            Postgres::Primary(_) => {
                self.memory.down_since = None;
                self.memory.start_failures = 0;
            }
            Postgres::Unresponsive { .. } => {}
        }
    }

    /// A new primary gives the standbys of its setting the time to come: each counts as seen when it was promoted.
    pub(super) fn with_absent_standbys(
        &mut self,
        view: &ClusterView,
        postgres: &Postgres,
        at: Instant,
    ) -> Postgres {
        let (Postgres::Primary(primary), ClusterView::Known(cluster)) = (postgres, view) else {
            self.memory.primary_since = None;
            return postgres.clone();
        };
        let since = *self.memory.primary_since.get_or_insert(at);
        let mut primary = primary.clone();
        let named = cluster.sync.iter().flat_map(|sync| &sync.newest().standbys);
        for name in named {
            let absent = Walsender {
                streaming: false,
                flushed: ha::Lsn::ZERO,
                seen: since,
            };
            let walsender = primary.standbys.entry(name.clone()).or_insert(absent);
            walsender.seen = walsender.seen.max(since);
        }
        Postgres::Primary(primary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_action_that_panicked_is_found_dead() {
        let running = |task| Running {
            number: 1,
            job: Job::Park,
            action: Action::Park,
            task,
        };
        let mut memory = Memory {
            running: Some(running(tokio::spawn(std::future::pending()))),
            ..Memory::default()
        };
        assert!(memory.take_dead().is_none(), "it is still at work");
        memory.running = Some(running(tokio::spawn(async { panic!("as a test") })));
        let dead = loop {
            match memory.take_dead() {
                Some(dead) => break dead,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(dead.action, Action::Park);
        assert!(memory.running.is_none());
    }
}
