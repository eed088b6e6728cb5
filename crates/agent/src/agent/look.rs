//! One look: what the store says and what was observed, put together as `ha` reads it.
//!
//! **Invariant:** without an answer of the store for a whole lease the view is silent, whatever it last said; so it is
//! until it has caught up with the agent's start.
//! It does not decide.

use super::Agent;
use crate::clock::now;
use crate::observe::Observation;
use crate::pace::Scene;
use ha::{Cluster, ClusterView, Decision, Epoch, Instant, Lease, NodeName, NodeView, Postgres};
use store::Snapshot;

impl Agent {
    /// Without an answer for a whole lease, what the store said no longer permits anything.
    pub(super) fn cluster_view(&self, cluster: Cluster, at: Instant) -> ClusterView {
        let heard = self.tenure.last_heard();
        let silent = heard.is_none_or(|heard| at.since(heard) > cluster.settings.ttl);
        if silent || !self.meeting.is_over() {
            return ClusterView::Silent {
                since: heard.unwrap_or(self.started),
            };
        }
        ClusterView::Known(Box::new(cluster))
    }

    /// The lease of an agent before this one, as its guard has it: until the store has been met for the first time,
    /// Postgres may go on under it. The guard ends it at that deadline in any case.
    fn inherited_lease(&self) -> Option<Lease> {
        if self.tenure.last_heard().is_some() && self.meeting.is_over() {
            return None;
        }
        let armed = self.shell.instance.guard()?.status().armed?;
        Some(Lease {
            epoch: Epoch(armed.epoch),
            deadline: Instant(armed.deadline_ns),
            by_members: false,
        })
    }

    pub(super) fn node_view(
        &mut self,
        view: &ClusterView,
        snapshot: &Snapshot,
        observation: &Observation,
        at: Instant,
    ) -> NodeView {
        self.remember(view, observation, at);
        let contact = match view {
            ClusterView::Known(cluster) => {
                let status = snapshot.entries.get(&self.shell.keys.status());
                // What another standby sends is no sign of the leader's life.
                let (received, direct) = match &observation.postgres {
                    Postgres::Standby(it) => (it.received, self.cascade.is_direct(it, cluster)),
                    _ => (ha::Lsn::ZERO, true),
                };
                let heard = observation.stream_heard.filter(|_| direct);
                let beat = status.map(|entry| entry.modified);
                let contact = self.signs.contact(cluster, beat, received, direct, heard);
                if cluster
                    .leader
                    .as_ref()
                    .is_some_and(|leader| *leader != self.name)
                {
                    self.signs.probe_if_silent(cluster);
                }
                contact
            }
            ClusterView::Silent { .. } => ha::Contact {
                since: at,
                ..ha::Contact::default()
            },
        };
        self.remember_sign(view, &contact);
        let epoch = match view {
            ClusterView::Known(cluster) => cluster.current_epoch(),
            ClusterView::Silent { .. } => Epoch::NONE,
        };
        let unwatched = match view {
            ClusterView::Known(cluster) => self.watch(Some(&cluster.settings)),
            ClusterView::Silent { .. } => self.watch(None),
        };
        let source = self.cascade.source(&observation.postgres, at);
        let barred = self.barred(view, at);
        let errand = self.errands.look(&observation.postgres, at);
        NodeView {
            name: self.name.clone(),
            data: observation.data.clone(),
            postgres: self.with_absent_standbys(view, &observation.postgres, at),
            lineage: self.shell.note.read(),
            lease: self.tenure.lease().or_else(|| self.inherited_lease()),
            held: self.shell.holds.held(),
            job: self.memory.running.as_ref().map(|running| running.job),
            contact,
            applied: self.memory.applied.clone(),
            storage: self.storage.borrow().clone(),
            registered: self.memory.registered,
            promised_at: self
                .memory
                .promised
                .filter(|(of, _)| *of == epoch)
                .map(|(_, at)| at),
            down_since: self.memory.down_since,
            clean_stop: observation.clean_stop,
            on_disk: observation.on_disk,
            may_not_found: observation.may_not_found.clone(),
            start_failures: self.memory.start_failures,
            stream_broken: observation.stream_broken,
            stream_says: observation.stream_says.clone(),
            rewound: self.shell.rewound.is_set(),
            errand,
            source,
            unwatched,
            barred,
            nostream: self.cascade.nostream(),
        }
    }
}

/// A standby that was started by somebody else (a unit of the distribution, pg_ctl) is stopped, to be started again
/// under its guard and with our configuration.
pub(super) fn stop_unguarded(
    view: &ClusterView,
    me: &NodeView,
    observation: &Observation,
) -> Option<&'static str> {
    let founded = matches!(
        view,
        ClusterView::Known(cluster) if matches!(cluster.initialize, ha::Initialize::Done(_))
    );
    let strange = !observation.guarded && matches!(me.postgres, Postgres::Standby(_));
    (founded && strange && me.job.is_none())
        .then_some("somebody else has started Postgres: stopping it, to start it under its guard")
}

/// Whether something is under way that should be looked at often.
pub(super) fn is_changing(
    view: &ClusterView,
    me: &NodeView,
    decision: &Decision,
    scene: &Scene,
) -> bool {
    if !scene.missing.is_empty() {
        return true;
    }
    let ClusterView::Known(cluster) = view else {
        return false;
    };
    let vacant = cluster.leader.is_none();
    let joint = cluster.sync.as_ref().is_some_and(|sync| !sync.is_settled());
    let mine = cluster.leader.as_ref() == Some(&me.name);
    let unsettled = match &me.postgres {
        Postgres::Primary(primary) => !primary.open || (mine && joint),
        Postgres::Standby(standby) => {
            let archived = standby.remote.as_ref().is_some_and(|it| it.host.is_none());
            (mine && standby.remote.is_none()) || !(standby.streaming || archived)
        }
        Postgres::Starting => true,
        Postgres::Down { .. } => mine || !decision.actions.is_empty(),
        Postgres::Unresponsive { .. } => false,
    };
    // A leader that does not beat is watched by its WAL, so closely that a living one is not suspected.
    let beatless = !mine
        && !cluster.foreign.leads
        && now().since(me.contact.beat.unwrap_or(me.contact.since)) > cluster.settings.beat * 2;
    !decision.actions.is_empty() || vacant || unsettled || beatless
}

/// What tells one change from the next.
pub(super) fn scene(view: &ClusterView, me: &NodeView, decision: &Decision, busy: bool) -> Scene {
    let (leader, leadership) = match view {
        ClusterView::Known(cluster) => (cluster.leader.clone(), cluster.epoch.clone()),
        ClusterView::Silent { .. } => (None, None),
    };
    Scene {
        leader,
        leadership,
        rule: decision.rule,
        busy,
        missing: missing(view, me),
    }
}

/// The members that the primary here does not see streaming: they come, and are then wanted for commits and as
/// candidates at once.
fn missing(view: &ClusterView, me: &NodeView) -> Vec<NodeName> {
    let (ClusterView::Known(cluster), Postgres::Primary(primary)) = (view, &me.postgres) else {
        return Vec::new();
    };
    if cluster.leader.as_ref() != Some(&me.name) {
        return Vec::new();
    }
    let streams = |name: &NodeName| {
        let walsender = primary.standbys.get(name);
        walsender.is_some_and(|walsender| walsender.streaming)
    };
    let guest = |name: &NodeName| cluster.foreign.members.contains(name);
    let others = cluster.members.iter();
    // Who names a source comes here only when that fails.
    let others = others.filter(|(name, member)| {
        **name != me.name && !guest(name) && member.ties.source.is_none() && !member.ties.nostream
    });
    others
        .map(|(name, _)| name)
        .filter(|name| !streams(name))
        .cloned()
        .collect()
}
