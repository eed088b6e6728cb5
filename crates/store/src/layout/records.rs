//! The values, as JSON.

use ha::quorum::{Setting, SyncRecord};
use ha::{
    Branch, Epoch, Lineage, Lsn, NodeName, NodeRecord, NodeState, Position, Promise, Timeline,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `standfast/epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    pub epoch: Epoch,
    pub leader: NodeName,
}

/// `standfast/lineage`: what the leader of `epoch` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRecord {
    pub epoch: Epoch,
    pub branches: Vec<Branch>,
}

impl LineageRecord {
    pub fn new(epoch: Epoch, lineage: &Lineage) -> Self {
        Self {
            epoch,
            branches: lineage.branches().to_vec(),
        }
    }
}

/// `standfast/promises/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseRecord {
    pub epoch: Epoch,
    pub last_epoch: Epoch,
    pub timeline: Timeline,
    pub lsn: Lsn,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    pub priority: u32,
}

impl From<&Promise> for PromiseRecord {
    fn from(promise: &Promise) -> Self {
        Self {
            epoch: promise.epoch,
            last_epoch: promise.position.epoch,
            timeline: promise.position.timeline,
            lsn: promise.position.lsn,
            unfit: promise.unfit.clone(),
            priority: promise.priority,
        }
    }
}

impl From<PromiseRecord> for Promise {
    fn from(record: PromiseRecord) -> Self {
        Self {
            epoch: record.epoch,
            position: Position {
                epoch: record.last_epoch,
                timeline: record.timeline,
                lsn: record.lsn,
            },
            unfit: record.unfit,
            priority: record.priority,
        }
    }
}

/// `sync`. Patroni's tools see the stricter reading of a joint record: the union of the standbys, and a quorum by
/// which no vote passes that we would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncValue {
    pub leader: Option<NodeName>,
    pub quorum: usize,
    pub sync_standby: Option<String>,
    /// Absent where Patroni wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standfast: Option<SyncSettings>,
}

/// Our reading of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    pub settings: Vec<Setting>,
}

impl From<&SyncRecord> for SyncValue {
    fn from(record: &SyncRecord) -> Self {
        let settings = record.settings();
        let alone = settings.iter().any(Setting::is_alone);
        let union: BTreeSet<&str> = settings
            .iter()
            .flat_map(|setting| setting.standbys.iter().map(NodeName::as_str))
            .collect();
        let fewest = settings
            .iter()
            .map(|setting| setting.needed)
            .min()
            .unwrap_or(0);
        let names = union.iter().copied().collect::<Vec<_>>().join(",");
        Self {
            leader: Some(record.newest().leader.clone()),
            quorum: if alone { 0 } else { union.len() - fewest },
            sync_standby: (!alone && !names.is_empty()).then_some(names),
            standfast: Some(SyncSettings {
                settings: settings.to_vec(),
            }),
        }
    }
}

/// The release of Patroni whose keys and values these are. Its members judge by a record's version what they may write
/// beside it: an older one would make them write the forms of its time.
pub const PATRONI_CONTRACT: &str = "4.1.5";

/// `members/<name>`: Patroni's fields, and ours in `standfast`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub conn_url: String,
    pub api_url: String,
    pub state: String,
    pub role: String,
    /// [`PATRONI_CONTRACT`] where it is one of ours.
    pub version: String,
    #[serde(default)]
    pub xlog_location: Lsn,
    /// A standby's two positions; Patroni's tools show them and count the lag from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lsn: Option<Lsn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lsn: Option<Lsn>,
    /// Absent where no Postgres runs.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub timeline: Timeline,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_state: Option<String>,
    /// The node knows that the cluster is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<serde_json::Value>,
    /// A changed parameter waits for a restart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending_restart: bool,
    /// Which ones, each with `old_value` and `new_value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_restart_reason: Option<serde_json::Value>,
    /// `schedule`, and the conditions that it was asked for with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_restart: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standfast: Option<MemberExtra>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
fn is_unknown(timeline: &Timeline) -> bool {
    *timeline == Timeline::default()
}

/// What Patroni has no field for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberExtra {
    pub host: String,
    pub port: u16,
    pub state: NodeState,
    pub assigned: NodeState,
    pub reason: String,
    pub rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    /// Why its Postgres does not stream from the leader, in Postgres's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_says: Option<String>,
    /// Of the agent's installation: two nodes with one name are told apart by it.
    pub identity: String,
    /// Server version number, such as 150018.
    #[serde(default)]
    pub server_version: u32,
}

/// `standfast/nodes/<name>`: what the cluster knows and wants of a node, alive or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub id: u64,
    pub host: String,
    pub port: u16,
    pub api_url: String,
    pub identity: String,
    pub priority: u32,
    pub quorum: bool,
    #[serde(default)]
    pub maintenance: bool,
    #[serde(default)]
    pub dropped: bool,
    /// A monitor: a voter without Postgres.
    #[serde(default)]
    pub witness: bool,
    /// Created, and its agent has not registered by itself yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_ran: bool,
}

impl From<&NodeEntry> for NodeRecord {
    fn from(entry: &NodeEntry) -> Self {
        Self {
            id: entry.id,
            priority: entry.priority,
            quorum: entry.quorum,
            maintenance: entry.maintenance,
            dropped: entry.dropped,
        }
    }
}

/// `status`: the leader's beat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRecord {
    #[serde(default)]
    pub optime: Lsn,
    /// From where on the leader keeps WAL for each permanent slot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, Lsn>,
}

/// `failover`: a planned change of leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
    /// Ours: a person accepts that commits are lost, where there is no leader.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}

/// `standfast/events/<n>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    pub n: u64,
    /// RFC 3339 with microseconds.
    pub time: String,
    pub node: NodeName,
    pub epoch: Epoch,
    pub state: NodeState,
    pub assigned: NodeState,
    pub rule: String,
    pub reason: String,
}
