//! What is told to others after each turn: a new decision, the slots that other nodes need, the keeper's words.
//!
//! It does not decide, and nothing is decided on it.

use super::{Agent, chain};
use crate::clock::now;
use crate::keeper::Said;
use crate::observe::Observation;
use crate::shell::{self, Giving};
use ha::{ClusterView, Decision, Epoch, Instant, NodeView, Postgres};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::Snapshot;

/// A state that only a person can end is said again this often.
const AGAIN: Duration = Duration::from_secs(60);

/// How loud a decision is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Plain,
    /// Unexpected, and its reason is news when it changes.
    Strange,
    /// A person must look, and do this.
    Person(&'static str),
}

impl Weight {
    fn of(rule: &str) -> Self {
        match rule {
            "cannot stream" => Self::Strange,
            "foreign directory" => Self::Person(
                "move the directory away, and this node makes a copy of the leader; or correct data_dir or scope in its \
                 configuration",
            ),
            "unusable directory" => {
                Self::Person("mend it, or move it away, and this node makes a copy of the leader")
            }
            "forgotten epoch" => Self::Person(
                "bring back the store that knows the epoch; or, if this node belongs to another cluster, correct its \
                 configuration or move its data directory away",
            ),
            "lost cluster" => Self::Person(
                "bring the store back; or choose the node with the newest data, and make the file that the reason names",
            ),
            _ => Self::Plain,
        }
    }
}

impl Agent {
    /// Says a new decision once, in the log and in the events.
    pub(super) fn announce(&mut self, decision: &Decision, view: &ClusterView) {
        // Waiting for one's own action is no news: the action was.
        if self.memory.running.is_some() && decision.actions.is_empty() {
            return;
        }
        let weight = Weight::of(decision.rule);
        let news = self.memory.last.as_ref().is_none_or(|last| {
            last.rule != decision.rule
                || last.actions != decision.actions
                || last.state != decision.state
                || last.assigned != decision.assigned
                || (weight == Weight::Strange && last.reason != decision.reason)
        });
        let unheard = matches!(weight, Weight::Person(_))
            && self
                .memory
                .said
                .is_none_or(|said| now().since(said) > AGAIN);
        if news || unheard {
            self.memory.said = Some(now());
            say(decision, weight);
        }
        if news {
            self.figures.decided(decision.rule);
            let epoch = match view {
                ClusterView::Known(cluster) => cluster.current_epoch(),
                ClusterView::Silent { .. } => Epoch::NONE,
            };
            self.events
                .decided(epoch, self.memory.last.as_ref(), decision);
        }
        self.memory.last = Some(decision.clone());
    }

    /// What is done beside the decisions: replication slots for every other node.
    pub(super) fn housekeep(
        &mut self,
        view: &ClusterView,
        snapshot: &Snapshot,
        me: &NodeView,
        at: Instant,
    ) {
        let ClusterView::Known(cluster) = view else {
            return;
        };
        if !matches!(me.postgres, Postgres::Primary(_) | Postgres::Standby(_)) {
            return;
        }
        let giving = self.giving(cluster, me);
        let leads = matches!(giving, Giving::Office(_));
        let permanent = self.sharing.permanent(&self.shell.keys, snapshot, leads);
        let ttl = self.sharing.member_slots_ttl();
        let absent = self.memory.absence.look(cluster, ttl, at);
        let wanted = shell::slots(&self.name, cluster, giving, &absent, permanent);
        let term = self.shell.instance.streams_term();
        let names: Vec<String> = wanted.keys().cloned().collect();
        let logical = self.logical(cluster, me, giving);
        let names = (giving, term, names, logical.clone());
        let due = self.memory.slots.as_ref().is_none_or(|(last_names, last)| {
            *last_names != names || at.since(*last) > Duration::from_secs(10)
        });
        if due && self.memory.running.is_none() {
            self.memory.slots = Some((names, at));
            let instance = self.shell.instance.clone();
            let (positions, served) = (self.sharing.positions(), self.cascade.served());
            let wake = Arc::clone(&self.wake);
            tokio::spawn(async move {
                let onward = match giving {
                    Giving::Onward(epoch) => Some(epoch),
                    Giving::Office(_) | Giving::Nobody => None,
                };
                let limit = Duration::from_secs(5);
                let held = instance.hold_slots(term, &wanted, onward.is_some(), limit);
                match held.await {
                    Ok(None) => {}
                    Ok(Some(slots)) => {
                        positions.take(slots.positions);
                        logical.hold(&instance, limit).await;
                        if let Some(epoch) = onward {
                            served.set(epoch, term);
                            wake.notify_one();
                        }
                    }
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "replication slots not up to date");
                    }
                }
            });
        }
    }

    /// Whom to ask if the store falls silent, and what a member is to know before it gives its word.
    pub(super) fn tell_failsafe(&mut self, view: &ClusterView, me: &NodeView, at: Instant) {
        let position = match &me.postgres {
            Postgres::Standby(standby) => standby.received,
            _ => ha::Lsn::ZERO,
        };
        let leads = me.lease.is_some();
        self.shell.holds.told(view, &self.name, leads, position, at);
        let plan = self.failsafe.plan(view, me);
        self.plan.send_if_modified(|last| {
            let changed = *last != plan;
            *last = plan;
            changed
        });
    }

    pub(super) fn tell_keeper(
        &mut self,
        view: &ClusterView,
        snapshot: &Snapshot,
        me: &NodeView,
        observation: &Observation,
        decision: &Decision,
    ) {
        let ClusterView::Known(cluster) = view else {
            return;
        };
        let registered = cluster.nodes.contains_key(&self.name);
        let member = registered.then(|| {
            let mut member = self.shown.member(cluster, me, observation, decision);
            let unchecked = matches!(me.postgres, Postgres::Primary(_))
                && self.shell.unchecked.load(Ordering::SeqCst);
            member.checkpoint_after_promote = unchecked.then_some(false);
            if let Some(ours) = &mut member.standfast {
                ours.ties = self.ties(view, me);
                ours.remembers = self.shell.known.for_others(&self.shell.keys, snapshot);
            }
            member
        });
        let optime = match &me.postgres {
            Postgres::Primary(primary) => primary.flushed,
            Postgres::Standby(standby) if standby.remote.is_some() => standby.received,
            _ => cluster.leader_position,
        };
        let mine = cluster.leader.as_ref() == Some(&self.name);
        let optime = mine.then(|| (cluster.current_epoch(), optime));
        let listed = mine.then(|| self.failsafe.wanted(cluster)).flatten();
        let listed = listed
            .map(|listed| listed.map(|listed| serde_json::to_string(&listed).unwrap_or_default()));
        let said = Said {
            member,
            optime,
            slots: self.sharing.published(),
            failsafe: listed,
            settings: cluster.settings.clone(),
        };
        self.said.send_if_modified(|last| {
            let changed = last.member != said.member || last.settings != said.settings;
            *last = said;
            changed
        });
    }
}

fn say(decision: &Decision, weight: Weight) {
    let Decision {
        rule,
        state,
        assigned,
        reason,
        ..
    } = decision;
    match weight {
        Weight::Plain => tracing::info!(rule, %state, %assigned, "{reason}"),
        Weight::Strange => tracing::warn!(rule, %state, %assigned, "{reason}"),
        Weight::Person(hint) => tracing::error!(rule, %state, %assigned, hint, "{reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::{Cluster, DataDir, Initialize, NodeName, Storage, SystemId};

    fn decided(data: DataDir) -> Decision {
        let cluster = Cluster {
            initialize: Initialize::Done(SystemId(1)),
            ..Cluster::default()
        };
        let me = NodeView {
            name: NodeName::new("a").expect("a plain name"),
            data,
            postgres: Postgres::Down { leftovers: 0 },
            lineage: None,
            lease: None,
            held: None,
            job: None,
            contact: ha::Contact::default(),
            applied: None,
            storage: Storage::Healthy,
            registered: true,
            promised_at: None,
            clean_stop: false,
            on_disk: None,
            may_not_found: None,
            down_since: None,
            start_failures: 0,
            stream_broken: None,
            stream_says: None,
            rewound: false,
            errand: None,
            source: None,
            unwatched: None,
            barred: None,
            nostream: false,
        };
        ha::decide(&ClusterView::Known(Box::new(cluster)), &me, now())
    }

    #[test]
    fn a_directory_that_only_a_person_can_mend_is_an_error() {
        for data in [
            DataDir::Ready(SystemId(2)),
            DataDir::Unusable("it is torn".to_owned()),
        ] {
            let decision = decided(data);
            let weight = Weight::of(decision.rule);
            assert!(matches!(weight, Weight::Person(_)), "{decision:?}");
        }
        let plain = decided(DataDir::Ready(SystemId(1)));
        assert_eq!(Weight::of(plain.rule), Weight::Plain, "{plain:?}");
    }
}
