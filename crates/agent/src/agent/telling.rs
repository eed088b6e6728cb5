//! What is told to others after each turn: a new decision, the slots that other nodes need, the keeper's words.
//!
//! It does not decide, and nothing is decided on it.

use super::{Agent, chain};
use crate::keeper::Said;
use crate::observe::Observation;
use crate::shell;
use ha::{ClusterView, Decision, Epoch, Instant, NodeView, Postgres};
use std::time::Duration;

impl Agent {
    /// Says a new decision once, in the log and in the events.
    pub(super) fn announce(&mut self, decision: &Decision, view: &ClusterView) {
        // Waiting for one's own action is no news: the action was.
        if self.memory.running.is_some() && decision.actions.is_empty() {
            return;
        }
        let news = self.memory.last.as_ref().is_none_or(|last| {
            last.rule != decision.rule
                || last.actions != decision.actions
                || last.state != decision.state
                || last.assigned != decision.assigned
        });
        if news {
            tracing::info!(
                rule = decision.rule,
                state = %decision.state,
                assigned = %decision.assigned,
                "{}",
                decision.reason
            );
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
    pub(super) fn housekeep(&mut self, view: &ClusterView, me: &NodeView, at: Instant) {
        let ClusterView::Known(cluster) = view else {
            return;
        };
        if !matches!(me.postgres, Postgres::Primary(_) | Postgres::Standby(_)) {
            return;
        }
        let office = matches!(me.postgres, Postgres::Primary(_))
            .then_some(me.lease)
            .flatten();
        let wanted = shell::slots(&self.name, cluster, office.map(|lease| lease.epoch));
        let names: Vec<String> = wanted.keys().cloned().collect();
        let due = self.memory.slots.as_ref().is_none_or(|(last_names, last)| {
            *last_names != names || at.since(*last) > Duration::from_secs(10)
        });
        if due && self.memory.running.is_none() {
            self.memory.slots = Some((names, at));
            let instance = self.shell.instance.clone();
            tokio::spawn(async move {
                if let Err(error) = instance.ensure_slots(&wanted, Duration::from_secs(5)).await {
                    tracing::debug!(error = chain(&error), "replication slots not up to date");
                }
            });
        }
    }

    pub(super) fn tell_keeper(
        &self,
        view: &ClusterView,
        me: &NodeView,
        observation: &Observation,
        decision: &Decision,
    ) {
        let ClusterView::Known(cluster) = view else {
            return;
        };
        let registered = cluster.nodes.contains_key(&self.name);
        let member = registered.then(|| self.shown.member(cluster, me, observation, decision));
        let optime = match &me.postgres {
            Postgres::Primary(primary) => primary.flushed,
            _ => cluster.leader_position,
        };
        let said = Said {
            member,
            optime,
            settings: cluster.settings.clone(),
        };
        self.said.send_if_modified(|last| {
            let changed = last.member != said.member || last.settings != said.settings;
            *last = said;
            changed
        });
    }
}
