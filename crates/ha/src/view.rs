//! What the world said: the cluster as the store has it, and the node as it found itself.

use crate::failsafe::Hold;
use crate::lineage::{Lineage, Position};
use crate::quorum::{Applied, SyncRecord};
use crate::settings::Settings;
use crate::state::NodeState;
use crate::types::{Epoch, Instant, Lsn, NodeName, SystemId, Timeline};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The cluster as this node last knew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterView {
    /// The store has not answered since then. What it said before no longer permits anything.
    Silent {
        since: Instant,
    },
    Known(Box<Cluster>),
}

/// The store's content, typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub initialize: Initialize,
    /// The last leadership that was claimed, whether it still holds or not.
    pub epoch: Option<Leadership>,
    /// Who holds the leader key now.
    pub leader: Option<NodeName>,
    /// Absent: asynchronous.
    pub sync: Option<SyncRecord>,
    /// What the leader of this epoch published after its promotion.
    pub lineage: Option<Published>,
    /// Nodes with a live lease.
    pub members: BTreeMap<NodeName, Member>,
    /// Nodes that belong to the cluster, alive or not.
    pub nodes: BTreeMap<NodeName, NodeRecord>,
    pub promises: BTreeMap<NodeName, Promise>,
    pub switchover: Option<Switchover>,
    /// The leader's position when it last beat.
    pub leader_position: Lsn,
    pub settings: Settings,
    /// Where the members are that a leader asks when it has lost the store; absent: it asks nobody.
    #[serde(default)]
    pub failsafe: Option<BTreeMap<NodeName, String>>,
    /// What agents of Patroni have written into the same store.
    #[serde(default)]
    pub foreign: Foreign,
}

/// Traces of Patroni's agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Members with a live lease whose agent is Patroni's.
    pub members: BTreeSet<NodeName>,
    /// Those of them that may not lead, by their own tags.
    #[serde(default)]
    pub unwilling: BTreeSet<NodeName>,
    /// `sync` is theirs.
    pub sync: bool,
    /// The newest timeline of which `history` says that it ended.
    pub ended: Option<Timeline>,
    /// The leader key is theirs.
    #[serde(default)]
    pub leads: bool,
    /// The newest epoch was recorded on behalf of a leader of theirs: of the present one, if it is theirs.
    #[serde(default)]
    pub recorded: bool,
}

impl Cluster {
    /// The current epoch; [`Epoch::NONE`] before the first claim.
    pub fn current_epoch(&self) -> Epoch {
        self.epoch
            .as_ref()
            .map_or(Epoch::NONE, |leadership| leadership.epoch)
    }

    /// The leader's lineage, if the present leader has published it.
    pub fn published_lineage(&self) -> Option<&Lineage> {
        let published = self.lineage.as_ref()?;
        (published.epoch == self.current_epoch()).then_some(&published.lineage)
    }

    /// Whether the present epoch is a standby leader's.
    pub fn led_by_standby(&self) -> bool {
        self.epoch.as_ref().is_some_and(|it| it.standby)
    }

    /// Promises made against the current epoch. Under a leader of Patroni's only those of agents that live: where
    /// Patroni has taken a node over meanwhile, nobody keeps what was promised.
    pub fn live_promises(&self) -> BTreeMap<&NodeName, &Promise> {
        let epoch = self.current_epoch();
        let kept = |name: &NodeName| {
            let ours = self.members.contains_key(name) && !self.foreign.members.contains(name);
            ours || !self.foreign.recorded
        };
        self.promises
            .iter()
            .filter(|(name, promise)| promise.epoch == epoch && kept(name))
            .collect()
    }

    pub fn node(&self, name: &NodeName) -> NodeRecord {
        self.nodes.get(name).cloned().unwrap_or_default()
    }
}

/// The store's `initialize` key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Initialize {
    #[default]
    Absent,
    /// Somebody is creating the first data directory.
    Founding,
    Done(SystemId),
}

/// Who claimed which epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    pub epoch: Epoch,
    pub leader: NodeName,
    /// It was claimed to lead a standby cluster: nobody is promoted in it.
    #[serde(default)]
    pub standby: bool,
}

/// The lineage that the leader of `epoch` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub epoch: Epoch,
    /// Whose epoch it is; what an older version has written does not say.
    #[serde(default)]
    pub leader: Option<NodeName>,
    pub lineage: Lineage,
}

/// What a live node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub host: String,
    pub port: u16,
    pub api_url: String,
    pub state: NodeState,
    pub position: Lsn,
    pub timeline: Timeline,
    /// Why this node can't lead at present, if so: its storage fails, it is cloning, …
    pub unfit: Option<String>,
    #[serde(default)]
    pub ties: Ties,
}

/// How a member stands to the other standbys, by its tags and by what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ties {
    /// The standby that it streams from while that serves, instead of the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<NodeName>,
    /// As a proven standby of the leader of this epoch it lets others take WAL from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves: Option<Epoch>,
    /// Whether base backups may be made of it instead of the leader.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub clonefrom: bool,
    /// It takes WAL from the archive alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nostream: bool,
    /// Where commits wait for a fixed number of standbys, those with the highest are chosen.
    pub sync_priority: u32,
}

impl Default for Ties {
    fn default() -> Self {
        Self {
            source: None,
            serves: None,
            clonefrom: false,
            nostream: false,
            sync_priority: 1,
        }
    }
}

/// What the cluster wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Small number shown to people; counts from 1.
    pub id: u64,
    /// 0: never leads. Among equally advanced candidates the highest wins.
    pub priority: u32,
    /// Whether its acknowledgement counts.
    pub quorum: bool,
    pub maintenance: bool,
    pub dropped: bool,
}

impl Default for NodeRecord {
    fn default() -> Self {
        Self {
            id: 0,
            priority: 50,
            quorum: true,
            maintenance: false,
            dropped: false,
        }
    }
}

/// "No commit of `epoch` can be acknowledged through me any more, and this is what I have."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub epoch: Epoch,
    pub position: Position,
    /// Why the node would not lead itself, though its promise counts.
    pub unfit: Option<String>,
    pub priority: u32,
}

/// A planned change of leader, as asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// The leader that is meant; another one ignores the request.
    pub from: Option<NodeName>,
    pub to: Option<NodeName>,
    /// A person has said: without a leader `to` shall lead, even if commits are lost by it.
    #[serde(default)]
    pub accept_loss: bool,
}

/// The node as it found itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: NodeName,
    pub data: DataDir,
    pub postgres: Postgres,
    /// The durable note.
    pub lineage: Option<Lineage>,
    /// Held since a claim or a renewal was acknowledged.
    pub lease: Option<Lease>,
    /// This node's word to a leader that has lost the store.
    #[serde(default)]
    pub held: Option<Hold>,
    pub job: Option<Job>,
    /// The last signs of the leader's life.
    pub contact: Contact,
    /// What Postgres was proven to use for synchronous commits.
    pub applied: Option<Applied>,
    pub storage: Storage,
    /// Whether this agent has seen its node's record: one that is gone since then was taken away.
    #[serde(default)]
    pub registered: bool,
    /// When my promise of the current epoch was acknowledged.
    pub promised_at: Option<Instant>,
    /// Down, and it stopped cleanly as a primary: whoever streamed from it has everything.
    #[serde(default)]
    pub clean_stop: bool,
    /// Where its WAL ends then, read from its files; `None` where only a start can tell.
    #[serde(default)]
    pub on_disk: Option<Lsn>,
    /// Why no new cluster may be made of the data directory, unless a person says so.
    #[serde(default)]
    pub may_not_found: Option<String>,
    /// When the instance was first found down, and how often it failed to start since.
    pub down_since: Option<Instant>,
    pub start_failures: u32,
    /// Why streaming from the leader can't work, as Postgres said.
    pub stream_broken: Option<StreamBroken>,
    /// What Postgres says of a stream that has not come about for a while, for people.
    #[serde(default)]
    pub stream_says: Option<String>,
    /// The directory was rewound, and Postgres has not opened on it since: it can't without WAL of the very leader that
    /// it was rewound to, whose lineage the note is.
    #[serde(default)]
    pub rewound: bool,
    /// What a person has asked of this node alone, and is not done.
    #[serde(default)]
    pub errand: Option<Errand>,
    /// The standby that it shall stream from while that serves, instead of the leader.
    #[serde(default)]
    pub source: Option<NodeName>,
    /// It shall take WAL from the archive alone.
    #[serde(default)]
    pub nostream: bool,
    /// Why the machine's watchdog device does not watch this node, where it must for the node to lead.
    #[serde(default)]
    pub unwatched: Option<String>,
    /// Why this node is not to be promoted for a while: the user's own program has refused it.
    #[serde(default)]
    pub barred: Option<String>,
}

/// What a person asks of one node's instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Stop cleanly, to be started again. A leader keeps its leadership.
    Restart,
    /// The same; it has stopped, or had stopped already.
    Restarting,
    /// Throw the data directory away and make a new base backup of the leader.
    Reinitialize,
}

impl Errand {
    /// What is left of it, with the instance found like this. A reinitialization ends with its base backup.
    #[must_use]
    pub fn left(self, postgres: &Postgres) -> Option<Self> {
        match (self, postgres) {
            (Self::Restart, Postgres::Down { .. }) => Some(Self::Restarting),
            (Self::Restarting, Postgres::Standby(standby)) if standby.open => None,
            (Self::Restarting, Postgres::Primary(primary)) if primary.open => None,
            (errand, _) => Some(errand),
        }
    }
}

/// The right to be primary, until `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub epoch: Epoch,
    pub deadline: Instant,
    /// The members hold still: the leader key may be gone, and will be taken again.
    #[serde(default)]
    pub by_members: bool,
}

/// The data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataDir {
    Empty,
    Ready(SystemId),
    /// A base backup or rewind was cut off.
    Unfinished,
    /// Not ours to touch; the text says why and what to do.
    Unusable(String),
}

/// The instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Postgres {
    /// No postmaster. `leftovers` processes of it still live, and may still write.
    Down {
        leftovers: usize,
    },
    /// The postmaster runs and does not take connections yet.
    Starting,
    Standby(Standby),
    Primary(Primary),
    /// Runs, but has not answered since then.
    Unresponsive {
        since: Instant,
    },
}

/// In recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// Whom it is told to stream from. None: parked, detached by proof, or a standby leader.
    pub upstream: Option<NodeName>,
    /// What it is told to follow of another cluster.
    #[serde(default)]
    pub remote: Option<crate::settings::Remote>,
    /// Of the last record that it has replayed; 0: not known.
    #[serde(default)]
    pub timeline: Timeline,
    pub streaming: bool,
    /// Flushed, by the WAL receiver or replay, whichever is further.
    pub received: Lsn,
    pub replayed: Lsn,
    /// Whether `received` is proven to be the end of its WAL: detached after streaming, or parked and seen waiting.
    pub end_known: bool,
    pub open: bool,
    /// Why replay goes on only after a restart, if so: it has less of something than its primary.
    #[serde(default)]
    pub starved: Option<String>,
}

impl Standby {
    /// Whether WAL comes in, or may.
    pub fn is_fed(&self) -> bool {
        self.upstream.is_some() || self.remote.is_some() || self.streaming
    }
}

/// Out of recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primary {
    pub timeline: Timeline,
    pub flushed: Lsn,
    pub standbys: BTreeMap<NodeName, Walsender>,
    /// Whether clients are let in.
    pub open: bool,
}

/// A standby as its primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walsender {
    pub streaming: bool,
    pub flushed: Lsn,
    /// The last time it was seen streaming.
    pub seen: Instant,
}

/// Work that was started and is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    Bootstrap,
    Clone,
    Rewind,
    Park,
    Stop,
    Drain,
    Detach,
    Follow,
    Promote,
    Apply,
    Other,
}

/// When each sign of the leader's life was last seen; `None` is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Of whom.
    pub epoch: Epoch,
    /// Since when this leader is watched: it is not suspected before it had the chance to be seen.
    pub since: Instant,
    pub beat: Option<Instant>,
    pub probe: Option<Instant>,
    pub wal: Option<Instant>,
}

impl Contact {
    /// The newest sign of life.
    pub fn newest(&self) -> Instant {
        [self.beat, self.probe, self.wal]
            .into_iter()
            .flatten()
            .fold(self.since, Instant::max)
    }
}

/// The data directory's disk, as a write probe found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    #[default]
    Healthy,
    Failing {
        since: Instant,
        why: String,
    },
}

/// What the WAL receiver was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamBroken {
    /// The upstream no longer has the WAL.
    WalRemoved,
    /// The timelines do not fit.
    Diverged,
}
