//! What a member is started with.

use crate::peer::tls::Tls;
use crate::secret::Secret;
use ha::NodeName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How a member with an empty directory comes to its cluster. A directory that knows one needs none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Begins a cluster with itself as the only voter.
    Found,
    /// A fixed list of voters, this member among them, with their addresses. They begin a cluster when
    /// every one of them answers and none knows one; if any does, this member joins it.
    Members(BTreeMap<NodeName, String>),
    /// Asks at these addresses to be let in, until it is.
    Join(Vec<String>),
}

/// How patient a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often the Raft leader is heard of when nothing else is to be said.
    pub heartbeat: Duration,
    /// After so long a silence another leader is elected: a random time between the two.
    pub election_timeout: (Duration, Duration),
    /// How long any call may take.
    pub request_timeout: Duration,
    /// How long connecting and proving oneself may take.
    pub handshake_timeout: Duration,
    /// A voter that is silent for so long gives its vote to a learner, if there is one.
    pub dead_voter_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(180),
            election_timeout: (Duration::from_millis(450), Duration::from_millis(700)),
            request_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
            dead_voter_grace: Duration::from_secs(60),
        }
    }
}

/// Everything a [`crate::RaftStore`] wants to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its own directory, created if it is not there. One process uses it at a time.
    pub directory: PathBuf,
    /// All members say the same name, and are told apart from other clusters by it.
    pub cluster: String,
    pub name: NodeName,
    /// Where the other members reach this one: `host:port`.
    pub address: String,
    pub secret: Secret,
    pub start: Start,
    pub timing: Timing,
    /// A snapshot replaces the log after so many entries; until then each is in memory, some 2 kB.
    pub snapshot_every: u64,
    /// Certificates for the connections between members; `None`: they are authenticated, not encrypted.
    pub tls: Option<Tls>,
}

impl Options {
    pub fn new(
        directory: impl Into<PathBuf>,
        cluster: impl Into<String>,
        name: NodeName,
        address: impl Into<String>,
        secret: Secret,
        start: Start,
    ) -> Self {
        Self {
            directory: directory.into(),
            cluster: cluster.into(),
            name,
            address: address.into(),
            secret,
            start,
            timing: Timing::default(),
            snapshot_every: 500,
            tls: None,
        }
    }

    pub(crate) fn raft_config(&self) -> openraft::Config {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
        // openraft ticks, and so beats, every one and a half intervals.
        let heartbeat = (millis(self.timing.heartbeat) * 2 / 3).max(1);
        // Its followers wait for the longest election timeout (the leader's lease) and then for a random one.
        let (least, most) = self.timing.election_timeout;
        let lease = (millis(most) / 2).max(heartbeat * 2 + 2);
        let after = millis(least)
            .saturating_sub(lease)
            .clamp(heartbeat + 1, lease - 1);
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: heartbeat,
            election_timeout_min: after,
            election_timeout_max: lease,
            install_snapshot_timeout: 5000,
            max_payload_entries: 256,
            replication_lag_threshold: self.snapshot_every * 2,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            snapshot_max_chunk_size: 256 << 10,
            max_in_snapshot_log_to_keep: self.snapshot_every / 4,
            purge_batch_size: 64,
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timing_gives_a_legal_configuration() {
        for heartbeat in [1, 50, 120, 1000, 5000] {
            for (least, most) in [(1, 2), (450, 700), (400, 800), (1000, 1000), (100, 9000)] {
                let name = NodeName::new("a").expect("plain");
                let secret = Secret::new(&[7; 32]).expect("long enough");
                let mut options = Options::new("/x", "c", name, "x:1", secret, Start::Found);
                let ms = Duration::from_millis;
                options.timing.heartbeat = ms(heartbeat);
                options.timing.election_timeout = (ms(least), ms(most));
                options.raft_config().validate().expect("legal");
            }
        }
    }
}
