//! A switchover for later: it stands in the store with its time, and hides from every decision until the leader takes
//! the time away.
//!
//! **Invariant:** of a scheduled order comes a switchover only from the leader that it names, at its time or shortly
//! after; one that was missed is never caught up with.

use super::perform::Order;
use super::{TRIES, commit, overtaken};
use crate::errand::Schedule;
use crate::error::Refusal;
use crate::event::to_text;
use crate::router::Context;
use jiff::Timestamp;
use std::time::{Duration, SystemTime};
use store::layout::{FailoverRecord, Keys, read_cluster};
use store::{Snapshot, Txn};

/// So late an order may still be carried out.
const LATE: Duration = Duration::from_secs(30);

/// Writes the order; one for later that stands already is replaced.
pub(crate) async fn schedule(
    context: &Context,
    order: &Order,
    at: Schedule,
) -> Result<(), Refusal> {
    let (store, keys) = (&*context.options.store, context.keys());
    for _ in 0..TRIES {
        let snapshot = store.read(keys.prefix()).await?;
        let cluster = read_cluster(keys, &snapshot)?;
        if cluster.switchover.is_some() {
            return Err(Refusal::conflict("a change of leader is under way already")
                .hint("wait for its end"));
        }
        if cluster.leader != order.from {
            return Err(Refusal::refused("leader name does not match"));
        }
        let record = FailoverRecord {
            leader: order.from.clone(),
            member: order.to.clone(),
            scheduled_at: Some(at.text.clone()),
            accept_loss: false,
        };
        let txn = Txn::new()
            .when(snapshot.unchanged(&keys.failover()))
            .when(snapshot.unchanged(&keys.leader()))
            .put(keys.failover(), to_text(&record));
        if commit(store, txn).await? {
            return Ok(());
        }
    }
    Err(overtaken())
}

/// What the leader has to do about an order for later.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    In(Duration),
    /// Its time has come: this transaction makes it an order for now.
    Now(Txn),
    /// It can't be carried out any more: this transaction removes it.
    Missed(Txn, &'static str),
}

/// The order for later in the store, as the leader (whose key is held by `me`) sees it; `None` without one.
pub fn due(keys: &Keys, snapshot: &Snapshot, me: &ha::NodeName, now: SystemTime) -> Option<Due> {
    let text = snapshot.value(&keys.failover())?;
    let mut record: FailoverRecord = serde_json::from_str(text).ok()?;
    let time = record.scheduled_at.take()?;
    let guarded = || {
        Txn::new()
            .when(snapshot.unchanged(&keys.failover()))
            .when(snapshot.unchanged(&keys.leader()))
    };
    let missed = |why| Some(Due::Missed(guarded().delete(keys.failover()), why));
    let Ok(at) = time.parse::<Timestamp>().map(SystemTime::from) else {
        return missed("its time can't be read");
    };
    if record.leader.as_ref().is_some_and(|leader| leader != me) {
        return missed("the leader that it names no longer leads");
    }
    match now.duration_since(at) {
        Err(early) => Some(Due::In(early.duration())),
        Ok(late) if late > LATE => missed("its time is over"),
        Ok(_) => Some(Due::Now(guarded().put(keys.failover(), to_text(&record)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::NodeName;
    use store::{Entry, Op};

    fn snapshot(keys: &Keys, record: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let entry = Entry {
            value: record.to_owned(),
            created: 7,
            modified: 7,
            lease: None,
        };
        snapshot.entries.insert(keys.failover(), entry.into());
        snapshot
    }

    #[test]
    fn an_order_for_later_waits_is_taken_up_or_is_missed() {
        let keys = Keys::new("service", "demo");
        let me = NodeName::new("a").expect("a name");
        let at: Timestamp = "2026-11-22T20:00:00+00:00".parse().expect("a time");
        let at = SystemTime::from(at);
        let order = |leader: &str| {
            format!(
                r#"{{"leader":"{leader}","member":"b","scheduled_at":"2026-11-22T20:00:00+00:00"}}"#
            )
        };
        let look = |record: &str, now| due(&keys, &snapshot(&keys, record), &me, now);
        let minute = Duration::from_secs(60);
        assert_eq!(look(&order("a"), at - minute), Some(Due::In(minute)));
        let Some(Due::Now(txn)) = look(&order("a"), at + Duration::from_secs(1)) else {
            panic!("it is due");
        };
        let put = Op::Put {
            key: keys.failover(),
            value: r#"{"leader":"a","member":"b"}"#.to_owned(),
            lease: None,
        };
        assert_eq!(txn.ops, [put]);
        for (record, now) in [
            (order("a"), at + minute),
            (order("c"), at - minute),
            (
                r#"{"leader":"a","scheduled_at":"soon"}"#.to_owned(),
                at - minute,
            ),
        ] {
            assert!(
                matches!(look(&record, now), Some(Due::Missed(..))),
                "{record}"
            );
        }
        assert_eq!(look(r#"{"leader":"a"}"#, at), None);
        assert_eq!(look("{}", at), None);
    }
}
