//! A planned change of leader: ordered in the store, then watched until it is done or refused.
//!
//! **Invariant:** the order names the leader that it was made for, and is written only while that one leads; an order
//! that is not taken up in time is withdrawn, so that it surprises nobody later (without a time to wait it stands).
//! It is written once, however often the store must be asked.

use super::outcome::{Ordered, Progress, judge, late, unexplained};
use super::{commit, overtaken};
use crate::clock;
use crate::error::Refusal;
use crate::event::{last_number, to_text};
use crate::office::Office;
use crate::router::Context;
use crate::show::seen_by_leader;
use crate::v1::{Action, Code, Outcome, OutcomeKind, Perform};
use ha::{Cluster, Epoch, Instant, NodeName};
use std::sync::Arc;
use std::time::Duration;
use store::layout::{FailoverRecord, Keys, read_cluster};
use store::{Op, Snapshot, Store, StoreError, Txn};

const TIMEOUT: Duration = Duration::from_secs(60);
const TIMEOUT_MAX: f64 = 3600.0;
/// How long an order waits for a standby that has just come back, and is no candidate for a moment more.
const READY_WITHIN: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long after an order was cleared its reason may come.
const REASON_WITHIN: Duration = Duration::from_millis(500);

/// A change of leader as it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) action: Action,
    /// The leader that must be there, if the caller said so.
    pub(crate) from: Option<NodeName>,
    pub(crate) to: Option<NodeName>,
    pub(crate) timeout: Duration,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) accept_loss: bool,
}

impl Order {
    pub(crate) fn of(asked: Perform) -> Result<Self, Refusal> {
        let timeout = match asked.timeout_s {
            None => TIMEOUT,
            Some(seconds) if (0.0..=TIMEOUT_MAX).contains(&seconds) => {
                Duration::from_secs_f64(seconds)
            }
            Some(_) => {
                return Err(Refusal::new(Code::Invalid, "timeout_s must be 0 to 3600"));
            }
        };
        if asked.action == Action::Promotion && asked.to.is_none() {
            return Err(Refusal::new(
                Code::Invalid,
                "a promotion needs `to`: the node to promote",
            ));
        }
        Ok(Self {
            action: asked.action,
            from: None,
            to: asked.to,
            timeout,
            epoch: asked.epoch,
            accept_loss: asked.accept_loss,
        })
    }
}

/// Orders the change and waits for its outcome.
pub(crate) async fn perform(context: &Context, order: &Order) -> Result<Outcome, Refusal> {
    let (store, keys) = (&*context.options.store, context.keys());
    let at = clock::now();
    // Follow first, write then: nothing can happen unseen.
    let mut view = store.view(keys.prefix());
    let ready_by = at.plus(READY_WITHIN.min(order.timeout));
    let (snapshot, cluster) = loop {
        let snapshot = store.read(keys.prefix()).await?;
        let cluster = read_cluster(keys, &snapshot)?;
        match check(context, order, &cluster, &snapshot) {
            Err(Hindrance::Passing(_)) if clock::now() < ready_by => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(Hindrance::Passing(no) | Hindrance::Lasting(no)) => return Err(no),
            Ok(()) => break (snapshot, cluster),
        }
    };
    if let Some(leader) = already(order, &cluster) {
        return Ok(Outcome {
            outcome: OutcomeKind::AlreadyLeads,
            message: format!("{leader} leads already"),
            leader,
            epoch: cluster.current_epoch(),
            took_ms: 0,
            events: Vec::new(),
        });
    }
    let record = FailoverRecord {
        leader: cluster.leader.clone(),
        member: order.to.clone(),
        scheduled_at: None,
        accept_loss: order.accept_loss,
    };
    let txn = Txn::new()
        .when(snapshot.unchanged(&keys.failover()))
        .when(snapshot.unchanged(&keys.leader()))
        .when(snapshot.unchanged(&keys.epoch()))
        .put(keys.failover(), to_text(&record));
    let deadline = at.plus(order.timeout);
    let revision = write(store, keys, txn, &snapshot, deadline).await?;
    let ordered = Ordered {
        leader: cluster.leader.clone(),
        epoch: cluster.current_epoch(),
        events: last_number(keys, &snapshot),
        revision,
        at,
    };
    let mut reason_by = None;
    loop {
        let now = clock::now();
        let snapshot = Arc::clone(&view.borrow_and_update());
        let mut wait_until = deadline;
        match judge(keys, order, &ordered, &snapshot, now) {
            Progress::Over(end) => return end,
            Progress::Cleared => {
                // The reason may be an event that is written just after.
                let by = *reason_by.get_or_insert_with(|| now.plus(REASON_WITHIN).min(deadline));
                if now >= by {
                    return Err(unexplained());
                }
                wait_until = by;
            }
            Progress::Done(_) | Progress::Open => {}
        }
        let changed = tokio::time::timeout(wait_until.since(now), view.changed());
        match changed.await {
            Ok(Ok(())) => {}
            Err(_) if wait_until < deadline => {}
            Err(_) | Ok(Err(_)) => {
                return late(store, keys, order, &ordered, &snapshot).await;
            }
        }
    }
}

/// Writes the order, and says as of which revision it stands.
///
/// A store that is too busy to answer leaves open whether the order stands. It is sent again then: by its guards it
/// is written once at most, and where it is refused now, the first may have been written, and even carried out.
async fn write(
    store: &dyn Store,
    keys: &Keys,
    txn: Txn,
    read: &Snapshot,
    deadline: Instant,
) -> Result<u64, Refusal> {
    let mut unknown = None;
    loop {
        let error = match (store.commit(txn.clone()).await, &unknown) {
            (Ok(store::Outcome::Committed { revision }), _) => return Ok(revision),
            (Ok(store::Outcome::Refused), None) => return Err(overtaken()),
            (Ok(store::Outcome::Refused), Some(_)) => match store.read(keys.prefix()).await {
                Ok(now) => return written_before(keys, &txn, read, &now),
                Err(error) => error,
            },
            (Err(error), _) => error,
        };
        // One that is merely not reached has not taken it.
        let may_stand = matches!(error, StoreError::Unknown(_)) || unknown.is_some();
        if !may_stand || !error.is_retryable() || clock::now() >= deadline {
            return Err(unknown.unwrap_or(error).into());
        }
        unknown.get_or_insert(error);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The revision of an order whose answer was lost: its own while it stands, else the one that it was decided on, from
/// which on it is looked for what has become of it.
fn written_before(keys: &Keys, txn: &Txn, read: &Snapshot, now: &Snapshot) -> Result<u64, Refusal> {
    let key = keys.failover();
    let Some(entry) = now.entries.get(&key) else {
        return Ok(read.revision);
    };
    let ours = |op: &Op| matches!(op, Op::Put { value, .. } if *value == entry.value);
    let is_new = entry.modified > read.revision;
    if is_new && txn.ops.iter().any(ours) {
        return Ok(entry.modified);
    }
    let is_cleared = serde_json::from_str::<FailoverRecord>(&entry.value)
        .is_ok_and(|record| record == FailoverRecord::default());
    if is_new && !is_cleared {
        // Somebody else's.
        return Err(overtaken());
    }
    Ok(read.revision)
}

fn already(order: &Order, cluster: &Cluster) -> Option<NodeName> {
    let to = order.to.as_ref()?;
    let idempotent = order.action == Action::Promotion;
    (idempotent && cluster.leader.as_ref() == Some(to)).then(|| to.clone())
}

/// Why an order can't be carried out now.
enum Hindrance {
    Lasting(Refusal),
    /// Of a standby that is about to be a candidate.
    Passing(Refusal),
}

impl From<Refusal> for Hindrance {
    fn from(refusal: Refusal) -> Self {
        Self::Lasting(refusal)
    }
}

/// Whether the order can be carried out as things stand.
fn check(
    context: &Context,
    order: &Order,
    cluster: &Cluster,
    snapshot: &Snapshot,
) -> Result<(), Hindrance> {
    if already(order, cluster).is_some() {
        return Ok(());
    }
    permitted(order, cluster)?;
    let Some(leader) = &cluster.leader else {
        return Ok(without_leader(order, cluster)?);
    };
    let served = context.served();
    let known = cluster.current_epoch()
        == served
            .cluster
            .as_ref()
            .map(Cluster::current_epoch)
            .unwrap_or_default();
    // The walsenders as this node knows them, if it speaks of the same leadership; else as the members say.
    let office = Office::new(&served, clock::now());
    let primary = if known {
        seen_by_leader(context.keys(), &office, cluster)
    } else {
        let mut read = crate::Served::new(served.scope.clone(), served.name.clone());
        read.snapshot = Arc::new(snapshot.clone());
        seen_by_leader(context.keys(), &Office::new(&read, clock::now()), cluster)
    };
    let Err(unfit) = ha::handover_candidate(cluster, leader, &primary, order.to.as_ref()) else {
        return Ok(());
    };
    let refusal =
        Refusal::refused(unfit.why).hint("standfast explain says what each node waits for");
    Err(if unfit.passing {
        Hindrance::Passing(refusal)
    } else {
        Hindrance::Lasting(refusal)
    })
}

/// Whether it may be ordered at all.
fn permitted(order: &Order, cluster: &Cluster) -> Result<(), Refusal> {
    let current = cluster.current_epoch();
    if let Some(expected) = order.epoch.filter(|expected| *expected != current) {
        return Err(Refusal::refused(format!(
            "the cluster is in epoch {current}, not {expected}"
        )));
    }
    if let Some(to) = &order.to
        && !cluster.nodes.contains_key(to)
        && !cluster.members.contains_key(to)
    {
        return Err(Refusal::unknown_node(to.as_str()));
    }
    if let Some(pending) = &cluster.switchover {
        let to = pending
            .to
            .as_ref()
            .map_or("the best candidate", NodeName::as_str);
        return Err(
            Refusal::conflict(format!("a change of leader to {to} is under way already"))
                .hint("wait for its end, or cancel it with DELETE /api/v1/perform"),
        );
    }
    if cluster.settings.paused && order.to.is_none() {
        return Err(
            Refusal::refused("the cluster is paused: name the node that shall lead")
                .hint("or resume it first"),
        );
    }
    let Some(leader) = &cluster.leader else {
        return Ok(());
    };
    if order.accept_loss {
        return Err(
            Refusal::refused(format!("{leader} leads: no loss needs to be accepted"))
                .hint("order the change without accepting a loss"),
        );
    }
    if let Some(from) = order.from.as_ref().filter(|from| *from != leader) {
        return Err(Refusal::refused(format!(
            "{from} does not lead, {leader} does"
        )));
    }
    Ok(())
}

/// A failover without a leader only says who goes first among equals; the proof of the promises decides.
fn without_leader(order: &Order, cluster: &Cluster) -> Result<(), Refusal> {
    let Some(to) = &order.to else {
        return Err(Refusal::refused("there is no leader to take over from")
            .hint("the nodes elect one by themselves; standfast explain says what they wait for"));
    };
    if order.action == Action::Switchover {
        return Err(Refusal::refused("there is no leader to switch over from")
            .hint("a failover or promotion to a named node is possible"));
    }
    if !cluster.members.contains_key(to) {
        return Err(Refusal::refused(format!("{to} is not alive")));
    }
    if cluster.node(to).priority == 0 {
        return Err(Refusal::refused(format!(
            "{to}: its candidate priority is 0"
        )));
    }
    Ok(())
}

/// Takes back an order that nobody has begun, a scheduled one too.
pub(crate) async fn cancel(store: &dyn Store, keys: &Keys) -> Result<(), Refusal> {
    let key = keys.failover();
    let snapshot = store.read(&key).await?;
    let pending = snapshot
        .value(&key)
        .and_then(|text| serde_json::from_str::<FailoverRecord>(text).ok())
        .is_some_and(|order| order != FailoverRecord::default());
    if !pending {
        return Err(Refusal::new(Code::NotFound, "no switchover is scheduled"));
    }
    let txn = Txn::new().when(snapshot.unchanged(&key)).delete(key);
    if commit(store, txn).await? {
        Ok(())
    } else {
        Err(overtaken())
    }
}
