//! What the agent publishes after each decision. All reads are answered from it.

use ha::{Cluster, Decision, Instant, NodeName, NodeView, SystemId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use store::Snapshot;

/// The node's own picture of itself and of the cluster, at one moment.
///
/// To be published after each decision and after each renewal of the lease: `/primary` believes the deadline in
/// [`NodeView::lease`], and an old one reads as "the lease is over".
#[derive(Clone, Debug)]
pub struct Served {
    pub scope: String,
    pub name: NodeName,
    /// A monitor: it has no Postgres.
    pub witness: bool,
    /// Of this program, as `major.minor.patch`.
    pub version: String,
    /// The last known content of the store, also while the store is silent; `None` before the first contact.
    pub cluster: Option<Cluster>,
    /// The keys that `cluster` was read from.
    pub snapshot: Arc<Snapshot>,
    /// `None` until the node has looked at itself, and always on a monitor.
    pub me: Option<NodeView>,
    pub decision: Option<Decision>,
    /// The server version number, such as 150018; 0 while unknown.
    pub server_version: u32,
    /// As Postgres prints it with microseconds: `2026-11-21 23:48:12.131542+00:00`.
    pub postmaster_start_time: Option<String>,
    pub system_id: Option<SystemId>,
    /// How long the store had been silent when this was published; `None` while it answers.
    pub store_silent_for: Option<Duration>,
    /// When this was published, on CLOCK_BOOTTIME.
    pub loop_at: Instant,
    /// `pg_stat_replication` of a primary.
    pub replication: Vec<ReplicationRow>,
    /// `pg_last_xact_replay_timestamp` of a standby.
    pub replayed_timestamp: Option<String>,
    /// Whether replay is paused.
    pub replay_paused: bool,
    /// Whether a new cluster begins with what a program restores.
    pub restores: bool,
    /// Whether WAL may come from an archive.
    pub has_archive: bool,
    /// Patroni's tags: `noloadbalance`, `nofailover` and a user's own.
    pub tags: Map<String, Value>,
    /// Whether a changed parameter waits for a restart.
    pub pending_restart: bool,
    /// Which ones, each with `old_value` and `new_value`.
    pub pending_restart_reason: Option<Value>,
    /// The restart that was asked for later, as Patroni shows it.
    pub scheduled_restart: Option<Value>,
    /// The watchdog device should be armed and can't be.
    pub watchdog_failed: bool,
    /// What a person should know of, a sentence each.
    pub troubles: Vec<String>,
    /// The database that connection strings name.
    pub database: String,
    /// What else the agent counts, shown in `/metrics`.
    pub metrics: Vec<Metric>,
}

impl Served {
    /// What there is to say before anything was seen.
    pub fn new(scope: impl Into<String>, name: NodeName) -> Self {
        Self {
            scope: scope.into(),
            name,
            witness: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: None,
            snapshot: Arc::default(),
            me: None,
            decision: None,
            server_version: 0,
            postmaster_start_time: None,
            system_id: None,
            store_silent_for: None,
            loop_at: Instant::default(),
            replication: Vec::new(),
            replayed_timestamp: None,
            replay_paused: false,
            restores: false,
            has_archive: false,
            tags: Map::new(),
            pending_restart: false,
            pending_restart_reason: None,
            scheduled_restart: None,
            watchdog_failed: false,
            troubles: Vec::new(),
            database: "postgres".to_owned(),
            metrics: Vec::new(),
        }
    }
}

/// A row of `pg_stat_replication`, as Patroni's status document shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationRow {
    pub usename: String,
    pub application_name: String,
    pub client_addr: Option<String>,
    pub state: String,
    pub sync_state: String,
    pub sync_priority: i32,
}

/// A figure of the agent's own, with all its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Such as `standfast_failovers_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricKind,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// One line of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// `_bucket`, `_sum` or `_count` of a histogram, else empty.
    pub suffix: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}
