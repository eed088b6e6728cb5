//! What is wanted of one node: maintenance, priority, its place in the quorum, its departure.
//!
//! **Invariant:** the leader is asked to step aside only if somebody can take over, unless a person insists.

use super::register::entries;
use super::{TRIES, commit, overtaken};
use crate::clock;
use crate::error::Refusal;
use crate::event::to_text;
use crate::office::Office;
use crate::router::Context;
use crate::show::seen_by_leader;
use crate::v1::{Code, Dropped, NodeSettings};
use ha::NodeName;
use std::collections::BTreeMap;
use store::layout::{NodeEntry, read_cluster};
use store::{Snapshot, Txn};

/// Maintenance on or off. The node's Postgres is then left alone.
pub(crate) async fn maintain(
    context: &Context,
    name: &NodeName,
    enabled: bool,
) -> Result<NodeEntry, Refusal> {
    update(context, name, |entry, snapshot| {
        if enabled && !entry.maintenance {
            can_step_aside(context, snapshot, name)?;
        }
        Ok(NodeEntry {
            maintenance: enabled,
            ..entry
        })
    })
    .await
}

/// Priority and quorum.
pub(crate) async fn set(
    context: &Context,
    name: &NodeName,
    asked: &NodeSettings,
) -> Result<NodeEntry, Refusal> {
    if asked.priority.is_some_and(|priority| priority > 100) {
        return Err(Refusal::new(Code::Invalid, "priority must be 0 to 100"));
    }
    update(context, name, |entry, _| {
        Ok(NodeEntry {
            priority: asked.priority.unwrap_or(entry.priority),
            priority_by_tag: entry.priority_by_tag && asked.priority.is_none(),
            quorum: asked.quorum.unwrap_or(entry.quorum),
            quorum_by_tag: entry.quorum_by_tag && asked.quorum.is_none(),
            ..entry
        })
    })
    .await
}

async fn update(
    context: &Context,
    name: &NodeName,
    change: impl Fn(NodeEntry, &Snapshot) -> Result<NodeEntry, Refusal>,
) -> Result<NodeEntry, Refusal> {
    let (store, keys) = (&*context.options.store, context.keys());
    for _ in 0..TRIES {
        let snapshot = store.read(keys.prefix()).await?;
        let current = find(context, &snapshot, name)?;
        let next = change(current.clone(), &snapshot)?;
        if next == current {
            return Ok(next);
        }
        let key = keys.node(name);
        let txn = Txn::new()
            .when(snapshot.unchanged(&key))
            .when(snapshot.unchanged(&keys.leader()))
            .put(key, to_text(&next));
        if commit(store, txn).await? {
            return Ok(next);
        }
    }
    Err(overtaken())
}

fn find(context: &Context, snapshot: &Snapshot, name: &NodeName) -> Result<NodeEntry, Refusal> {
    let mut records: BTreeMap<NodeName, NodeEntry> = entries(context.keys(), snapshot)?;
    records
        .remove(name)
        .ok_or_else(|| Refusal::unknown_node(name.as_str()))
}

/// The leader steps aside for a candidate; alone in the cluster it just stops.
fn can_step_aside(context: &Context, snapshot: &Snapshot, name: &NodeName) -> Result<(), Refusal> {
    let cluster = read_cluster(context.keys(), snapshot)?;
    let alone = cluster.nodes.keys().all(|other| other == name);
    if cluster.leader.as_ref() != Some(name) || alone {
        return Ok(());
    }
    let served = context.served();
    let primary = seen_by_leader(
        context.keys(),
        &Office::new(&served, clock::now()),
        &cluster,
    );
    match ha::handover_candidate(&cluster, name, &primary, None) {
        Ok(_) => Ok(()),
        Err(why) => Err(
            Refusal::refused(format!("{name} leads and nobody can take over: {why}"))
                .hint("standfast explain says what each node waits for"),
        ),
    }
}

/// Orders a node to leave, and with `force` removes the records of one that is gone for good.
pub(crate) async fn remove(
    context: &Context,
    name: &NodeName,
    force: bool,
) -> Result<Dropped, Refusal> {
    let (store, keys) = (&*context.options.store, context.keys());
    for _ in 0..TRIES {
        let snapshot = store.read(keys.prefix()).await?;
        let entry = match find(context, &snapshot, name) {
            Err(_) if force && leave_store(context, name).await? => {
                // A removal that was cut off halfway is taken up again.
                let message = format!("{name} is no longer a member of the store");
                return Ok(Dropped {
                    name: name.clone(),
                    removed: true,
                    message,
                });
            }
            found => found?,
        };
        let alive = snapshot.value(&keys.member(name)).is_some();
        let leads = snapshot.value(&keys.leader()) == Some(name.as_str());
        if !force {
            can_step_aside(context, &snapshot, name)?;
        }
        let key = keys.node(name);
        let guarded = Txn::new()
            .when(snapshot.unchanged(&key))
            .when(snapshot.unchanged(&keys.leader()));
        // A monitor has no Postgres that must be stopped first.
        let gone = force && !leads && (!alive || entry.witness);
        let txn = if gone {
            // Its place in the synchronous setting stays: only a leader's own change may forget it.
            guarded
                .when(snapshot.unchanged(&keys.member(name)))
                .delete(key)
                .delete(keys.promise(name))
        } else {
            let next = NodeEntry {
                dropped: true,
                ..entry
            };
            guarded.put(key, to_text(&next))
        };
        if !commit(store, txn).await? {
            continue;
        }
        let message = if gone {
            // Last: this very process may be the member that goes, and can write nothing after it.
            leave_store(context, name).await?;
            format!("{name} is no longer part of the cluster")
        } else if alive {
            format!("{name} was asked to leave, and does so when it has stopped")
        } else if force {
            format!(
                "{name} is marked as dropped; its leadership has not ended yet, repeat the command then"
            )
        } else {
            format!("{name} does not answer; it leaves when it comes back, or now with --force")
        };
        return Ok(Dropped {
            name: name.clone(),
            removed: gone,
            message,
        });
    }
    Err(overtaken())
}

/// Out of the voters too, where the store is ours. Whether it was one of the members.
async fn leave_store(context: &Context, name: &NodeName) -> Result<bool, Refusal> {
    let Some(membership) = context.members.source() else {
        return Ok(false);
    };
    let left = match membership.members().await {
        Ok(members) if members.iter().all(|member| member.name != name.as_str()) => Ok(false),
        Ok(_) => membership.remove(name.as_str()).await.map(|()| true),
        Err(why) => Err(why),
    };
    left.map_err(|why| {
        let error = format!("{name} can't be taken out of the store's members: {why}");
        Refusal::new(Code::Unavailable, error)
            .hint("repeat the command when a majority of the store answers")
    })
}
