//! What can be ordered, and what became of it.

use ha::{Epoch, NodeName};
use serde::{Deserialize, Serialize};
use store::layout::EventRecord;

/// `POST /api/v1/perform`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perform {
    pub action: Action,
    /// Who shall lead; the best candidate otherwise. A promotion needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeName>,
    /// How long to wait for the outcome, in seconds; 60 unless said, 3600 at most. An order that is not taken up in
    /// that time is withdrawn. With 0 it stands, and the answer comes at once as [`super::Code::TimedOut`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    /// Refuse unless the cluster is in this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Without a leader: `to` shall lead even if acknowledged commits are lost by it. Refused while there is a leader.
    /// Left out where it is false: a member of an older version does not know it and must not stumble over it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}

/// Which planned change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// From the present leader to a healthy standby; needs a leader.
    Switchover,
    /// The same, and allowed without a leader too: who is named goes first among equals.
    Failover,
    /// To the node that is named. Nothing is done where it leads already.
    Promotion,
}

/// What became of a [`Perform`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub outcome: OutcomeKind,
    /// Who leads now.
    pub leader: NodeName,
    pub epoch: Epoch,
    /// One sentence.
    pub message: String,
    /// How long it took.
    pub took_ms: u64,
    /// What happened meanwhile, oldest first.
    pub events: Vec<EventRecord>,
}

/// How a [`Perform`] ended. Those that failed are [`super::Error`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    Done,
    /// Another node than the one asked for leads now.
    DoneInstead,
    /// The node led already.
    AlreadyLeads,
}

/// `POST /api/v1/nodes/{name}/maintenance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    pub enabled: bool,
}

/// `POST /api/v1/nodes/{name}`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// 0 to 100; 0 never leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Whether its acknowledgement counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<bool>,
}

/// `DELETE /api/v1/nodes/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub name: NodeName,
    /// Its records are gone; otherwise it is ordered to leave and does so when its agent sees it.
    pub removed: bool,
    /// One sentence.
    pub message: String,
}

/// `POST /api/v1/register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// `node_<id>` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
    pub host: String,
    pub port: u16,
    pub api_url: String,
    /// Of the agent's installation: the same one may register again, another one may not take its name.
    pub identity: String,
    /// 50 for a new node unless given; kept for a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// True for a new node unless given; kept for a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<bool>,
    /// A monitor.
    #[serde(default)]
    pub witness: bool,
    /// Asked by `create`, before the agent runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
}

/// The answer to [`Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub id: u64,
    pub name: NodeName,
    pub scope: String,
    /// Whether this identity was known already.
    pub known: bool,
}
