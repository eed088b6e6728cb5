//! The leader's Postgres is down, by a crash or by order: start it here again, or let go for somebody better.
//!
//! **Invariant:** only a clean stop is a handover; a crash under a pending order is a crash.
//!
//! It does not know what Postgres died of.

use super::handover::clear;
use crate::decision::{Action, Decision};
use crate::quorum;
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, DataDir, Errand, Lease, NodeView, Promise};
use std::collections::BTreeSet;

/// A restart that a person asked for, and after which this node leads on: so its own promise must do for its claim.
pub(super) fn restart(cluster: &Cluster, me: &NodeView) -> Decision {
    match accepted_alone(cluster, me) {
        Ok(()) => Decision::act(
            "restart",
            Action::Drain,
            "a person asked for a restart: stopping cleanly, the leadership stays",
        ),
        Err(missing) => Decision::wait("restart", format!("can't restart yet: {missing}")),
    }
}

/// The primary's instance is gone, every process of it. Who can do better?
///
/// Only a clean stop is a handover: whatever was ordered, a crash is a crash, and in asynchronous mode the newest
/// commits may be here alone.
pub(super) fn fallen(cluster: &Cluster, me: &NodeView, lease: Lease, now: Instant) -> Decision {
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
    if !restarting && !cluster.settings.paused && others_can_lead(cluster, &me.name).is_ok() {
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

pub(super) fn starting(cluster: &Cluster, me: &NodeView, lease: Lease, now: Instant) -> Decision {
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
    let died = |missing: String| format!("Postgres on {} has died; {missing}", me.name);
    accepted_alone(cluster, me).map_err(|missing| died(missing.to_string()))?;
    let promises = cluster.live_promises();
    let Some(mine) = promises.get(&me.name) else {
        return Ok(());
    };
    let ahead = |promise: &&Promise| promise.position.rank() > mine.position.rank();
    if let Some((name, _)) = promises.iter().find(|(_, promise)| ahead(promise)) {
        return Err(died(format!("{name} has newer WAL")));
    }
    match &cluster.sync {
        None => super::race::near_enough(cluster, &me.name, mine).map_err(died),
        Some(_) => Ok(()),
    }
}

fn accepted_alone(cluster: &Cluster, me: &NodeView) -> Result<(), quorum::Missing> {
    let record = cluster.sync.as_ref();
    record.map_or(Ok(()), |record| {
        record.accepts(&BTreeSet::from([me.name.clone()]))
    })
}

/// Whether the living others could lead without loss, if this node let go.
///
/// # Errors
/// Why not.
pub fn others_can_lead(cluster: &Cluster, me: &NodeName) -> Result<(), String> {
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
        .filter(|name| *name != me && fit(name))
        .cloned()
        .collect();
    if alive.is_empty() {
        return Err("no other node is alive".into());
    }
    record
        .accepts(&alive)
        .map_err(|missing| missing.to_string())
}
