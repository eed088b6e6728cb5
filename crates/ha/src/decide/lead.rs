//! The leader's decisions: promote, keep the setting in step with the living, hand over, give up.
//!
//! **Invariant:** leadership is released only when no process of the instance is left.
//! **Invariant:** every way to become primary passes through a claim; a restarted primary claims anew.

use super::source;
use crate::decision::{Action, Decision};
use crate::quorum::{self, Applied, Setting, Step, SyncRecord};
use crate::settings::SyncMode;
use crate::state::NodeState;
use crate::types::{Epoch, Instant, Lsn, NodeName};
use crate::view::{
    Cluster, DataDir, Errand, Lease, NodeRecord, NodeView, Postgres, Primary, Standby, Storage,
    Switchover,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A standby whose flush position is within this of the primary's may be named in the setting.
const JOINS_WITHIN: u64 = 16 << 20;

/// Storage that failed twice in a row fails; the probe itself waits longer for a disk that hangs.
const STORAGE_FAILS_FOR: Duration = Duration::from_millis(250);

pub(super) fn lead(cluster: &Cluster, me: &NodeView, now: Instant) -> Decision {
    let Some(lease) = me.lease else {
        return Decision::wait(
            "no lease",
            "the leader key is mine, but no lease is held yet",
        );
    };
    if let Some(why) = &me.unwatched {
        return step_down_unwatched(me, lease, why);
    }
    let remote = cluster.settings.remote.as_ref();
    if let Some(decision) =
        remote.and_then(|remote| super::standby::lead(cluster, me, remote, lease, now))
    {
        return decision;
    }
    match &me.postgres {
        Postgres::Primary(primary) => {
            if let Some(decision) = give_up(cluster, me, primary, now) {
                return decision;
            }
            preside(cluster, me, primary, lease, now)
        }
        Postgres::Standby(standby) => ascend(cluster, me, standby, lease, now),
        Postgres::Down { leftovers: 0 } if remote.is_some() || cluster.led_by_standby() => {
            super::standby::fallen(cluster, me, lease, now)
        }
        Postgres::Down { leftovers: 0 } => fallen(cluster, me, lease, now),
        Postgres::Down { leftovers } => Decision::act(
            "postmaster died",
            Action::Fence,
            format!("the postmaster is gone, {leftovers} of its processes may still write"),
        ),
        Postgres::Starting => starting(cluster, me, lease, now),
        Postgres::Unresponsive { since } => {
            let silence = now.since(*since);
            if silence < cluster.settings.hang_timeout {
                return Decision::wait(
                    "unresponsive",
                    format!("Postgres has not answered for {} ms", silence.as_millis()),
                );
            }
            Decision::act(
                "hung",
                Action::Fence,
                format!("Postgres has not answered for {} ms", silence.as_millis()),
            )
        }
    }
}

/// The machine's watchdog must watch a leader here, and can't.
fn step_down_unwatched(me: &NodeView, lease: Lease, why: &str) -> Decision {
    let action = match me.postgres {
        Postgres::Down { leftovers: 0 } => Action::Release {
            epoch: lease.epoch,
            why: why.to_owned(),
        },
        Postgres::Standby(_) => Action::Stop,
        Postgres::Primary(_)
        | Postgres::Down { .. }
        | Postgres::Starting
        | Postgres::Unresponsive { .. } => Action::Fence,
    };
    Decision::act("not watched", action, why)
}

/// A primary in office: say whose WAL this is, keep the setting true, open, serve requests.
fn preside(
    cluster: &Cluster,
    me: &NodeView,
    primary: &Primary,
    lease: Lease,
    now: Instant,
) -> Decision {
    let epoch = lease.epoch;
    let Some(lineage) = me
        .lineage
        .as_ref()
        .filter(|lineage| lineage.newest().epoch == epoch)
    else {
        return Decision::act(
            "unknown WAL",
            Action::Fence,
            format!("Postgres is primary, but not promoted in epoch {epoch}"),
        );
    };
    if lineage.newest().timeline != primary.timeline {
        // A promotion that an agent before this one ordered, and one ordered again, each foretold a number.
        return Decision::act(
            "unknown WAL",
            Action::Fence,
            format!(
                "Postgres is on timeline {}, the note says {}",
                primary.timeline,
                lineage.newest().timeline
            ),
        );
    }
    if promised_in(cluster, me, epoch) {
        // A promotion ended after the promise was written. Whoever counts the promise counts on this node's silence.
        return Decision::act(
            "promised",
            Action::Fence,
            format!("Postgres was promoted in epoch {epoch}, in which this node has promised"),
        );
    }
    if cluster.published_lineage() != Some(lineage) {
        return Decision::act(
            "publish",
            Action::Publish {
                epoch,
                lineage: lineage.clone(),
            },
            format!("promoted to timeline {} in epoch {epoch}", primary.timeline),
        );
    }
    if let Some(decision) = protect(cluster, me, primary, epoch, now) {
        return decision;
    }
    if !primary.open {
        return open(cluster, me, primary, epoch);
    }
    // Clients first: this is one more transaction.
    if let Some(promise) = cluster.promises.get(&me.name) {
        let epoch = promise.epoch;
        let reason = format!("the promise of epoch {epoch} has served its purpose");
        return Decision::act("withdraw", Action::Withdraw { epoch }, reason);
    }
    let record = cluster.node(&me.name);
    let ordered = cluster.switchover.as_ref();
    if let Some(decision) = ordered.and_then(|order| hand_over(cluster, me, primary, order)) {
        return decision;
    }
    if record.maintenance || record.dropped {
        return step_aside(cluster, me, primary);
    }
    if me.errand == Some(Errand::Restart) {
        return restart(cluster, me);
    }
    Decision::wait("leader", steady_reason(cluster, epoch))
}

/// A restart that a person asked for, and after which this node leads on: so its own promise must do for its claim.
fn restart(cluster: &Cluster, me: &NodeView) -> Decision {
    match accepted_alone(cluster, me) {
        Ok(()) => Decision::act(
            "restart",
            Action::Drain,
            "a person asked for a restart: stopping cleanly, the leadership stays",
        ),
        Err(missing) => Decision::wait("restart", format!("can't restart yet: {missing}")),
    }
}

/// Whether a promise of this node stands in its own epoch.
pub(super) fn promised_in(cluster: &Cluster, me: &NodeView, epoch: Epoch) -> bool {
    let promise = cluster.promises.get(&me.name);
    promise.is_some_and(|promise| promise.epoch >= epoch)
}

fn steady_reason(cluster: &Cluster, epoch: Epoch) -> String {
    match &cluster.sync {
        Some(sync) => format!(
            "the leader of epoch {epoch}, commits need {}",
            sync.newest()
        ),
        None => format!("the leader of epoch {epoch}, commits are asynchronous"),
    }
}

/// The next step that makes record, Postgres and the living agree.
fn protect(
    cluster: &Cluster,
    me: &NodeView,
    primary: &Primary,
    epoch: Epoch,
    now: Instant,
) -> Option<Decision> {
    let applied = me.applied.as_ref().filter(|applied| applied.epoch == epoch);
    if cluster.settings.sync_mode == SyncMode::Off {
        return unprotect(cluster, applied, epoch);
    }
    let Some(record) = &cluster.sync else {
        let record = SyncRecord::of(Setting::alone(me.name.clone()));
        return Some(Decision::act(
            "synchronous on",
            Action::Record {
                epoch,
                record: Some(record),
            },
            "synchronous mode was switched on",
        ));
    };
    let wanted = wanted_setting(cluster, &me.name, primary, now);
    let flushed: BTreeMap<NodeName, Lsn> = primary
        .standbys
        .iter()
        .map(|(name, walsender)| (name.clone(), walsender.flushed))
        .collect();
    match quorum::next_step(record, &wanted, applied, &flushed) {
        Step::Record(next) => {
            let reason = if next.is_settled() {
                format!("commits need {}: the barrier is passed", next.newest())
            } else {
                format!("commits shall need {}", next.newest())
            };
            let record = Some(next);
            Some(Decision::act(
                "setting recorded",
                Action::Record { epoch, record },
                reason,
            ))
        }
        Step::Apply(record) => {
            let reason = format!("commits shall need {}", record.newest());
            let record = Some(record);
            Some(Decision::act(
                "setting applied",
                Action::Apply { epoch, record },
                reason,
            ))
        }
        // The barrier's wait must not keep the leader from its other duties.
        Step::Await { .. } | Step::Settled => None,
    }
}

/// Asynchronous mode: no names in Postgres, no record in the store.
fn unprotect(cluster: &Cluster, applied: Option<&Applied>, epoch: Epoch) -> Option<Decision> {
    if cluster.sync.is_some() {
        return Some(Decision::act(
            "synchronous off",
            Action::Record {
                epoch,
                record: None,
            },
            "synchronous mode was switched off: commits are no longer protected",
        ));
    }
    let done = applied.is_some_and(|applied| applied.record.newest().is_alone());
    (!done).then(|| {
        Decision::act(
            "synchronous off",
            Action::Apply {
                epoch,
                record: None,
            },
            "commits are asynchronous",
        )
    })
}

/// After a restart the WAL may hold commits that nobody acknowledged: visible now, gone after the next failover.
/// So clients wait until a quorum has the end of recovery.
fn open(cluster: &Cluster, me: &NodeView, primary: &Primary, epoch: Epoch) -> Decision {
    let Some(record) = &cluster.sync else {
        return Decision::act("open", Action::Open, "the primary opens");
    };
    let Some(applied) = me.applied.as_ref().filter(|applied| applied.epoch == epoch) else {
        return Decision::wait(
            "closed",
            "the primary waits for its setting before it opens",
        );
    };
    let setting = record.newest();
    let flushed: BTreeMap<NodeName, Lsn> = primary
        .standbys
        .iter()
        .map(|(name, walsender)| (name.clone(), walsender.flushed))
        .collect();
    let have = quorum::flushed_count(setting, applied.barrier, &flushed);
    if record.is_settled() && applied.record.newest() == setting && have >= setting.needed {
        return Decision::act(
            "open",
            Action::Open,
            format!("the primary opens: {have} standbys have its end of recovery"),
        );
    }
    Decision::wait(
        "closed",
        format!(
            "the primary stays closed until {} of {} standbys have flushed {}; {have} have",
            setting.needed,
            setting.standbys.len(),
            applied.barrier
        ),
    )
}

/// The setting that fits the standbys that are alive, in the configured mode.
pub fn wanted_setting(
    cluster: &Cluster,
    me: &NodeName,
    primary: &Primary,
    now: Instant,
) -> Setting {
    let settings = &cluster.settings;
    let current = cluster
        .sync
        .as_ref()
        .map(SyncRecord::newest)
        .filter(|now| &now.leader == me);
    let named = |name: &NodeName| current.is_some_and(|setting| setting.standbys.contains(name));
    let standbys: BTreeSet<NodeName> = primary
        .standbys
        .iter()
        .filter(|(name, walsender)| {
            // Others may stream as well: a base backup, an archiver. They are no nodes and never count.
            let Some(node) = cluster.nodes.get(*name) else {
                return false;
            };
            if !counts(node) || is_guest(cluster, name) || source::goes_round(cluster, name) {
                return false;
            }
            if named(name) {
                // A named standby stays for a while after it was last seen, and leaves at once when its lease ended.
                let patience = now.since(walsender.seen) < settings.sync_relax_after
                    && cluster.members.contains_key(*name);
                return walsender.streaming || patience;
            }
            let near = primary.flushed.bytes_since(walsender.flushed) <= JOINS_WITHIN;
            walsender.streaming && near && can_promise(cluster, name)
        })
        .map(|(name, _)| name.clone())
        .collect();
    if let (true, Some(current)) = (settings.sync_strict, current)
        && standbys.len() < settings.sync_node_count.min(current.needed.max(1))
        && !current.is_alone()
    {
        // Strict mode waits for those it has named, save those that a person has dropped.
        let dropped = |name: &NodeName| cluster.nodes.get(name).is_none_or(|node| node.dropped);
        let stays = |name: &&NodeName| !dropped(name) && !is_guest(cluster, name);
        let stay: BTreeSet<NodeName> = current.standbys.iter().filter(stays).cloned().collect();
        if stay == current.standbys {
            return current.clone();
        }
        if !stay.is_empty() {
            return sized(cluster, me, stay);
        }
    }
    if settings.sync_strict && standbys.is_empty() {
        return sized(cluster, me, absent(cluster, me));
    }
    sized(cluster, me, standbys)
}

/// Whom strict mode names and waits for when nobody is there: those that could lead, or else whoever has not been
/// dropped. A leader goes on alone only where there is nobody else.
pub(super) fn absent(cluster: &Cluster, me: &NodeName) -> BTreeSet<NodeName> {
    let named = |fit: fn(&NodeRecord) -> bool| -> BTreeSet<NodeName> {
        let others = cluster.nodes.iter();
        others
            .filter(|(name, node)| *name != me && fit(node) && !is_guest(cluster, name))
            .map(|(name, _)| name.clone())
            .collect()
    };
    let able = named(counts);
    if able.is_empty() {
        return named(|node| node.quorum && !node.dropped);
    }
    able
}

/// Patroni's agents promise nothing, so no commit rests on their nodes; and whom the record names, they let lead.
fn is_guest(cluster: &Cluster, name: &NodeName) -> bool {
    cluster.foreign.members.contains(name)
}

/// Whether its Postgres is open. One that was rewound acknowledges before it can tell what it has: without the leader
/// its promise would be missed.
fn can_promise(cluster: &Cluster, name: &NodeName) -> bool {
    let open = |state| matches!(state, NodeState::Standby | NodeState::CatchingUp);
    let member = cluster.members.get(name);
    member.is_some_and(|member| open(member.state))
}

/// Whether commits may rest on this node. One that may never lead is left out: what it alone has could not be found
/// again without the leader.
pub(super) fn counts(node: &NodeRecord) -> bool {
    node.quorum && node.priority > 0 && !node.maintenance && !node.dropped
}

/// `standbys` with as many acknowledgements as the configured mode asks for.
pub(super) fn sized(cluster: &Cluster, me: &NodeName, mut standbys: BTreeSet<NodeName>) -> Setting {
    let count = cluster.settings.sync_node_count.max(1);
    if cluster.settings.sync_mode == SyncMode::On {
        let priority = |name: &NodeName| {
            let member = cluster.members.get(name);
            member.map_or(1, |member| member.ties.sync_priority)
        };
        // Among equals by name: the sort is stable.
        let mut ordered: Vec<NodeName> = standbys.into_iter().collect();
        ordered.sort_by_key(|name| std::cmp::Reverse(priority(name)));
        standbys = ordered.into_iter().take(count).collect();
    }
    Setting::quorum(me.clone(), standbys, count)
}

/// Leadership held, Postgres in recovery: a claim was won, or a crashed primary was started again.
fn ascend(
    cluster: &Cluster,
    me: &NodeView,
    standby: &Standby,
    lease: Lease,
    now: Instant,
) -> Decision {
    let used_up = me
        .lineage
        .as_ref()
        .is_none_or(|lineage| lineage.newest().epoch >= lease.epoch);
    // Whoever counts this node's promise counts on its silence: it is not promoted in that epoch any more.
    let promised = promised_in(cluster, me, lease.epoch);
    // So does whoever follows a standby leader.
    let used_up = used_up || promised || cluster.led_by_standby();
    if cluster.led_by_standby()
        && let Some(name) = super::standby::further(cluster, me, standby)
    {
        let reason = format!("{name} has more of the remote's WAL: it shall be promoted");
        return Decision::act("promote cluster", Action::Stop, reason);
    }
    if used_up && let Err(missing) = enough_alone(cluster, me) {
        return Decision::act("others needed", Action::Stop, missing);
    }
    if used_up {
        let why = match cluster.led_by_standby() {
            true => "this is no standby cluster any more",
            false => "Postgres was restarted",
        };
        return super::race::race(cluster, me, why, now);
    }
    if standby.is_fed() {
        return Decision::act(
            "detach",
            Action::Detach,
            "the new leader streams from nobody",
        );
    }
    if !standby.end_known || standby.replayed < standby.received {
        return Decision::wait(
            "replaying",
            format!(
                "{} bytes of WAL to replay before the promotion",
                standby.received.bytes_since(standby.replayed)
            ),
        );
    }
    let setting = cluster.sync.as_ref().map(|record| record.newest().clone());
    Decision::act(
        "promote",
        Action::Promote {
            epoch: lease.epoch,
            setting,
        },
        format!(
            "the leadership of epoch {} is mine and all WAL is replayed",
            lease.epoch
        ),
    )
}

/// The primary's instance is gone, every process of it. Who can do better?
///
/// Only a clean stop is a handover: whatever was ordered, a crash is a crash, and in asynchronous mode the newest
/// commits may be here alone.
fn fallen(cluster: &Cluster, me: &NodeView, lease: Lease, now: Instant) -> Decision {
    let epoch = lease.epoch;
    let release = |rule: &'static str, why: String| {
        Decision::act(
            rule,
            Action::Release {
                epoch,
                why: why.clone(),
            },
            why,
        )
    };
    let order = cluster
        .switchover
        .as_ref()
        .filter(|order| order.from.as_ref().is_none_or(|from| *from == me.name))
        .filter(|order| order.to.as_ref() != Some(&me.name));
    if let Some(order) = order.filter(|order| me.clean_stop || order.accept_loss) {
        let to = order
            .to
            .as_ref()
            .map_or_else(|| "a standby".to_owned(), NodeName::to_string);
        return release("switchover", format!("{} hands over to {to}", me.name));
    }
    let record = cluster.node(&me.name);
    if me.clean_stop && (record.maintenance || record.dropped) {
        return release("step aside", format!("{} steps aside", me.name));
    }
    // Nothing is lost by waiting for a Postgres that a person restarts; one that does not come back is another matter.
    let restarting =
        me.errand == Some(Errand::Restarting) && me.clean_stop && me.start_failures == 0;
    if !restarting && !cluster.settings.paused && can_take_over(cluster, me).is_ok() {
        // An order that stands tells who goes first.
        return release(
            "postmaster died",
            format!("Postgres on {} has died", me.name),
        );
    }
    if order.is_some() {
        // What a crash would lose is not lost by calling it a switchover.
        let outcome = format!(
            "refused: Postgres on {} died before it was handed over",
            me.name
        );
        return clear("switchover refused", outcome);
    }
    if let Err(missing) = enough_alone(cluster, me) {
        return release("others needed", missing);
    }
    if matches!(me.data, DataDir::Empty | DataDir::Unfinished) {
        return release(
            "data lost",
            format!("the data directory of {} is not usable", me.name),
        );
    }
    if let Some(decision) = too_long(cluster, me, lease, now) {
        return decision;
    }
    // It may become readable again, and has what nobody else has.
    if let Some(wait) = super::wrong_directory(cluster, me) {
        return wait;
    }
    if restarting {
        let reason = "starting Postgres again, as a person asked for";
        return Decision::act("restart", Action::Park, reason);
    }
    Decision::act(
        "restart in place",
        Action::Park,
        "Postgres died and nobody can take over without loss: restarting it",
    )
}

fn starting(cluster: &Cluster, me: &NodeView, lease: Lease, now: Instant) -> Decision {
    match too_long(cluster, me, lease, now) {
        Some(_) => Decision::act(
            "start too slow",
            Action::Fence,
            "Postgres takes too long to start",
        ),
        None => Decision::wait("starting", "Postgres is starting"),
    }
}

/// A crashed primary that does not come back gives the others their chance, even at a loss in asynchronous mode.
pub(super) fn too_long(
    cluster: &Cluster,
    me: &NodeView,
    lease: Lease,
    now: Instant,
) -> Option<Decision> {
    let down = now.since(me.down_since?);
    let others = cluster.members.keys().any(|name| *name != me.name);
    let patience = cluster.settings.primary_start_timeout;
    if others && (down > patience || me.start_failures >= 3) {
        let why = format!(
            "Postgres on {} has been down for {} s, {} starts failed",
            me.name,
            down.as_secs(),
            me.start_failures
        );
        let release = Action::Release {
            epoch: lease.epoch,
            why: why.clone(),
        };
        return Some(Decision::act("start failed", release, why));
    }
    None
}

/// Whether this node's own promise would do for its next claim. If not, it must let go of the leadership: as long as
/// the others see a leader, they follow it and promise nothing.
pub(super) fn enough_alone(cluster: &Cluster, me: &NodeView) -> Result<(), String> {
    accepted_alone(cluster, me)
        .map_err(|missing| format!("Postgres on {} has died; {missing}", me.name))
}

fn accepted_alone(cluster: &Cluster, me: &NodeView) -> Result<(), quorum::Missing> {
    let record = cluster.sync.as_ref();
    record.map_or(Ok(()), |record| {
        record.accepts(&BTreeSet::from([me.name.clone()]))
    })
}

/// Whether the living others could lead without loss, if this node let go.
pub(super) fn can_take_over(cluster: &Cluster, me: &NodeView) -> Result<(), String> {
    let Some(record) = &cluster.sync else {
        return Err("commits are asynchronous, others may lack some".into());
    };
    let fit = |name: &NodeName| {
        cluster
            .members
            .get(name)
            .is_some_and(|member| member.unfit.is_none())
            && super::unwanted(cluster, name).is_none()
    };
    let alive: BTreeSet<NodeName> = cluster
        .members
        .keys()
        .filter(|name| **name != me.name && fit(name))
        .cloned()
        .collect();
    if alive.is_empty() {
        return Err("no other node is alive".into());
    }
    record
        .accepts(&alive)
        .map_err(|missing| missing.to_string())
}

/// A primary that can't write any more hands over, if there is somebody to hand over to.
fn give_up(cluster: &Cluster, me: &NodeView, primary: &Primary, now: Instant) -> Option<Decision> {
    let Storage::Failing { since, why } = &me.storage else {
        return None;
    };
    let patient = now.since(*since) < STORAGE_FAILS_FOR;
    if !primary.open || patient || cluster.settings.paused {
        return None;
    }
    can_take_over(cluster, me).ok()?;
    Some(Decision::act(
        "storage failed",
        Action::Fence,
        format!("the primary's storage fails: {why}"),
    ))
}

/// Why a node can't be handed the leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub why: String,
    /// A standby that has just come back is fit a moment later without anybody's doing.
    pub passing: bool,
}

impl Unfit {
    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            passing: false,
        }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            passing: true,
        }
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// Who would be asked to take over, or why nobody can be.
pub fn handover_candidate(
    cluster: &Cluster,
    me: &NodeName,
    primary: &Primary,
    wanted: Option<&NodeName>,
) -> Result<NodeName, Unfit> {
    if cluster.settings.remote.is_some() && cluster.led_by_standby() {
        return super::standby::candidate(cluster, me, wanted);
    }
    let check = |name: &NodeName| candidate_fit(cluster, primary, name);
    if let Some(name) = wanted {
        if name == me {
            return Err(Unfit::lasting(format!("{name} is the leader already")));
        }
        return check(name).map(|()| name.clone());
    }
    let mut reasons = Vec::new();
    let mut passing = false;
    let mut fit: Vec<&NodeName> = Vec::new();
    for name in cluster.nodes.keys().filter(|name| *name != me) {
        match check(name) {
            Ok(()) => fit.push(name),
            Err(unfit) => {
                passing |= unfit.passing;
                reasons.push(unfit.why);
            }
        }
    }
    let rank = |name: &&NodeName| {
        let flushed = primary
            .standbys
            .get(*name)
            .map(|walsender| walsender.flushed);
        (cluster.node(name).priority, flushed)
    };
    match fit.into_iter().max_by_key(rank) {
        Some(best) => Ok(best.clone()),
        None if reasons.is_empty() => Err(Unfit::lasting("there is no other node")),
        None => Err(Unfit {
            why: reasons.join("; "),
            passing,
        }),
    }
}

fn candidate_fit(cluster: &Cluster, primary: &Primary, name: &NodeName) -> Result<(), Unfit> {
    if is_guest(cluster, name) {
        return super::foreign::guest_fit(cluster, primary, name);
    }
    let node = cluster.node(name);
    let Some(member) = cluster.members.get(name) else {
        return Err(Unfit::lasting(format!("{name} is not alive")));
    };
    if let Some(why) = &member.unfit {
        return Err(Unfit::lasting(format!("{name}: {why}")));
    }
    if node.priority == 0 {
        return Err(Unfit::lasting(format!(
            "{name}: its candidate priority is 0"
        )));
    }
    if node.maintenance || node.dropped {
        return Err(Unfit::lasting(format!("{name} is in maintenance")));
    }
    let Some(walsender) = primary
        .standbys
        .get(name)
        .filter(|walsender| walsender.streaming)
    else {
        return Err(Unfit::passing(format!(
            "{name} is not streaming from the primary"
        )));
    };
    if let Some(sync) = &cluster.sync
        && !sync.newest().standbys.contains(name)
    {
        return Err(Unfit::passing(format!(
            "{name} is not a synchronous standby"
        )));
    }
    let lag = primary.flushed.bytes_since(walsender.flushed);
    if lag > cluster.settings.lag_bytes_max {
        return Err(Unfit::passing(format!("{name} lags {lag} bytes behind")));
    }
    Ok(())
}

fn hand_over(
    cluster: &Cluster,
    me: &NodeView,
    primary: &Primary,
    order: &Switchover,
) -> Option<Decision> {
    if order.from.as_ref().is_some_and(|from| *from != me.name) {
        let outcome = format!("done: {} leads", me.name);
        return Some(clear("switchover done", outcome));
    }
    if order.from.is_none() && order.to.as_ref() == Some(&me.name) {
        return Some(clear("switchover done", format!("done: {} leads", me.name)));
    }
    if order.accept_loss {
        // Given for a cluster without a leader; there is one, so nothing needs to be lost.
        let outcome = format!("refused: {} leads, no loss needs to be accepted", me.name);
        return Some(clear("switchover refused", outcome));
    }
    match handover_candidate(cluster, &me.name, primary, order.to.as_ref()) {
        Ok(to) => Some(Decision::act(
            "switchover",
            Action::Drain,
            format!("switchover from {} to {to}: stopping cleanly", me.name),
        )),
        Err(why) => Some(clear("switchover refused", format!("refused: {why}"))),
    }
}

pub(super) fn clear(rule: &'static str, outcome: String) -> Decision {
    Decision::act(
        rule,
        Action::ClearSwitchover {
            outcome: outcome.clone(),
        },
        outcome,
    )
}

/// Maintenance or drop of the leader: hand over first, if somebody can take over.
fn step_aside(cluster: &Cluster, me: &NodeView, primary: &Primary) -> Decision {
    match handover_candidate(cluster, &me.name, primary, None) {
        Ok(to) => Decision::act(
            "step aside",
            Action::Drain,
            format!("{} steps aside for {to}: stopping cleanly", me.name),
        ),
        Err(why) if super::is_only(cluster, &me.name) => Decision::act(
            "step aside",
            Action::Drain,
            format!("the last node steps aside: {why}"),
        ),
        Err(why) => Decision::wait("step aside", format!("can't step aside yet: {why}")),
    }
}
