//! The leader's decisions: promote, preside, give up.
//!
//! What it asks of others is in [`super::setting`], whom it hands over to in [`super::handover`], and what becomes of a
//! Postgres that is down in [`super::down`].
//!
//! **Invariant:** leadership is released only when no process of the instance is left.
//! **Invariant:** every way to become primary passes through a claim; a restarted primary claims anew.

use super::down::{enough_alone, fallen, others_can_lead, restart, starting};
use super::handover::{hand_over, step_aside};
use super::setting::{open, protect};
use crate::decision::{Action, Decision};
use crate::types::{Epoch, Instant};
use crate::view::{Cluster, Errand, Lease, NodeView, Postgres, Primary, Standby, Storage};
use std::time::Duration;

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
        return step_down("not watched", me, lease, why);
    }
    let remote = cluster.settings.remote.as_ref();
    if let Some(decision) =
        remote.and_then(|remote| super::standby::lead(cluster, me, remote, lease, now))
    {
        return decision;
    }
    if let Some(why) = &me.barred
        && !matches!(me.postgres, Postgres::Primary(_))
    {
        return step_down("barred", me, lease, why);
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

/// What a leader must have is not there, so another one shall lead: the machine's watchdog device, or the leave of the
/// user's program to be promoted.
fn step_down(rule: &'static str, me: &NodeView, lease: Lease, why: &str) -> Decision {
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
    Decision::act(rule, action, why)
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

/// A primary that can't write any more hands over, if there is somebody to hand over to.
fn give_up(cluster: &Cluster, me: &NodeView, primary: &Primary, now: Instant) -> Option<Decision> {
    let Storage::Failing { since, why } = &me.storage else {
        return None;
    };
    let patient = now.since(*since) < STORAGE_FAILS_FOR;
    if !primary.open || patient || cluster.settings.paused {
        return None;
    }
    others_can_lead(cluster, &me.name).ok()?;
    Some(Decision::act(
        "storage failed",
        Action::Fence,
        format!("the primary's storage fails: {why}"),
    ))
}
