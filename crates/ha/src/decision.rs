//! What to do, and why.

use crate::lineage::Lineage;
use crate::quorum::{Setting, SyncRecord};
use crate::settings::Remote;
use crate::state::NodeState;
use crate::types::{Epoch, NodeName};
use crate::view::Promise;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The whole answer to one view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// In this order. The list may be cut off anywhere: the next decision looks again.
    pub actions: Vec<Action>,
    /// One sentence for the log, the command line, REST and the page.
    pub reason: String,
    /// What the node is now.
    pub state: NodeState,
    /// What the decision wants the node to become.
    pub assigned: NodeState,
    /// The rule that decided, a stable name for events and tests.
    pub rule: &'static str,
}

/// What the shell does for us. Store actions are transactions guarded by the very snapshot that was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Store: take the leader key and epoch 1 and begin to found the cluster.
    /// Guards: `initialize` absent or still founding, no leader.
    Found,
    /// Create the first data directory, start it as primary, create the roles; then store: `initialize`, `sync`,
    /// the lineage.
    Bootstrap,
    /// Adopt the data directory that is there as the first one.
    Adopt,
    /// Store: put the leader key on this agent's own lease, after a restart of the agent.
    Reattach { epoch: Epoch },
    /// Start as a standby that streams from nobody and lets no client in.
    Park,
    /// Stop the WAL receiver so that it is gone and cannot come back.
    Detach,
    /// Store: the promise. Guards: the epoch. Only ever after [`Action::Detach`] or [`Action::Park`],
    /// or while nothing runs.
    Promise(Promise),
    /// Store: take my promise back. Guard: the epoch, if it is the promise's own.
    Withdraw { epoch: Epoch },
    /// Store: leader := me on my lease, epoch, record. Guards: leader key, epoch, sync record and every counted
    /// promise unchanged.
    Claim(Claim),
    /// Note the lineage, set `setting`, promote, verify.
    Promote {
        epoch: Epoch,
        setting: Option<Setting>,
    },
    /// Store: the lineage of this epoch. Guards: leader and epoch.
    Publish { epoch: Epoch, lineage: Lineage },
    /// Store: the sync record (`None`: asynchronous). Guards: leader, epoch, record unchanged.
    Record {
        epoch: Epoch,
        record: Option<SyncRecord>,
    },
    /// Postgres: use the newest setting (`None`: asynchronous), prove it, take the barrier.
    Apply {
        epoch: Epoch,
        record: Option<SyncRecord>,
    },
    /// Let clients in.
    Open,
    /// Note the lineage, then stream from the leader and let clients in, by reload. The shell first makes sure by a linearizable read
    /// that the epoch is still this one and that no promise of mine stands in it. By way of `via`, if it is given: a
    /// standby that serves this epoch.
    Follow {
        leader: NodeName,
        epoch: Epoch,
        lineage: Lineage,
        #[serde(default)]
        via: Option<NodeName>,
    },
    /// Postgres is down. Where the WAL on disk is proven to be part of the lineage: as [`Action::Follow`], started so from
    /// the first moment on. Else as [`Action::Park`].
    Rejoin {
        leader: NodeName,
        epoch: Epoch,
        lineage: Lineage,
        #[serde(default)]
        via: Option<NodeName>,
    },
    /// Stop, rewind to the leader's history, keep what is discarded, start streaming. Falls back to a clone.
    Rewind {
        leader: NodeName,
        epoch: Epoch,
        lineage: Lineage,
    },
    /// Make a base backup of the leader and start streaming.
    Clone {
        leader: NodeName,
        epoch: Epoch,
        lineage: Lineage,
    },
    /// Ask a leader of Patroni's where its timelines ended, and compare this node's WAL with it; then store: an epoch on
    /// its behalf, with its lineage. Guards: leader key, epoch and lineage unchanged. A leader whose timeline the present
    /// epoch names keeps it.
    Recognize { leader: NodeName, epoch: Epoch },
    /// Forget whose WAL this node has, and take what the archive brings: nobody can say whose that is. Guards as of
    /// [`Action::Follow`].
    Feed { leader: NodeName, epoch: Epoch },
    /// This node has no note: compare the bytes of its last WAL with the leader's, then note the lineage and stream, or
    /// rewind, or make a base backup.
    Compare {
        leader: NodeName,
        epoch: Epoch,
        lineage: Lineage,
    },
    /// A standby leader, detached or without usable data: compare the bytes of its last WAL with the remote's, then note
    /// the lineage and follow the remote, or rewind to it, or copy it. Where the lineage is not the one that `epoch`
    /// published, first store: the next epoch, my own again, with it. Guards: leader, epoch, configuration unchanged.
    FollowRemote { epoch: Epoch, remote: Remote },
    /// Planned handover: checkpoint, then stop so that standbys have everything.
    Drain,
    /// Stop an instance that is not primary.
    Stop,
    /// Kill every process of the instance, now.
    Fence,
    /// Store: delete the leader key. Guards: it is mine, epoch. Only when no process of the instance is left.
    Release { epoch: Epoch, why: String },
    /// Store: the planned change is done, or can't be done.
    ClearSwitchover { outcome: String },
    /// Store: remove every trace of this node; then the agent ends.
    Leave,
}

/// The transaction that begins a leadership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The epoch that begins.
    pub epoch: Epoch,
    /// Joined from the old leadership's and the new one's; `None` in asynchronous mode.
    pub record: Option<SyncRecord>,
    /// Whose promises were counted: each must still be there unchanged.
    pub counted: BTreeSet<NodeName>,
    /// Whether they prove that no acknowledged commit is missing: not in asynchronous mode, nor where a person has
    /// accepted a loss.
    #[serde(default)]
    pub proven: bool,
    /// It leads a standby cluster: nobody is promoted in that epoch. Guard: the configuration is unchanged.
    #[serde(default)]
    pub standby: bool,
    /// The reason for the event.
    pub why: String,
}

impl Decision {
    pub(crate) fn wait(rule: &'static str, reason: impl Into<String>) -> Self {
        Self {
            actions: Vec::new(),
            reason: reason.into(),
            state: NodeState::Init,
            assigned: NodeState::Init,
            rule,
        }
    }

    pub(crate) fn act(rule: &'static str, action: Action, reason: impl Into<String>) -> Self {
        Self {
            actions: vec![action],
            ..Self::wait(rule, reason)
        }
    }
}
