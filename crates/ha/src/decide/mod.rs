//! The decision: from what the world said to what to do, and why.
//!
//! **Invariant:** Postgres is primary only under a lease that this node holds; whatever else the view says, a primary
//! without one is fenced first.
//! **Invariant:** a list of actions may be cut off anywhere, and a decision may be made twice.

mod down;
mod follow;
mod foreign;
mod found;
mod handover;
mod lead;
mod race;
mod setting;
mod source;
mod standby;

use crate::decision::{Action, Decision};
use crate::quorum::Setting;
use crate::state::NodeState;
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, ClusterView, DataDir, Initialize, Job, NodeView, Postgres};
use std::collections::BTreeSet;

pub use down::others_can_lead;
pub use foreign::gives_way;
pub use handover::{Unfit, handover_candidate};
pub use race::{Verdict, verdict};
pub use setting::wanted_setting;

/// What `me` should do now.
pub fn decide(view: &ClusterView, me: &NodeView, now: Instant) -> Decision {
    let decision = match view {
        ClusterView::Silent { since } => silent(me, *since, now),
        ClusterView::Known(cluster) => known(cluster, me, now),
    };
    named(decision, view, me)
}

fn known(cluster: &Cluster, me: &NodeView, now: Instant) -> Decision {
    let mine = cluster.leader.as_ref() == Some(&me.name);
    // A lease of an older epoch is none: the claim was answered by the view alone.
    let held = me
        .lease
        .is_some_and(|lease| lease.epoch >= cluster.current_epoch());
    if mine && !held && led_last(cluster, &me.name) && !cluster.foreign.leads {
        return reattach(cluster, me);
    }
    if let Some(fence) = unlawful_primary(cluster, me, now) {
        return fence;
    }
    if let Some(job) = me.job {
        return Decision::wait("job", format!("waiting for {}", job_name(job)));
    }
    let record = cluster.node(&me.name);
    // The last leader may have what nobody else has: it stays until there is another, if there can be one.
    let last = cluster.leader.is_none() && led_last(cluster, &me.name);
    let missed = (last || is_named(cluster, &me.name)) && !is_only(cluster, &me.name);
    if record.dropped && !mine && !missed {
        return leave(me);
    }
    let founded = matches!(cluster.initialize, Initialize::Done(_));
    // A leader whose directory can't be used has a leadership to let go of before it waits for a person.
    let fallen = mine
        && founded
        && matches!(
            me.postgres,
            Postgres::Down { .. } | Postgres::Unresponsive { .. }
        );
    let refusal = wrong_directory(cluster, me).filter(|_| !fallen);
    if let Some(refusal) = refusal.or_else(|| forgotten_epoch(cluster, me)) {
        return refusal;
    }
    if !founded {
        return found::found(cluster, me);
    }
    if let Some(aside) = foreign::stand_aside(cluster, me, now) {
        return aside;
    }
    if let Some(restart) = starved(me).filter(|_| mine || !record.maintenance) {
        return restart;
    }
    if mine {
        return lead::lead(cluster, me, now);
    }
    if let (Postgres::Primary(_), Some(lease)) = (&me.postgres, me.lease) {
        // What is unlawful was fenced: the leader key has ended, and the members hold still for this node.
        return Decision::wait(
            "retake",
            format!(
                "the members hold still: taking the leadership of epoch {} again",
                lease.epoch
            ),
        );
    }
    if !cluster.nodes.contains_key(&me.name) {
        return stranger(me);
    }
    // Its acknowledgement still counts: without a leader its promise may be the one that is missing.
    let needed = cluster.leader.is_none()
        && is_named(cluster, &me.name)
        && matches!(me.postgres, Postgres::Standby(_));
    if record.maintenance && !needed {
        return Decision::wait("maintenance", "in maintenance: Postgres is left alone");
    }
    match &cluster.leader {
        Some(_) if record.dropped => Decision::wait(
            "dropped",
            "this node was dropped; the leader takes it out of its setting first",
        ),
        Some(leader) if cluster.foreign.leads => foreign::accompany(cluster, me, leader, now),
        Some(leader) => follow::follow(cluster, me, leader, now),
        None => foreign::race(cluster, me, now),
    }
}

/// The leader key is mine, but no lease of this agent's carries it: the agent restarted, or is just letting go.
fn reattach(cluster: &Cluster, me: &NodeView) -> Decision {
    if let Some(job) = me.job {
        return Decision::wait("job", format!("waiting for {}", job_name(job)));
    }
    if let Postgres::Down { leftovers } = me.postgres
        && leftovers > 0
    {
        // Given up because its processes can't be killed: the lease must run out.
        let reason = format!("{leftovers} processes of the former primary can't be killed yet");
        return Decision::act("leftovers", Action::Fence, reason);
    }
    let epoch = cluster.current_epoch();
    Decision::act(
        "reattach",
        Action::Reattach { epoch },
        format!(
            "the agent restarted: asking whether the leadership of epoch {epoch} is still mine"
        ),
    )
}

/// Without the store nothing new is permitted; a standby goes on, a primary until its lease ends.
fn silent(me: &NodeView, since: Instant, now: Instant) -> Decision {
    let silence = now.since(since).as_millis();
    if matches!(me.postgres, Postgres::Primary(_)) {
        return match me.lease {
            Some(lease) if now < lease.deadline => Decision::wait(
                "store silent",
                format!(
                    "the store has been silent for {silence} ms, the lease lasts {} ms more",
                    lease.deadline.since(now).as_millis()
                ),
            ),
            Some(_) | None => Decision::act(
                "lease over",
                Action::Fence,
                format!("the store has been silent for {silence} ms and the lease is over"),
            ),
        };
    }
    // Every start begins so: it has not been asked before.
    let reason = match silence {
        ..1000 => "waiting for the store's answer".to_owned(),
        _ => format!("the store has been silent for {silence} ms"),
    };
    Decision::wait("store silent", reason)
}

/// Whether there is no other node.
fn is_only(cluster: &Cluster, name: &NodeName) -> bool {
    cluster.nodes.keys().all(|other| other == name)
}

/// Whether the newest epoch is this node's.
fn led_last(cluster: &Cluster, name: &NodeName) -> bool {
    cluster
        .epoch
        .as_ref()
        .is_some_and(|leadership| leadership.leader == *name)
}

/// The one thing that never waits: a primary that may not be one.
fn unlawful_primary(cluster: &Cluster, me: &NodeView, now: Instant) -> Option<Decision> {
    if !matches!(me.postgres, Postgres::Primary(_)) {
        return None;
    }
    let fence = |reason: String| Some(Decision::act("fence", Action::Fence, reason));
    let Some(lease) = me.lease else {
        return fence("Postgres is primary, but this node does not hold the leadership".into());
    };
    if now >= lease.deadline {
        return fence("Postgres is primary, but the lease is over".into());
    }
    let current = cluster.current_epoch();
    if current > lease.epoch {
        return fence(format!(
            "epoch {current} has begun, this primary is of epoch {}",
            lease.epoch
        ));
    }
    let vacant = lease.by_members && cluster.leader.is_none();
    if current == lease.epoch && cluster.leader.as_ref() != Some(&me.name) && !vacant {
        return fence(format!("the leadership of epoch {current} has ended"));
    }
    None
}

fn wrong_directory(cluster: &Cluster, me: &NodeView) -> Option<Decision> {
    match (&me.data, cluster.initialize) {
        (DataDir::Unusable(why), _) => Some(Decision::wait(
            "unusable directory",
            format!("the data directory is unusable: {why}"),
        )),
        (DataDir::Ready(mine), Initialize::Done(theirs)) if *mine != theirs => {
            Some(Decision::wait(
                "foreign directory",
                format!(
                    "the data directory belongs to another cluster: its system identifier is {mine}, \
                     this cluster's is {theirs}; it will not be touched"
                ),
            ))
        }
        (DataDir::Ready(_) | DataDir::Empty | DataDir::Unfinished, _) => None,
    }
}

/// A store that knows less than this node's WAL was restored from a backup, or is another one. Whatever it permits,
/// an epoch must not be given twice.
fn forgotten_epoch(cluster: &Cluster, me: &NodeView) -> Option<Decision> {
    let newest = me.lineage.as_ref()?.newest().epoch;
    let held = me.lease.is_some_and(|lease| lease.epoch >= newest);
    (newest > cluster.current_epoch() && !held).then(|| {
        Decision::wait(
            "forgotten epoch",
            format!(
                "this node has WAL of epoch {newest}, the store knows of epoch {} only: it was restored from a backup, \
                 or belongs to another cluster; nothing is done until that is settled",
                cluster.current_epoch()
            ),
        )
    })
}

/// Whether a commit may have been acknowledged that needs this node's promise to be found again.
fn is_named(cluster: &Cluster, name: &NodeName) -> bool {
    let names = |setting: &Setting| setting.leader == *name || setting.standbys.contains(name);
    cluster
        .sync
        .as_ref()
        .is_some_and(|sync| sync.settings().iter().any(names))
}

/// A standby that has less of something than its primary was given replays no more, whoever leads. A start takes what
/// the primary has.
fn starved(me: &NodeView) -> Option<Decision> {
    let Postgres::Standby(standby) = &me.postgres else {
        return None;
    };
    let why = standby.starved.as_ref()?;
    let reason = format!("replay goes on only after a restart: {why}");
    Some(Decision::act("starved", Action::Stop, reason))
}

fn leave(me: &NodeView) -> Decision {
    let reason = "this node was dropped from the cluster";
    match me.postgres {
        Postgres::Down { leftovers: 0 } => Decision::act("dropped", Action::Leave, reason),
        Postgres::Down { .. } | Postgres::Primary(_) | Postgres::Unresponsive { .. } => {
            Decision::act("dropped", Action::Fence, reason)
        }
        Postgres::Starting | Postgres::Standby(_) => Decision::act("dropped", Action::Stop, reason),
    }
}

/// Not registered: it has left without learning so, or is not registered yet. It is nobody's standby and no candidate.
fn stranger(me: &NodeView) -> Decision {
    if me.registered {
        return leave(me);
    }
    let reason =
        "this node is not registered with the cluster; it registers when standfast run starts";
    match me.postgres {
        Postgres::Standby(_) => Decision::act("not registered", Action::Stop, reason),
        _ => Decision::wait("not registered", reason),
    }
}

/// Where Postgres is down or sick, and this node has no leadership: the way back to a parked standby.
fn settle_down(me: &NodeView, settings: &crate::Settings, now: Instant) -> Option<Decision> {
    match &me.postgres {
        Postgres::Down { leftovers } if *leftovers > 0 => Some(Decision::act(
            "leftovers",
            Action::Fence,
            format!("{leftovers} processes of a dead instance are still there"),
        )),
        Postgres::Down { .. } => None,
        Postgres::Starting => Some(Decision::wait("starting", "Postgres is starting")),
        Postgres::Unresponsive { since } => {
            let silence = now.since(*since);
            if silence < settings.hang_timeout * 10 {
                return Some(Decision::wait(
                    "unresponsive",
                    format!("Postgres has not answered for {} ms", silence.as_millis()),
                ));
            }
            Some(Decision::act(
                "hung",
                Action::Fence,
                "the standby's Postgres hangs: it is restarted",
            ))
        }
        Postgres::Standby(_) | Postgres::Primary(_) => None,
    }
}

/// Why this node could not lead, whatever its WAL.
fn unfit(me: &NodeView) -> Option<String> {
    match &me.storage {
        crate::view::Storage::Failing { why, .. } => Some(format!("its storage fails: {why}")),
        crate::view::Storage::Healthy => me.unwatched.clone().or_else(|| me.barred.clone()),
    }
}

/// Why a node shall not lead, as a person wishes. Where it alone has what was acknowledged, it leads nevertheless.
fn unwanted(cluster: &Cluster, name: &NodeName) -> Option<&'static str> {
    match cluster.node(name) {
        node if node.dropped => Some("it was dropped"),
        node if node.maintenance => Some("it is in maintenance"),
        node if node.priority == 0 => Some("its candidate priority is 0"),
        _ => None,
    }
}

fn job_name(job: Job) -> &'static str {
    match job {
        Job::Bootstrap => "the first data directory",
        Job::Clone => "a base backup",
        Job::Rewind => "a rewind",
        Job::Park => "Postgres to start",
        Job::Stop => "Postgres to stop",
        Job::Drain => "the handover's clean stop",
        Job::Detach => "the WAL receiver to end",
        Job::Follow => "the new upstream",
        Job::Promote => "the promotion",
        Job::Apply => "walsenders to read the new setting",
        Job::Other => "the action under way",
    }
}

/// Fills in what the node is and what it is to become.
fn named(mut decision: Decision, view: &ClusterView, me: &NodeView) -> Decision {
    decision.state = state_of(view, me);
    decision.assigned = assigned_of(&decision, view, me);
    decision
}

fn state_of(view: &ClusterView, me: &NodeView) -> NodeState {
    let cluster = match view {
        ClusterView::Known(cluster) => Some(cluster.as_ref()),
        ClusterView::Silent { .. } => None,
    };
    let record = cluster
        .map(|cluster| cluster.node(&me.name))
        .unwrap_or_default();
    if record.dropped {
        return NodeState::Dropped;
    }
    if record.maintenance && !matches!(me.postgres, Postgres::Primary(_)) {
        return NodeState::Maintenance;
    }
    match me.job {
        Some(Job::Clone | Job::Bootstrap) => return NodeState::Joining,
        Some(Job::Drain) => return NodeState::Draining,
        Some(Job::Rewind) => return NodeState::Demoted,
        Some(_) | None => {}
    }
    let failing = matches!(me.storage, crate::view::Storage::Failing { .. });
    match &me.postgres {
        Postgres::Primary(primary) if primary.open => primary_state(cluster, me),
        Postgres::Primary(_) => NodeState::Promoting,
        Postgres::Standby(standby)
            if me.lease.is_some() && (standby.remote.is_some() || leads_standbys(cluster)) =>
        {
            NodeState::StandbyLeader
        }
        Postgres::Standby(_) if me.lease.is_some() => NodeState::Promoting,
        Postgres::Standby(_) if failing => NodeState::Demoted,
        Postgres::Standby(standby) if !standby.streaming => NodeState::CatchingUp,
        Postgres::Standby(standby) => {
            let round = cluster.is_some_and(|it| {
                standby.upstream != it.leader && source::goes_round(it, &me.name)
            });
            let counts = cluster
                .and_then(|cluster| cluster.sync.as_ref())
                .is_none_or(|sync| sync.newest().standbys.contains(&me.name));
            // Of those that could be synchronous some are chosen, and the others lack nothing.
            let chosen = cluster.is_some_and(|it| it.settings.sync_mode == crate::SyncMode::On);
            if counts || round || chosen || !record.quorum {
                NodeState::Standby
            } else {
                NodeState::CatchingUp
            }
        }
        Postgres::Down { .. } | Postgres::Starting | Postgres::Unresponsive { .. } => {
            if matches!(me.data, DataDir::Empty | DataDir::Unfinished) {
                NodeState::Init
            } else {
                NodeState::Demoted
            }
        }
    }
}

/// Whether the leader of this cluster is a standby, and to stay one.
fn leads_standbys(cluster: Option<&Cluster>) -> bool {
    cluster.is_some_and(|cluster| cluster.settings.remote.is_some())
}

fn primary_state(cluster: Option<&Cluster>, me: &NodeView) -> NodeState {
    let Some(cluster) = cluster else {
        return NodeState::Primary;
    };
    let others = cluster
        .nodes
        .iter()
        .any(|(name, node)| *name != me.name && !node.dropped);
    match &cluster.sync {
        Some(sync) if sync.is_settled() && !sync.newest().is_alone() => NodeState::Primary,
        None if others => NodeState::Primary,
        Some(_) if others => NodeState::WaitingPrimary,
        Some(_) | None => NodeState::Single,
    }
}

fn assigned_of(decision: &Decision, view: &ClusterView, me: &NodeView) -> NodeState {
    let ClusterView::Known(cluster) = view else {
        return decision.state;
    };
    if cluster.node(&me.name).dropped {
        return NodeState::Dropped;
    }
    match decision.actions.first() {
        Some(Action::Claim(_) | Action::Promote { .. } | Action::Promise(_)) => {
            NodeState::Promoting
        }
        Some(Action::Drain) => NodeState::Draining,
        Some(Action::Fence | Action::Release { .. }) => NodeState::Demoted,
        _ => match (&cluster.leader, decision.state) {
            (Some(leader), _) if *leader == me.name && leads_standbys(Some(cluster)) => {
                NodeState::StandbyLeader
            }
            (Some(leader), state) if *leader == me.name => match state {
                NodeState::Draining => NodeState::Demoted,
                NodeState::Demoted | NodeState::Promoting => primary_state(Some(cluster), me),
                state => state,
            },
            (_, NodeState::Demoted | NodeState::Init | NodeState::Joining) => NodeState::CatchingUp,
            (_, NodeState::CatchingUp) => NodeState::Standby,
            (_, state) => state,
        },
    }
}

/// The setting that a node which has just claimed begins with: those who promised are alive and count. If there is
/// none of them, strict mode names the absent ones and blocks rather than acknowledge alone.
fn first_setting<'a>(
    cluster: &Cluster,
    me: &NodeName,
    promised: impl IntoIterator<Item = &'a NodeName>,
) -> Setting {
    let counts = |name: &&NodeName| *name != me && setting::counts(&cluster.node(name));
    let mut standbys: BTreeSet<NodeName> = promised.into_iter().filter(counts).cloned().collect();
    if cluster.settings.sync_strict && standbys.is_empty() {
        standbys = setting::absent(cluster, me);
    }
    setting::sized(cluster, me, standbys)
}
