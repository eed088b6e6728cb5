//! What else can be asked.

use ha::quorum::Setting;
use ha::{Epoch, NodeName, NodeState, SyncMode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `GET /api/v1/explain`: may each node lead, and if not, why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    pub epoch: Epoch,
    pub leader: Option<NodeName>,
    /// Who would lead next if the leader went away now, or who wins the election under way.
    pub would_win: Option<NodeName>,
    /// The same in one sentence, with the reason where nobody would.
    pub summary: String,
    pub nodes: Vec<ExplainNode>,
}

/// One node of [`Explain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainNode {
    pub name: NodeName,
    pub may_lead: bool,
    /// One sentence with numbers.
    pub why: String,
    /// What must happen before it may; absent where nothing is missing, or only a person can help.
    pub waits_for: Option<String>,
}

/// `GET /api/v1/settings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The stored configuration as it is, Patroni's keys included.
    pub config: Map<String, Value>,
    /// What it means over the defaults.
    pub effective: Effective,
    /// How many standbys must acknowledge a commit now.
    pub number_sync_standbys: usize,
    pub synchronous_standby_names: String,
    pub nodes: Vec<NodeSetting>,
}

/// The settings in force. Times are seconds and may be fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effective {
    pub ttl: f64,
    pub beat: f64,
    pub loop_wait: f64,
    pub failure_timeout: f64,
    pub synchronous_mode: SyncMode,
    pub synchronous_mode_strict: bool,
    pub synchronous_node_count: usize,
    pub synchronous_relax_after: f64,
    pub maximum_lag_on_failover: u64,
    pub election_window: f64,
    pub primary_start_timeout: f64,
    pub hang_timeout: f64,
    pub pause: bool,
}

/// What is wanted of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSetting {
    pub id: u64,
    pub name: NodeName,
    pub priority: u32,
    pub quorum: bool,
    pub maintenance: bool,
}

/// `GET /api/v1/standby-names`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyNames {
    /// As in `synchronous_standby_names`: `ANY 1 (b, c)`; empty when the leader acknowledges alone.
    pub standby_names: String,
    /// The setting that it stands for; absent in asynchronous mode.
    pub setting: Option<Setting>,
    /// Whether nothing is changing.
    pub settled: bool,
}

/// `GET /api/v1/uri`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uri {
    /// Always `default`.
    pub formation: String,
    /// For libpq: all nodes with Postgres, by their number; the primary is found by it.
    pub uri: String,
    pub monitors: Vec<Monitor>,
}

/// Where a monitor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    pub name: NodeName,
    pub url: String,
}

/// `GET /api/v1/decision`: the answering node's last decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub node: NodeName,
    pub state: NodeState,
    pub assigned: NodeState,
    pub rule: String,
    pub reason: String,
    /// What it did about it, in order.
    pub actions: Vec<Value>,
    /// How long ago it was made.
    pub age_ms: u64,
}
