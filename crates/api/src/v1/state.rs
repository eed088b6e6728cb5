//! `GET /api/v1/state`.

use super::lsn_text;
use ha::quorum::Setting;
use ha::{Epoch, Lsn, NodeName, NodeState, SyncMode, Timeline};
use serde::{Deserialize, Serialize};

/// The cluster as the answering node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The cluster's name.
    pub scope: String,
    /// Always `default`: what pg_auto_failover calls a formation is the cluster here.
    pub formation: String,
    /// PostgreSQL's system identifier, as text; absent before the cluster was founded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// The number of the present or last leadership; 0 before the first.
    pub epoch: Epoch,
    /// Who holds the leader key now.
    pub leader: Option<NodeName>,
    /// No automatic failover.
    pub paused: bool,
    /// How commits are protected.
    pub sync: Sync,
    /// The consensus store as the answering node sees it.
    pub store: StoreState,
    /// A planned change of leader that was ordered and is not done: `from` and `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<String>,
    /// Who answers, and in which version.
    pub answered_by: NodeName,
    pub version: String,
    /// All nodes that belong to the cluster, dead or alive, by their number.
    pub nodes: Vec<Node>,
    /// The proxies that are there, by their number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<Proxy>,
}

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Carried by the keys of its clients.
    pub number: u32,
    pub name: String,
    /// HOST:PORT under which other proxies reach it; absent where it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The newest leadership that it knows of: servers of older ones are shut out.
    pub epoch: Epoch,
}

/// The synchronous setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// What is configured.
    pub mode: SyncMode,
    pub strict: bool,
    /// What is in force, for people: `a with 1 of (b, c)`, `a alone`, `asynchronous`.
    pub text: String,
    /// The settings that a claim must satisfy; the last one is in force or being put in force. None: asynchronous.
    pub settings: Vec<Setting>,
}

/// The consensus store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// How long it has not answered this node; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// Who leads it; absent without a majority, or where it is not embedded.
    pub leader: Option<String>,
    /// The embedded store's members; empty where it is not embedded.
    pub voters: Vec<StoreVoter>,
    /// Committed transactions so far, as this node has seen.
    pub revision: u64,
}

/// A member of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreVoter {
    pub name: String,
    pub address: String,
    /// A learner otherwise.
    pub voter: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Counts from 1; 0 for a node that has not been registered.
    pub id: u64,
    pub name: NodeName,
    pub host: String,
    pub port: u16,
    /// Where its REST API answers.
    pub api_url: String,
    /// 0 while unknown, as of a dead node.
    pub timeline: Timeline,
    /// Flushed by a primary, received by a standby; `0/0` while unknown.
    #[serde(with = "lsn_text")]
    pub lsn: Lsn,
    /// `read-write`, `read-only` or `none`; followed by ` !` when the node's lease is gone.
    pub connection: String,
    /// What the node is, as it said last; a dead one is `demoted`.
    pub state: NodeState,
    /// What it is to become.
    pub assigned: NodeState,
    /// Its last decision in a sentence.
    pub reason: String,
    /// The stable name of the rule that decided.
    pub rule: String,
    /// Whether its lease in the store lives.
    pub alive: bool,
    /// 0: never leads.
    pub priority: u32,
    /// Whether its acknowledgement counts.
    pub quorum: bool,
    pub maintenance: bool,
    /// Ordered to leave the cluster.
    pub dropped: bool,
    /// Behind the leader's last beat; absent on the leader, on dead nodes and on monitors.
    pub lag_bytes: Option<u64>,
    /// A monitor: it votes in the store and has no Postgres.
    pub witness: bool,
    /// Why it can't lead at present, as it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    /// What a person should know of, a sentence each, as it said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// The server version number, such as 150018; 0 while unknown.
    pub server_version: u32,
}
