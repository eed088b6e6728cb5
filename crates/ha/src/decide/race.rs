//! No leader, or one that is silent: stop taking its WAL, say so, and let the most advanced claim.
//!
//! **Invariant:** a promise is written only where nothing runs, or after the WAL receiver is gone and cannot come back,
//! with the position that the node then has; whoever claims has every commit that can have been acknowledged.

use crate::decision::{Action, Claim, Decision};
use crate::lineage::Position;
use crate::quorum::{Missing, Setting, SyncRecord};
use crate::types::{Epoch, Instant, NodeName};
use crate::view::{Cluster, DataDir, Errand, NodeView, Postgres, Promise, Standby};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the next best candidate waits for the better one.
const TURN: Duration = Duration::from_millis(500);
const NOT_STARTING: &str = "its Postgres does not start";

pub(super) fn race(cluster: &Cluster, me: &NodeView, why: &str, now: Instant) -> Decision {
    if let Some(decision) = take_back(cluster, me, why, now) {
        return decision;
    }
    if let Some(decision) = super::settle_down(me, &cluster.settings, now) {
        return decision;
    }
    if let Some(hold) = me
        .held
        .filter(|hold| hold.binds(cluster.current_epoch(), now))
    {
        return Decision::wait(
            "holding still",
            format!(
                "{why}; its primary is alive and has lost the store: nothing is promised for {} ms",
                hold.until.since(now).as_millis()
            ),
        );
    }
    match &me.postgres {
        Postgres::Down { .. } => match me.data {
            DataDir::Ready(_) if me.rewound => Decision::wait(
                "nothing to offer",
                format!("{why}; this node was rewound to the last leader and lacks WAL of it"),
            ),
            DataDir::Ready(_) => lie(cluster, me, why, now),
            DataDir::Empty | DataDir::Unfinished | DataDir::Unusable(_) => Decision::wait(
                "nothing to offer",
                format!("{why}; this node has no data to lead with"),
            ),
        },
        Postgres::Standby(standby) => stand(cluster, me, standby, why, now),
        // Unlawful primaries were fenced before, the other states settled.
        Postgres::Primary(_) | Postgres::Starting | Postgres::Unresponsive { .. } => {
            Decision::wait("unsettled", "Postgres has not settled yet")
        }
    }
}

/// A primary that has stopped in order promises as it lies there: the end of its WAL is known, and who streamed from it
/// has it too. It starts only where it is to lead, after an order only if nobody else has come forward; as a standby of the
/// next leader it starts when that leads.
fn lie(cluster: &Cluster, me: &NodeView, why: &str, now: Instant) -> Decision {
    let ours = me.on_disk.filter(|_| super::foreign::are_none(cluster));
    let (Some(end), Some(lineage)) = (ours, &me.lineage) else {
        return park(cluster, me, why, now);
    };
    if let Some(promise) = promise(cluster, me, lineage.at(end), why) {
        return promise;
    }
    // The others go by its word no more, but where only it has everything it must go on trying.
    if me.start_failures > 0 {
        return park(cluster, me, why, now);
    }
    let promised = me.promised_at.map_or(Duration::ZERO, |at| now.since(at));
    let order = cluster.switchover.as_ref();
    let to_another = order.is_some_and(|order| order.to.as_ref() != Some(&me.name));
    let hands_over = to_another && promised < cluster.settings.failure_timeout;
    match verdict(cluster, &me.name, Some(me), now) {
        Verdict::Claims { .. } if hands_over => Decision::wait(
            "election",
            format!("{why}; it hands over, another node goes first"),
        ),
        Verdict::Claims { .. } => park(cluster, me, why, now),
        Verdict::Waits { why: hindrance } => {
            Decision::wait("election", format!("{why}; {hindrance}"))
        }
    }
}

/// A start that does not end, of a node that has promised as it lay there: the others go by its word no more.
fn take_back(cluster: &Cluster, me: &NodeView, why: &str, now: Instant) -> Option<Decision> {
    let down = now.since(me.down_since?);
    if me.postgres != Postgres::Starting || down < cluster.settings.primary_start_timeout {
        return None;
    }
    let stands = cluster.promises.get(&me.name)?;
    if stands.unfit.is_some() || stands.epoch != cluster.current_epoch() {
        return None;
    }
    let promise = Promise {
        unfit: Some(NOT_STARTING.to_owned()),
        ..stands.clone()
    };
    let reason = format!(
        "{why}; {NOT_STARTING} since {} s: promising that it can't lead",
        down.as_secs()
    );
    Some(Decision::act("promise", Action::Promise(promise), reason))
}

/// Starts that fail again and again (a full disk) are tried less and less often.
fn park(cluster: &Cluster, me: &NodeView, why: &str, now: Instant) -> Decision {
    match super::follow::start_pause(cluster, me, now) {
        Some(wait) => wait,
        None => Decision::act(
            "park",
            Action::Park,
            format!("{why}: starting to see what WAL is here"),
        ),
    }
}

fn stand(cluster: &Cluster, me: &NodeView, standby: &Standby, why: &str, now: Instant) -> Decision {
    if standby.is_fed() {
        return Decision::act(
            "detach",
            Action::Detach,
            format!("{why}: no longer taking its WAL"),
        );
    }
    if !standby.end_known {
        return Decision::wait(
            "reading WAL",
            format!(
                "{why}; replayed to {}, the end of the local WAL is not seen yet",
                standby.replayed
            ),
        );
    }
    let Some(lineage) = &me.lineage else {
        if let Some(promise) = cluster.promises.get(&me.name)
            && cluster.foreign.recorded
        {
            // Patroni has run here since: nobody has kept it.
            let epoch = promise.epoch;
            let reason = format!("{why}; this node can't stand by its promise of epoch {epoch}");
            return Decision::act("withdraw", Action::Withdraw { epoch }, reason);
        }
        return Decision::wait(
            "unknown WAL",
            format!("{why}; this node has no note of whose WAL it holds, so it can't vouch for it"),
        );
    };
    if lineage.at(standby.received).epoch != lineage.at(standby.replayed).epoch {
        // Half a record past the end of one epoch's WAL is no record of the next one's.
        return Decision::wait(
            "reading WAL",
            format!(
                "{why}; replayed to {}, {} bytes to replay before it is known whose they are",
                standby.replayed,
                standby.received.bytes_since(standby.replayed)
            ),
        );
    }
    if let Some(promise) = promise(cluster, me, lineage.at(standby.received), why) {
        return promise;
    }
    match verdict(cluster, &me.name, Some(me), now) {
        Verdict::Claims { counted } => claim(cluster, me, &counted, why),
        Verdict::Waits { why: hindrance } => {
            Decision::wait("election", format!("{why}; {hindrance}"))
        }
    }
}

/// The promise, unless it stands already.
fn promise(cluster: &Cluster, me: &NodeView, position: Position, why: &str) -> Option<Decision> {
    // It counts for what has been acknowledged, and keeps nobody from leading who has all of that.
    let idle = (me.start_failures > 0).then(|| NOT_STARTING.to_owned());
    let promise = Promise {
        epoch: cluster.current_epoch(),
        position,
        unfit: super::unfit(me).or(idle),
        priority: cluster.node(&me.name).priority,
    };
    let lies = matches!(me.postgres, Postgres::Down { .. });
    let tells = |stands: &&Promise| match lies {
        true => **stands == promise,
        false => says_as_much(stands, &promise),
    };
    if cluster.promises.get(&me.name).filter(tells).is_some() {
        return None;
    }
    let reason = format!("{why}; promising to acknowledge nothing more, at {position}");
    Some(Decision::act("promise", Action::Promise(promise), reason))
}

/// Whether the promise that stands need not be written again. It may say a little more: WAL that ends in the middle of
/// a record counts as received until replay is seen to wait before it.
fn says_as_much(stands: &Promise, now: &Promise) -> bool {
    let same_wal = stands.position.epoch == now.position.epoch
        && stands.position.timeline == now.position.timeline
        && stands.position.lsn >= now.position.lsn;
    let (stands, now) = (
        (stands.epoch, &stands.unfit, stands.priority),
        (now.epoch, &now.unfit, now.priority),
    );
    same_wal && stands == now
}

/// Whether a node may claim now, or the one reason why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Claims { counted: BTreeSet<NodeName> },
    Waits { why: String },
}

/// The election from the promises alone; `me` adds what only the node itself knows (its turn and its window).
pub fn verdict(cluster: &Cluster, name: &NodeName, me: Option<&NodeView>, now: Instant) -> Verdict {
    match elect(cluster, name, me, now) {
        Ok(counted) => Verdict::Claims { counted },
        Err(why) => Verdict::Waits { why },
    }
}

fn elect(
    cluster: &Cluster,
    name: &NodeName,
    me: Option<&NodeView>,
    now: Instant,
) -> Result<BTreeSet<NodeName>, String> {
    let promises = cluster.live_promises();
    let Some(mine) = promises.get(name) else {
        return Err(format!("{name} has not promised"));
    };
    if let Some(why) = &mine.unfit {
        return Err(format!("{name} can't lead: {why}"));
    }
    if cluster.settings.paused && cluster.switchover.is_none() && !super::led_last(cluster, name) {
        return Err("the cluster is paused: no automatic failover".to_owned());
    }
    let able = able(cluster, name, &promises);
    let mut vouchers = BTreeSet::new();
    let with_me = || {
        let mut able = able.clone();
        able.extend(
            promises
                .get_key_value(name)
                .map(|(name, mine)| (*name, *mine)),
        );
        able
    };
    let promises = match &cluster.sync {
        // Among those that have promised the most advanced still goes first.
        _ if loss_accepted(cluster, name) => with_me(),
        // If those that can lead prove enough by themselves, the others' tails hold nothing that was acknowledged.
        Some(record) if proof(cluster, record, &able).is_ok() => {
            wanted(cluster, name)?;
            able
        }
        Some(record) => {
            let mut promises = promises.clone();
            // Who shall not lead, and has nothing that was acknowledged, holds up nobody.
            promises.retain(|other, _| {
                let needed = *other == name || super::is_named(cluster, other);
                needed || super::unwanted(cluster, other).is_none()
            });
            proof(cluster, record, &promises).map_err(|missing| missing.to_string())?;
            let as_much = |promise: &&Promise| promise.position.rank() >= mine.position.rank();
            if able.values().any(as_much) || !super::is_named(cluster, name) {
                wanted(cluster, name)?;
            }
            promises
        }
        None => {
            let promised = promises.keys().copied();
            vouchers = crate::failsafe::vouchers(cluster, name, promised).ok_or_else(|| {
                format!(
                    "the last leader may be alive without the store, and would not have asked {name} to hold still; \
                     nobody whom it would have asked (the key failsafe) has promised"
                )
            })?;
            window(cluster, name, me, &names(&promises), mine, now)?;
            let near = |promise: &&Promise| lag(cluster, promise) <= cluster.settings.lag_bytes_max;
            if able.values().any(near) || !super::led_last(cluster, name) {
                wanted(cluster, name)?;
            }
            with_me()
        }
    };
    let counted = names(&promises);
    let best = promises
        .iter()
        .max_by_key(|(_, promise)| promise.position.rank())
        .map_or(mine.position, |(_, promise)| promise.position);
    if mine.position.rank() < best.rank() {
        return Err(behind(&promises, name, &mine.position, &best));
    }
    turn(cluster, name, me, &promises, now)?;
    Ok(&counted | &vouchers)
}

/// Whether a person wants this node to lead. Asked wherever somebody else can.
fn wanted(cluster: &Cluster, name: &NodeName) -> Result<(), String> {
    match super::unwanted(cluster, name) {
        Some(why) => Err(format!("{name} can't lead: {why}")),
        None => Ok(()),
    }
}

/// How far a promise is behind the last known position of the leader, in bytes.
fn lag(cluster: &Cluster, promise: &Promise) -> u64 {
    cluster.leader_position.bytes_since(promise.position.lsn)
}

type Promises<'a> = BTreeMap<&'a NodeName, &'a Promise>;

/// The promises of nodes that are there, could lead and shall.
fn able<'a>(cluster: &Cluster, name: &NodeName, promises: &Promises<'a>) -> Promises<'a> {
    let can = |(other, promise): &(&&NodeName, &&Promise)| {
        promise.unfit.is_none()
            && super::unwanted(cluster, other).is_none()
            && (**other == name || cluster.members.contains_key(**other))
    };
    promises
        .iter()
        .filter(can)
        .map(|(name, promise)| (*name, *promise))
        .collect()
}

fn names(promises: &Promises<'_>) -> BTreeSet<NodeName> {
    promises.keys().map(|name| (*name).clone()).collect()
}

/// Whether these promises meet every set that can have acknowledged a commit that the best of them does not have.
fn proof(cluster: &Cluster, record: &SyncRecord, promises: &Promises<'_>) -> Result<(), Missing> {
    in_doubt(cluster, record, promises).accepts(&names(promises))
}

/// Whether a person has said that this node shall lead without the proof. Only ever without a leader.
pub(super) fn loss_accepted(cluster: &Cluster, name: &NodeName) -> bool {
    cluster.leader.is_none()
        && cluster
            .switchover
            .as_ref()
            .is_some_and(|order| order.accept_loss && order.to.as_ref() == Some(name))
}

/// The settings under which a commit may have been acknowledged that the most advanced promise does not have.
///
/// Whoever has WAL of an epoch has all that its leader began with, and that leader was elected on promises that met
/// every older setting. A leader publishes its lineage before it acknowledges anything, so those that claimed after the
/// last one that published have acknowledged nothing. So only that one's own settings are still to be met. Without this,
/// two nodes whose copies of the data are cut off while they join a new leader would keep that leader from ever leading
/// again, though it has everything, and so would its own claim on the way back.
fn in_doubt(
    cluster: &Cluster,
    record: &SyncRecord,
    promises: &BTreeMap<&NodeName, &Promise>,
) -> SyncRecord {
    let has_wal_of = |epoch: Epoch| {
        let mut promises = promises.values();
        promises.any(|promise| promise.position.epoch >= epoch)
    };
    let present = cluster.epoch.as_ref();
    let present = present.map(|present| (present.epoch, &present.leader));
    let published = cluster.lineage.as_ref();
    let published = published.and_then(|it| Some((it.epoch, it.leader.as_ref()?)));
    let known = [present, published].into_iter().flatten();
    let Some((_, leader)) = known.into_iter().find(|(epoch, _)| has_wal_of(*epoch)) else {
        return record.clone();
    };
    let settings = record.settings().iter();
    let own = settings.filter(|setting| setting.leader == *leader);
    SyncRecord::from_settings(own.cloned().collect()).unwrap_or_else(|| record.clone())
}

fn behind(
    promises: &BTreeMap<&NodeName, &Promise>,
    name: &NodeName,
    mine: &Position,
    best: &Position,
) -> String {
    let who = promises
        .iter()
        .find(|(_, promise)| promise.position.rank() == best.rank())
        .map_or_else(String::new, |(name, _)| name.to_string());
    if mine.epoch == best.epoch {
        let bytes = best.lsn.bytes_since(mine.lsn);
        return format!("{name} is {bytes} bytes behind {who}, which is at {best}");
    }
    format!("{name} is at {mine}, {who} has newer WAL: {best}")
}

/// Asynchronous mode has no proof: the leader's lease must have ended, and the others get time to speak.
fn window(
    cluster: &Cluster,
    name: &NodeName,
    me: Option<&NodeView>,
    counted: &BTreeSet<NodeName>,
    mine: &Promise,
    now: Instant,
) -> Result<(), String> {
    if let Some(leader) = cluster.leader.as_ref().filter(|leader| *leader != name) {
        return Err(format!(
            "commits are asynchronous and the lease of {leader} has not ended"
        ));
    }
    near_enough(cluster, name, mine)?;
    if cluster.leader.is_some() {
        // A leader that was restarted: the others follow it and promise nothing.
        return Ok(());
    }
    let silent: Vec<&str> = cluster
        .members
        .keys()
        .filter(|member| !counted.contains(*member) && !cluster.foreign.members.contains(*member))
        .map(NodeName::as_str)
        .collect();
    let promised_at = me.and_then(|me| me.promised_at).unwrap_or(now);
    if !silent.is_empty() && now.since(promised_at) < cluster.settings.election_window {
        return Err(format!("waiting for the promises of {}", silent.join(", ")));
    }
    Ok(())
}

/// Where nothing else is proven, the leader's last known position is what a node is measured by.
///
/// What a standby leader lacks it gets from the remote. And nobody is behind in WAL that it has begun itself and not
/// published: the position that is known is still that of the leader before, of which a person has accepted the loss.
pub(super) fn near_enough(
    cluster: &Cluster,
    name: &NodeName,
    mine: &Promise,
) -> Result<(), String> {
    let epoch = cluster.current_epoch();
    let published = cluster.lineage.as_ref().is_some_and(|it| it.epoch == epoch);
    let own = super::led_last(cluster, name) && mine.position.epoch == epoch && !published;
    let (lag, most) = (lag(cluster, mine), cluster.settings.lag_bytes_max);
    if own || cluster.settings.remote.is_some() || lag <= most {
        return Ok(());
    }
    Err(format!(
        "{name} is {lag} bytes behind the last known position of the leader, more than maximum_lag_on_failover ({most})"
    ))
}

/// Equals take turns, so that two do not collide; a better one that dies costs a turn, not the cluster.
fn turn(
    cluster: &Cluster,
    name: &NodeName,
    me: Option<&NodeView>,
    promises: &BTreeMap<&NodeName, &Promise>,
    now: Instant,
) -> Result<(), String> {
    let Some(mine) = promises.get(name) else {
        return Err(format!("{name} has not promised"));
    };
    let asked = cluster
        .switchover
        .as_ref()
        .and_then(|order| order.to.as_ref());
    let left = cluster
        .switchover
        .as_ref()
        .and_then(|order| order.from.as_ref());
    let merit = |name: &NodeName, promise: &Promise| {
        let wanted = super::unwanted(cluster, name).is_none();
        (
            asked == Some(name),
            left != Some(name),
            wanted,
            promise.priority,
        )
    };
    let better: Vec<&NodeName> = promises
        .iter()
        .filter(|(other, promise)| {
            promise.unfit.is_none()
                && promise.position.rank() == mine.position.rank()
                && (merit(other, promise), std::cmp::Reverse(**other))
                    > (merit(name, mine), std::cmp::Reverse(name))
        })
        .map(|(name, _)| *name)
        .collect();
    let waits = TURN * u32::try_from(better.len()).unwrap_or(u32::MAX);
    let promised_at = me.and_then(|me| me.promised_at).unwrap_or(now);
    let waited = now.since(promised_at);
    if waited < waits {
        return Err(format!("{} goes first", better[better.len() - 1]));
    }
    // The old leader's own promise may prove enough before whom a person has named has said a word.
    let silent = |asked: &&NodeName| {
        cluster.members.contains_key(*asked) && !cluster.live_promises().contains_key(*asked)
    };
    match asked.filter(silent) {
        Some(asked) if asked != name && waited < cluster.settings.failure_timeout => {
            Err(format!("a person has named {asked}, which goes first"))
        }
        _ => Ok(()),
    }
}

/// Whom a leader that a person restarts can count on again: its standbys have promised nothing, and wait for it. So
/// no commit rests on this node alone meanwhile.
fn returning<'a>(cluster: &'a Cluster, me: &NodeView) -> impl Iterator<Item = &'a NodeName> {
    let newest = cluster.sync.as_ref().map(SyncRecord::newest);
    let mine = newest.filter(|it| it.leader == me.name && me.errand == Some(Errand::Restarting));
    mine.into_iter()
        .flat_map(|setting| &setting.standbys)
        .filter(|name| cluster.members.contains_key(*name))
}

fn claim(cluster: &Cluster, me: &NodeView, counted: &BTreeSet<NodeName>, why: &str) -> Decision {
    let epoch = cluster.current_epoch().next();
    let first = || {
        super::first_setting(
            cluster,
            &me.name,
            counted.iter().chain(returning(cluster, me)),
        )
    };
    let mut promises = cluster.live_promises();
    promises.retain(|name, _| counted.contains(*name));
    let unproven = cluster
        .sync
        .as_ref()
        .and_then(|record| proof(cluster, record, &promises).err());
    let record = cluster.sync.as_ref().map(|record| match unproven {
        // A standby leader acknowledges nothing: what protects older commits stands until it follows the remote.
        _ if cluster.settings.remote.is_some() => record.clone(),
        Some(_) => after_loss(record, &me.name).joined(first()),
        None => record.joined(first()),
    });
    let voices: Vec<&str> = counted.iter().map(NodeName::as_str).collect();
    let proven = cluster.sync.is_some() && unproven.is_none();
    let price = unproven.map_or_else(String::new, |missing| {
        format!("; a person has accepted the loss of commits: {missing}")
    });
    let reason = format!(
        "{why}; claiming epoch {epoch} on the promises of {}{price}",
        voices.join(", ")
    );
    let claim = Claim {
        epoch,
        record,
        counted: counted.clone(),
        proven,
        standby: cluster.settings.remote.is_some(),
        why: reason.clone(),
    };
    Decision::act("claim", Action::Claim(claim), reason)
}

/// A person has accepted the loss of what is not at `me`, and of nothing else: whoever was to be asked for the commits of
/// a leader, now it or `me` is. What is here, is here alone until the first setting's barrier is passed. The leaders stay
/// named: should `me` not come to publish its lineage, theirs is what counts ([`in_doubt`]).
fn after_loss(record: &SyncRecord, me: &NodeName) -> SyncRecord {
    let settings = record.settings().iter();
    let leaders: BTreeSet<&NodeName> = settings.map(|setting| &setting.leader).collect();
    let others = leaders.into_iter().filter(|leader| *leader != me);
    let here = others.map(|leader| Setting::quorum(leader.clone(), [me.clone()].into(), 1));
    let mut settings: Vec<Setting> = here.collect();
    settings.push(Setting::alone(me.clone()));
    SyncRecord::from_settings(settings).unwrap_or_else(|| record.clone())
}

/// Whether all signs of the leader's life have been silent for too long.
pub(super) fn suspicion(cluster: &Cluster, me: &NodeView, now: Instant) -> Option<Duration> {
    let silence = now.since(me.contact.newest());
    let watched = me.contact.epoch == cluster.current_epoch();
    (watched && silence >= cluster.settings.failure_timeout).then_some(silence)
}
