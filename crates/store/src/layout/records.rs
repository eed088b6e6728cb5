//! The values, as JSON.

use crate::Revision;
use ha::quorum::{Setting, SyncRecord};
use ha::{
    BadNodeName, Branch, Epoch, Lineage, Lsn, NodeName, NodeRecord, NodeState, Position, Promise,
    SystemId, Ties, Timeline,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `standfast/epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    pub epoch: Epoch,
    pub leader: NodeName,
    /// Ours have recorded it on behalf of a leader of Patroni's, which knows no epochs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub patroni: bool,
    /// It leads a standby cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standby: bool,
}

impl EpochRecord {
    /// Of a leader of ours.
    pub fn new(epoch: Epoch, leader: NodeName) -> Self {
        Self {
            epoch,
            leader,
            patroni: false,
            standby: false,
        }
    }
}

/// `standfast/lineage`: what the leader of `epoch` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRecord {
    pub epoch: Epoch,
    /// Whose epoch it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeName>,
    pub branches: Vec<Branch>,
}

impl LineageRecord {
    pub fn new(epoch: Epoch, leader: NodeName, lineage: &Lineage) -> Self {
        Self {
            epoch,
            leader: Some(leader),
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

/// `sync`. Patroni's agents and tools see the stricter reading of a joint record ([`SyncRecord::named_to_patroni`]).
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

impl SyncValue {
    /// The same beside nodes of Patroni's, which are not named to its tools: whom Patroni's agents read there, they let
    /// lead, whatever the quorum. The quorum stays what it is without them.
    pub fn beside(record: &SyncRecord, guests: &BTreeSet<NodeName>) -> Self {
        let mut value = Self::from(record);
        let names = value.sync_standby.take().unwrap_or_default();
        let kept = names
            .split(',')
            .filter(|name| !name.is_empty() && guests.iter().all(|guest| guest.as_str() != *name));
        let kept = kept.collect::<Vec<_>>().join(",");
        value.sync_standby = (!kept.is_empty()).then_some(kept);
        value
    }

    /// The setting that Patroni's form of the value means: each of its names has every commit, or in quorum mode each
    /// commit is at all of them but `quorum`. None where no leader is named: nothing waits.
    ///
    /// # Errors
    /// A name that is none of a node.
    pub fn of_patroni(&self) -> Result<Option<SyncRecord>, BadNodeName> {
        let Some(leader) = self.leader.clone() else {
            return Ok(None);
        };
        let names = self.sync_standby.as_deref().unwrap_or_default().split(',');
        let standbys = names
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(NodeName::new)
            .collect::<Result<BTreeSet<_>, _>>()?;
        let needed = standbys.len().saturating_sub(self.quorum);
        Ok(Some(SyncRecord::of(Setting {
            leader,
            standbys,
            needed,
        })))
    }
}

impl From<&SyncRecord> for SyncValue {
    fn from(record: &SyncRecord) -> Self {
        let (names, quorum) = record.named_to_patroni();
        let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
        Self {
            leader: Some(record.newest().leader.clone()),
            quorum,
            sync_standby: (!names.is_empty()).then(|| names.join(",")),
            standfast: Some(SyncSettings {
                settings: record.settings().to_vec(),
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
    /// Of what stands before this node's Postgres, a pooler say, if the user has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
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
    /// False from a promotion until its checkpoint has ended: before, pg_rewind would see the old timeline there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_after_promote: Option<bool>,
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
    /// What a person should know of, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// Of the agent's installation: two nodes with one name are told apart by it.
    pub identity: String,
    /// Server version number, such as 150018.
    #[serde(default)]
    pub server_version: u32,
    /// Whom it streams from and who may stream from it.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub ties: Ties,
    /// Told while the store has no configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembers: Option<LastConfig>,
}

/// The cluster's configuration as a node read it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastConfig {
    pub system: SystemId,
    /// When `initialize` was made in the store that this was read from: revisions of one that began anew are others.
    pub since: Revision,
    pub modified: Revision,
    /// As it stood there.
    pub config: String,
}

fn is_plain(ties: &Ties) -> bool {
    *ties == Ties::default()
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
    /// The priority is the node's own tag's: without the tag it is the usual one again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub priority_by_tag: bool,
    /// So is its being in the quorum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quorum_by_tag: bool,
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

impl FailoverRecord {
    /// As Patroni's agents read it: JSON, or `LEADER:MEMBER` with either left out. An order that can't be read is none.
    pub fn read(text: &str) -> Option<Self> {
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
            return serde_json::from_value(value).ok();
        }
        let (leader, member) = text.split_once(':').unwrap_or((text, ""));
        let name = |text: &str| match text.trim() {
            "" => Ok(None),
            name => NodeName::new(name).map(Some),
        };
        Some(Self {
            leader: name(leader).ok()?,
            member: name(member).ok()?,
            ..Self::default()
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).expect("a plain name")
    }

    fn setting(leader: &str, standbys: &[&str], needed: usize) -> Setting {
        Setting {
            leader: name(leader),
            standbys: standbys.iter().map(|it| name(it)).collect(),
            needed,
        }
    }

    #[test]
    fn patronis_form_is_a_setting() {
        let check = |text: &str, expected: Option<Setting>| {
            let value: SyncValue = serde_json::from_str(text).expect("a value");
            let read = value.of_patroni().expect("plain names");
            assert_eq!(read, expected.map(SyncRecord::of), "{text}");
        };
        let all = r#"{"leader":"a","quorum":0,"sync_standby":"b,c"}"#;
        check(all, Some(setting("a", &["b", "c"], 2)));
        let quorum = r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#;
        check(quorum, Some(setting("a", &["b", "c"], 1)));
        let alone = r#"{"leader":"a","quorum":0,"sync_standby":null}"#;
        check(alone, Some(setting("a", &[], 0)));
        let off = r#"{"leader":null,"quorum":0,"sync_standby":null}"#;
        check(off, None);
    }

    #[test]
    fn patronis_nodes_are_not_named_to_patroni() {
        let record = SyncRecord::of(setting("p", &["b", "c", "g"], 2));
        let open = SyncValue::from(&record);
        assert_eq!(open.sync_standby.as_deref(), Some("b,c,g"));
        let beside = SyncValue::beside(&record, &[name("g")].into());
        assert_eq!(beside.sync_standby.as_deref(), Some("b,c"));
        // No vote passes that did not before.
        assert_eq!(beside.quorum, open.quorum);
        assert_eq!(beside.standfast, open.standfast);
    }
}
