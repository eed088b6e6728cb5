//! The numbers and modes that the whole cluster shares.

use crate::types::Instant;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How commits are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// Asynchronous: a failover may lose the newest commits.
    Off,
    /// A fixed number of named standbys must all acknowledge.
    On,
    /// Any `node_count` of all healthy standbys must acknowledge.
    #[default]
    Quorum,
}

/// Cluster-wide settings, from the store's `config` with our defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Time to live of the leader lease.
    pub ttl: Duration,
    /// How often the leader renews its lease and beats.
    pub beat: Duration,
    /// The longest time between two decisions.
    pub loop_wait: Duration,
    /// Silence of all signs of life after which the leader is suspected.
    pub failure_timeout: Duration,
    pub sync_mode: SyncMode,
    /// Rather block commits than acknowledge without a standby.
    pub sync_strict: bool,
    pub sync_node_count: usize,
    /// How long commits may wait for a lost standby before the leader goes on without it.
    pub sync_relax_after: Duration,
    /// [`SyncMode::On`]: a chosen standby whose flush is further behind than this, in bytes, gives way to another one.
    #[serde(default)]
    pub sync_lag_max: Option<u64>,
    /// Asynchronous mode: a candidate further behind than this is not promoted, in bytes.
    pub lag_bytes_max: u64,
    /// Asynchronous mode: how long a claimant waits for the promises of others.
    pub election_window: Duration,
    /// How long a crashed primary may take to come back where nobody can take over.
    pub primary_start_timeout: Duration,
    /// How long Postgres may not answer before it is taken for hung. A busy machine is no hung Postgres.
    pub hang_timeout: Duration,
    /// No automatic failover, start or stop.
    pub paused: bool,
    /// A leader that has lost the store asks the members to hold still.
    #[serde(default)]
    pub failsafe: bool,
    /// This is a standby cluster: it follows another one's primary and has none of its own.
    #[serde(default)]
    pub remote: Option<Remote>,
}

/// What a standby cluster follows: `standby_cluster` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// One host, or several by commas. None: WAL comes from the archive alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// One port, or as many as hosts, by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The slot on the remote that the standby leader streams by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_cleanup_command: Option<String>,
    /// As PostgreSQL writes a time span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_delay: Option<String>,
    /// The ways to make the first copy, in order; empty: `pg_basebackup`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
}

impl Remote {
    /// Where its WAL comes from, for people.
    pub fn place(&self) -> String {
        match (&self.host, &self.port) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.clone(),
            (None, _) => "the archive".to_owned(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(3),
            beat: Duration::from_millis(250),
            loop_wait: Duration::from_secs(1),
            failure_timeout: Duration::from_secs(1),
            sync_mode: SyncMode::Quorum,
            sync_strict: false,
            sync_node_count: 1,
            sync_relax_after: Duration::from_secs(2),
            sync_lag_max: None,
            lag_bytes_max: 1 << 20,
            election_window: Duration::from_millis(300),
            primary_start_timeout: Duration::from_secs(60),
            hang_timeout: Duration::from_secs(3),
            paused: false,
            failsafe: false,
            remote: None,
        }
    }
}

impl Settings {
    /// The bound on how far two machines' clocks drift apart, in parts of a hundred.
    pub const DRIFT_PERCENT: u32 = 1;
    /// The time in which a kill makes acknowledgements impossible; measured at 9–20 ms, budgeted amply.
    pub const KILL_BUDGET: Duration = Duration::from_millis(150);

    /// When the holder must be dead, if the last acknowledged renewal was *sent* at `sent`:
    /// D = sent + ttl·(1 − 2ρ) − δ, with drift ρ and kill budget δ. The store began to count at `sent` or later.
    pub fn deadline(&self, sent: Instant) -> Instant {
        let drift = self.ttl * (2 * Self::DRIFT_PERCENT) / 100;
        sent.plus(
            self.ttl
                .saturating_sub(drift)
                .saturating_sub(Self::KILL_BUDGET),
        )
    }
}
