//! What openraft is told about our types.

use crate::state::{Answer, Command};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// A member's number. Random, drawn once for a data directory and never used again.
pub(crate) type NodeId = u64;

/// What every member knows about another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Rises when a node of the same name comes back with an empty directory, and so a new number.
    pub(crate) incarnation: u64,
    /// Rises when a cluster is recovered from one member, so that those left behind can tell.
    pub(crate) generation: u64,
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = Peer,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Peer>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
