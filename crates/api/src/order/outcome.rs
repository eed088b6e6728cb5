//! How an order goes: read from the view, from one snapshot at a time.
//!
//! **Invariant:** "done" is said only of a leader of a later epoch that takes writes, or leads a standby cluster.

use super::commit;
use super::perform::Order;
use crate::clock;
use crate::error::Refusal;
use crate::event::events_after;
use crate::show::millis;
use crate::v1::{Code, Outcome, OutcomeKind};
use ha::{Epoch, Instant, NodeName};
use store::layout::{EventRecord, Keys, read_cluster};
use store::{Guard, Snapshot, Store, Txn};

/// Where things stood when the order was written.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) leader: Option<NodeName>,
    pub(super) epoch: Epoch,
    /// The last event before it.
    pub(super) events: u64,
    /// The revision of the order itself, to withdraw exactly it.
    pub(super) revision: u64,
    pub(super) at: Instant,
}

/// How far an order has come.
#[derive(Debug)]
pub(super) enum Progress {
    Open,
    /// Somebody new is in office; the order itself still stands.
    Done(Outcome),
    /// The order is gone, the old leader leads on, and nobody has said why yet.
    Cleared,
    Over(Result<Outcome, Refusal>),
}

/// Whether it is over: a new leader is in office and has cleared the order, or the old one has and leads on.
pub(super) fn judge(
    keys: &Keys,
    order: &Order,
    ordered: &Ordered,
    snapshot: &Snapshot,
    now: Instant,
) -> Progress {
    if snapshot.revision < ordered.revision {
        return Progress::Open;
    }
    let cluster = match read_cluster(keys, snapshot) {
        Ok(cluster) => cluster,
        Err(unreadable) => return Progress::Over(Err(unreadable.into())),
    };
    let Some(leader) = &cluster.leader else {
        return Progress::Open;
    };
    let events = events_after(keys, snapshot, ordered.events);
    let cleared = cluster.switchover.is_none();
    let why = refusal_of(&events);
    if cluster.current_epoch() == ordered.epoch {
        return match why {
            _ if !cleared || ordered.leader.as_ref() != Some(leader) => Progress::Open,
            Some(why) => Progress::Over(Err(refused(why))),
            None => Progress::Cleared,
        };
    }
    if !cluster
        .members
        .get(leader)
        .is_some_and(|member| member.state.is_in_office())
    {
        return Progress::Open;
    }
    let epoch = cluster.current_epoch();
    if ordered.leader.as_ref() == Some(leader) && order.to.as_ref() != Some(leader) {
        if !cleared {
            return Progress::Open;
        }
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let back = format!("{leader} has taken the leadership back in epoch {epoch}{why}");
        return Progress::Over(Err(refused(back)));
    }
    let asked = order.to.as_ref().is_none_or(|to| to == leader);
    let took_ms = millis(now.since(ordered.at));
    let old = ordered
        .leader
        .as_ref()
        .map_or_else(String::new, |old| format!(" from {old}"));
    let outcome = Outcome {
        outcome: if asked {
            OutcomeKind::Done
        } else {
            OutcomeKind::DoneInstead
        },
        leader: leader.clone(),
        epoch,
        message: format!("{leader} has taken over{old} in epoch {epoch}, in {took_ms} ms"),
        took_ms,
        events,
    };
    if cleared {
        Progress::Over(Ok(outcome))
    } else {
        Progress::Done(outcome)
    }
}

fn refused(why: impl Into<String>) -> Refusal {
    Refusal::refused(why).hint("standfast explain says what each node waits for")
}

pub(super) fn unexplained() -> Refusal {
    refused("the order was withdrawn before it was carried out")
}

/// What the leader said about an order that it did not carry out.
fn refusal_of(events: &[EventRecord]) -> Option<String> {
    let event = events
        .iter()
        .rev()
        .find(|event| event.rule == "switchover refused")?;
    Some(event.reason.trim_start_matches("refused: ").to_owned())
}

/// The time is over. An order that was not taken up is withdrawn.
pub(super) async fn late(
    store: &dyn Store,
    keys: &Keys,
    order: &Order,
    ordered: &Ordered,
    snapshot: &Snapshot,
) -> Result<Outcome, Refusal> {
    if let Progress::Done(outcome) = judge(keys, order, ordered, snapshot, clock::now()) {
        return Ok(outcome);
    }
    let seconds = order.timeout.as_secs_f64();
    let late = |what: &str| {
        Refusal::new(
            Code::TimedOut,
            format!("the change of leader was not done within {seconds} s; {what}"),
        )
    };
    let cluster = read_cluster(keys, snapshot).unwrap_or_default();
    let in_office = ordered.leader.as_ref().is_none_or(|leader| {
        let member = cluster.members.get(leader);
        cluster.leader.as_ref() == Some(leader)
            && member.is_none_or(|member| member.state.is_in_office())
    });
    if order.timeout.is_zero() {
        return Err(late("it was ordered and not waited for"));
    }
    if in_office {
        let exactly = Guard::Unchanged {
            key: keys.failover(),
            modified: ordered.revision,
        };
        let txn = Txn::new().when(exactly).delete(keys.failover());
        if let Ok(true) = commit(store, txn).await {
            return Err(late("nobody had begun it, and the order was withdrawn"));
        }
    }
    Err(late("it may still be going on").hint("standfast explain says what each node waits for"))
}
