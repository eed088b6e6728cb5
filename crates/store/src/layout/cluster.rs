//! From the store's keys to the view that decisions are made on.

use super::records::{
    EpochRecord, FailoverRecord, LineageRecord, MemberRecord, NodeEntry, PromiseRecord,
    StatusRecord, SyncValue,
};
use super::{ConfigRecord, Keys};
use crate::Snapshot;
use ha::quorum::SyncRecord;
use ha::{
    Cluster, Initialize, Leadership, Lineage, Member, NodeName, NodeState, Promise, Published,
    Settings, Switchover, SystemId,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A value that can't be read. Deciding on less than everything would be unsafe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("store key {key} can't be read: {why}")]
pub struct Unreadable {
    pub key: String,
    pub why: String,
}

/// The typed content of a cluster's keys.
pub fn read_cluster(keys: &Keys, snapshot: &Snapshot) -> Result<Cluster, Unreadable> {
    let text = |key: String| snapshot.value(&key).map(|value| (key, value));
    let initialize = match text(keys.initialize()) {
        None => Initialize::Absent,
        Some((_, "")) => Initialize::Founding,
        Some((key, digits)) => {
            let number = digits.parse().map_err(|_| Unreadable {
                key,
                why: format!("{digits:?} is no system identifier"),
            })?;
            Initialize::Done(SystemId(number))
        }
    };
    let leader = text(keys.leader())
        .map(|(key, name)| node_name(&key, name))
        .transpose()?;
    let epoch = parse::<EpochRecord>(snapshot, &keys.epoch())?.map(|record| Leadership {
        epoch: record.epoch,
        leader: record.leader,
    });
    let sync = match parse::<SyncValue>(snapshot, &keys.sync())? {
        Some(value) => Some(
            SyncRecord::from_settings(value.standfast.settings).ok_or_else(|| Unreadable {
                key: keys.sync(),
                why: "it holds no setting".to_owned(),
            })?,
        ),
        None => None,
    };
    let lineage = match parse::<LineageRecord>(snapshot, &keys.lineage())? {
        Some(record) => Some(Published {
            epoch: record.epoch,
            lineage: Lineage::from_branches(record.branches).ok_or_else(|| Unreadable {
                key: keys.lineage(),
                why: "its branches do not rise".to_owned(),
            })?,
        }),
        None => None,
    };
    let failover = parse::<FailoverRecord>(snapshot, &keys.failover())?;
    let switchover = failover
        .filter(|order| order.scheduled_at.is_none())
        .filter(|order| order.leader.is_some() || order.member.is_some())
        .map(|order| Switchover {
            from: order.leader,
            to: order.member,
            accept_loss: order.accept_loss,
        });
    Ok(Cluster {
        initialize,
        epoch,
        leader,
        sync,
        lineage,
        members: under::<MemberRecord>(snapshot, &keys.members())?
            .into_iter()
            .map(|(name, record)| (name, member(record)))
            .collect(),
        nodes: under::<NodeEntry>(snapshot, &keys.nodes())?
            .into_iter()
            .filter(|(_, entry)| !entry.witness)
            .map(|(name, entry)| (name, (&entry).into()))
            .collect(),
        promises: under::<PromiseRecord>(snapshot, &keys.promises())?
            .into_iter()
            .map(|(name, record)| (name, Promise::from(record)))
            .collect(),
        switchover,
        leader_position: parse::<StatusRecord>(snapshot, &keys.status())?
            .unwrap_or_default()
            .optime,
        settings: settings(keys, snapshot)?,
    })
}

fn settings(keys: &Keys, snapshot: &Snapshot) -> Result<Settings, Unreadable> {
    let config = parse::<ConfigRecord>(snapshot, &keys.config())?.unwrap_or_default();
    config.settings().map_err(|bad| Unreadable {
        key: keys.config(),
        why: bad.to_string(),
    })
}

fn member(record: MemberRecord) -> Member {
    let extra = record.standfast;
    let foreign = || Some("its agent is not Standfast".to_owned());
    Member {
        host: extra
            .as_ref()
            .map(|extra| extra.host.clone())
            .unwrap_or_default(),
        port: extra.as_ref().map_or(0, |extra| extra.port),
        api_url: record.api_url,
        state: extra.as_ref().map_or(NodeState::Init, |extra| extra.state),
        position: record.xlog_location,
        timeline: record.timeline,
        unfit: extra.map_or_else(foreign, |extra| extra.unfit),
    }
}

fn node_name(key: &str, text: &str) -> Result<NodeName, Unreadable> {
    NodeName::new(text).map_err(|bad| Unreadable {
        key: key.to_owned(),
        why: bad.to_string(),
    })
}

fn parse<T: DeserializeOwned>(snapshot: &Snapshot, key: &str) -> Result<Option<T>, Unreadable> {
    let Some(text) = snapshot.value(key) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Unreadable {
            key: key.to_owned(),
            why: error.to_string(),
        })
}

fn under<T: DeserializeOwned>(
    snapshot: &Snapshot,
    prefix: &str,
) -> Result<BTreeMap<NodeName, T>, Unreadable> {
    let mut found = BTreeMap::new();
    for (key, entry) in snapshot.entries.range(prefix.to_owned()..) {
        let Some(rest) = key.strip_prefix(prefix) else {
            break;
        };
        let value = serde_json::from_str(&entry.value).map_err(|error| Unreadable {
            key: key.clone(),
            why: error.to_string(),
        })?;
        found.insert(node_name(key, rest)?, value);
    }
    Ok(found)
}
