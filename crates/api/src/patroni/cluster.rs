//! `GET /cluster`: the members as Patroni's tools list them.

use super::status::PrimaryAt;
use crate::office::{Office, SyncRole, follows_another, sync_role};
use ha::{Cluster, Epoch, Lsn, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::layout::{FailoverRecord, Keys};

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    members: Vec<MemberLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_switchover: Option<Scheduled>,
    scope: &'a str,
    /// Where the primary is, by the leader key.
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<PrimaryAt<'a>>,
    standfast: Ours,
}

/// What Patroni has no field for.
#[derive(Debug, Serialize)]
struct Ours {
    epoch: Epoch,
    /// For how long the store has not answered this node: all of this is what it said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_silent_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Scheduled {
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<NodeName>,
}

#[derive(Debug, Serialize)]
struct MemberLine {
    name: NodeName,
    role: &'static str,
    state: String,
    api_url: String,
    host: String,
    port: u16,
    /// Absent where no Postgres runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    pending_restart: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_restart_reason: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_restart: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Value>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    positions: Option<Positions>,
}

/// A standby's positions, each as text and as bytes behind the leader.
#[derive(Debug, Serialize)]
struct Positions {
    receive_lag: Lag,
    receive_lsn: String,
    replay_lag: Lag,
    replay_lsn: String,
    lag: Lag,
    lsn: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Lag {
    Bytes(u64),
    Unknown(&'static str),
}

/// What is read of `members/<name>`: ours and Patroni's own have these fields.
#[derive(Debug, Deserialize)]
struct Record {
    #[serde(default)]
    conn_url: String,
    #[serde(default)]
    api_url: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    xlog_location: Lsn,
    #[serde(default)]
    receive_lsn: Option<Lsn>,
    #[serde(default)]
    replay_lsn: Option<Lsn>,
    #[serde(default)]
    timeline: u32,
    #[serde(default)]
    replication_state: Option<String>,
    #[serde(default)]
    pending_restart: bool,
    #[serde(default)]
    pending_restart_reason: Option<Value>,
    #[serde(default)]
    scheduled_restart: Option<Value>,
    #[serde(default)]
    tags: Option<Value>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) fn document<'a>(keys: &Keys, office: &Office<'a>) -> Option<Document<'a>> {
    let cluster = office.cluster()?;
    let snapshot = &office.served.snapshot;
    let members = cluster.members.keys().filter_map(|name| {
        let text = snapshot.value(&keys.member(name))?;
        let record: Record = serde_json::from_str(text).ok()?;
        Some(line(cluster, name, record))
    });
    let order = snapshot
        .value(&keys.failover())
        .and_then(|text| serde_json::from_str::<FailoverRecord>(text).ok());
    let scheduled = order.and_then(|order| {
        Some(Scheduled {
            at: order.scheduled_at?,
            from: order.leader,
            to: order.member,
        })
    });
    Some(Document {
        members: members.collect(),
        pause: cluster.settings.paused.then_some(true),
        scheduled_switchover: scheduled,
        scope: &office.served.scope,
        primary: PrimaryAt::of(office),
        standfast: Ours {
            epoch: cluster.current_epoch(),
            store_silent_ms: office
                .silence()
                .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
        },
    })
}

fn line(cluster: &Cluster, name: &NodeName, record: Record) -> MemberLine {
    let leads = cluster.leader.as_ref() == Some(name);
    let role = match (leads, sync_role(cluster, name)) {
        (true, _) if follows_another(cluster) => "standby_leader",
        (true, _) => "leader",
        (false, SyncRole::Sync) => "sync_standby",
        (false, SyncRole::Quorum) => "quorum_standby",
        (false, SyncRole::Async | SyncRole::Unknown) => "replica",
    };
    let (host, port) = address(cluster, name, &record.conn_url);
    let tags = record
        .tags
        .filter(|tags| tags.as_object().is_some_and(|tags| !tags.is_empty()));
    let state = match record.replication_state {
        Some(state) if role != "leader" => state,
        Some(_) | None => record.state,
    };
    let positions = (!leads).then(|| {
        let newest = cluster.leader_position;
        let known = |lsn: Option<Lsn>| lsn.unwrap_or(record.xlog_location);
        let (receive, replay) = (known(record.receive_lsn), known(record.replay_lsn));
        let (receive_lag, receive_lsn) = behind(newest, receive);
        let (replay_lag, replay_lsn) = behind(newest, replay);
        let (lag, lsn) = behind(newest, record.xlog_location);
        Positions {
            receive_lag,
            receive_lsn,
            replay_lag,
            replay_lsn,
            lag,
            lsn,
        }
    });
    MemberLine {
        name: name.clone(),
        role,
        state,
        api_url: record.api_url,
        host,
        port,
        timeline: (record.timeline > 0).then_some(record.timeline),
        pending_restart: record.pending_restart,
        pending_restart_reason: record.pending_restart_reason,
        scheduled_restart: record.scheduled_restart,
        tags,
        positions,
    }
}

fn behind(newest: Lsn, lsn: Lsn) -> (Lag, String) {
    if lsn == Lsn::ZERO {
        return (Lag::Unknown("unknown"), "unknown".to_owned());
    }
    (Lag::Bytes(newest.bytes_since(lsn)), lsn.to_string())
}

/// Ours name it; Patroni's members have it in their connection URL only.
fn address(cluster: &Cluster, name: &NodeName, conn_url: &str) -> (String, u16) {
    if let Some(member) = cluster
        .members
        .get(name)
        .filter(|member| !member.host.is_empty())
    {
        return (member.host.clone(), member.port);
    }
    let rest = conn_url
        .split_once("://")
        .map_or(conn_url, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    match place.rsplit_once(':') {
        Some((host, port)) => (
            host.trim_matches(['[', ']']).to_owned(),
            port.parse().unwrap_or(5432),
        ),
        None => (place.to_owned(), 5432),
    }
}
