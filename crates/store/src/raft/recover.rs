//! After the permanent loss of a majority: one member's data, as a new cluster of one.
//!
//! **Invariant:** refused while a majority of the voters answers, or any member of a working cluster does.
//! **Invariant:** every entry of this member's log is kept: some of it may have been acknowledged.
//! The member gets a new number and the cluster a new generation, so that those left behind can tell.

use super::directory::{Directory, draw_id, put_id};
use super::disk::Change;
use super::log::{LogStore, PURGED, VOTE, put};
use super::machine::{Machine, SNAPSHOT_DATA, SNAPSHOT_META};
use super::member::generation;
use super::options::Options;
use super::types::{LogId, NodeId, Peer, SnapshotMeta, StoredMembership, Vote};
use crate::kv::{Result, StoreError};
use crate::peer::message::{Request, Response, Status};
use crate::peer::pool::{Identity, Pool};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Makes the member in `options.directory`, which must be stopped, the only one of its cluster.
pub(crate) async fn recover(options: &Options) -> Result<()> {
    let path = options.directory.display().to_string();
    let failed = |error: io::Error| StoreError::Fatal(format!("{path}: {error}"));
    let Directory { disk, contents, id } =
        Directory::open(&options.directory).await.map_err(failed)?;
    let log = LogStore::new(Arc::clone(&disk), &contents, id).map_err(failed)?;
    let mut machine = Machine::new(Arc::clone(&disk), &contents).map_err(failed)?;
    let (snapshot_log_id, mut membership) = machine
        .applied_state()
        .await
        .map_err(|error| failed(io::Error::other(error)))?;
    // What the snapshot has already is kept in the log for a while.
    let entries: Vec<_> = log
        .entries()
        .into_iter()
        .filter(|entry| Some(entry.log_id) > snapshot_log_id)
        .collect();
    for entry in &entries {
        if let EntryPayload::Membership(latest) = &entry.payload {
            membership = StoredMembership::new(Some(entry.log_id), latest.clone());
        }
    }
    let Some(last) = entries.last().map(|entry| entry.log_id).or(snapshot_log_id) else {
        return Err(StoreError::Denied(format!(
            "{path} has never been part of a cluster"
        )));
    };
    nobody_goes_on(options, id, &membership).await?;

    machine
        .apply(entries)
        .await
        .map_err(|error| failed(io::Error::other(error)))?;
    let data = machine
        .look(|state, _| serde_json::to_vec(state))
        .map_err(|e| failed(e.into()))?;
    let term = log.last_vote().map_or(0, |vote| vote.leader_id().term);
    let term = term.max(last.leader_id.term) + 1;
    let changes = alone(options, generation(&membership) + 1, last, term, data).map_err(failed)?;
    disk.write(changes).await.map_err(failed)?;
    machine.close().await;
    tracing::warn!(directory = %path, "recovered the store with this member alone");
    Ok(())
}

/// The changes, made in one transaction, after which this member is alone.
fn alone(
    options: &Options,
    generation: u64,
    last: LogId,
    term: u64,
    data: Vec<u8>,
) -> io::Result<Vec<Change>> {
    let id = draw_id();
    let myself = Peer {
        name: options.name.to_string(),
        address: options.address.clone(),
        incarnation: 0,
        generation,
    };
    let voters = vec![BTreeSet::from([id])];
    let membership = Membership::new(voters, BTreeMap::from([(id, myself)]));
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: format!("recovered-{generation}-{last}"),
    };
    Ok(vec![
        put_id(id)?,
        put(VOTE, &Vote::new(term, id))?,
        put(SNAPSHOT_META, &meta)?,
        Change::Put(SNAPSHOT_DATA, data),
        Change::Purge(last.index),
        put(PURGED, &Some(last))?,
    ])
}

/// Asks every other member whether it is there.
async fn nobody_goes_on(
    options: &Options,
    id: NodeId,
    membership: &StoredMembership,
) -> Result<()> {
    let identity = Identity {
        cluster: options.cluster.clone(),
        secret: options.secret.clone(),
        tls: options.tls.clone(),
        handshake_timeout: options.timing.handshake_timeout,
    };
    let pool = Pool::new(Arc::new(identity));
    let limit = options.timing.request_timeout * 3;
    let asking = membership
        .nodes()
        .filter(|(other, _)| **other != id)
        .map(|(_, peer)| {
            let pool = &pool;
            async move {
                match pool
                    .call_within(limit, &peer.address, None, Request::Status)
                    .await
                {
                    Ok(Response::Status(status)) => Some(status),
                    Ok(_) | Err(_) => None,
                }
            }
        });
    let answers: Vec<Status> = futures_util::future::join_all(asking)
        .await
        .into_iter()
        .flatten()
        .collect();
    if let Some(working) = answers.iter().find(|status| status.settled) {
        return Err(StoreError::Denied(format!(
            "{} belongs to a store that works: nothing is to be recovered",
            working.name
        )));
    }
    // This member, once it runs, would be one of them.
    let present: BTreeSet<NodeId> = answers.iter().map(|status| status.id).chain([id]).collect();
    let configs = membership.membership().get_joint_config();
    let majority =
        |voters: &BTreeSet<NodeId>| voters.intersection(&present).count() > voters.len() / 2;
    if configs.iter().all(majority) {
        let names: Vec<_> = answers.iter().map(|status| status.name.as_str()).collect();
        return Err(StoreError::Denied(format!(
            "a majority of the voters can still answer (this one and {}): start this member instead",
            names.join(", ")
        )));
    }
    Ok(())
}
