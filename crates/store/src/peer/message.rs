//! What peers say to each other.
//!
//! A payload is the length of its JSON head, the head, and a body of bytes (a piece of a snapshot).

use crate::kv::{Entry, LeaseId, Revision, Snapshot, StoreError};
use crate::raft::types::{NodeId, Peer, Types};
use crate::state::{Answer, Command};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A request with its number on this connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) number: u64,
    /// Whom it is meant for. Nobody else may answer: another member may live at this address by now.
    pub(crate) to: Option<NodeId>,
    pub(crate) request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<NodeId>),
    /// The piece itself is the body.
    Snapshot(InstallSnapshotRequest<Types>),
    /// For the leader only.
    Write(Command),
    /// For the leader only; linearizable.
    Read {
        prefix: String,
    },
    /// What the asked member knows, once it is newer than `after` or `patience` has passed.
    Watch {
        prefix: String,
        after: Option<Revision>,
        patience: Duration,
    },
    Status,
    /// For the leader only.
    Join {
        id: NodeId,
        name: String,
        address: String,
    },
    /// For the leader only.
    Remove {
        name: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) number: u64,
    pub(crate) result: Result<Response, Refusal>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<NodeId>),
    Vote(VoteResponse<NodeId>),
    Snapshot(InstallSnapshotResponse<NodeId>),
    Answer(Answer),
    Read(Page),
    /// Nothing when nothing is newer.
    Watch(Option<Page>),
    Status(Status),
    Done,
}

/// A [`Snapshot`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
}

impl From<Snapshot> for Page {
    fn from(snapshot: Snapshot) -> Self {
        let plain = |(key, entry): (String, Arc<Entry>)| (key, Arc::unwrap_or_clone(entry));
        let entries = snapshot.entries.into_iter().map(plain).collect();
        Self {
            revision: snapshot.revision,
            entries,
        }
    }
}

impl From<Page> for Snapshot {
    fn from(page: Page) -> Self {
        let shared = |(key, entry)| (key, Arc::new(entry));
        Self {
            revision: page.revision,
            entries: page.entries.into_iter().map(shared).collect(),
        }
    }
}

/// What a member says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// Whether it has ever been part of a cluster.
    pub(crate) founded: bool,
    pub(crate) generation: u64,
    /// The place in the log of the membership below.
    pub(crate) membership_index: u64,
    pub(crate) leader: Option<NodeId>,
    /// Whether its leader was heard of lately, or, when it leads, a majority.
    pub(crate) settled: bool,
    pub(crate) members: Vec<Member>,
}

/// A member as the replicated membership and the leader know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) peer: Peer,
    pub(crate) voter: bool,
    /// How long ago the leader heard of it; only a leader knows.
    pub(crate) silent: Option<Duration>,
}

/// Why a member did not do what it was asked. Except for `Unknown` nothing happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Somebody else lives at this address.
    WrongMember {
        here: NodeId,
    },
    NotLeader {
        leader: Option<Peer>,
    },
    /// No majority.
    Unreachable(String),
    Unknown(String),
    Denied(String),
    LeaseEnded(LeaseId),
    Failed(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable(why) => Self::Unreachable(why),
            StoreError::Unknown(why) => Self::Unknown(why),
            StoreError::LeaseEnded(lease) => Self::LeaseEnded(lease),
            StoreError::Denied(why) => Self::Denied(why),
            StoreError::Fatal(why) => Self::Failed(why),
        }
    }
}

/// Makes a payload.
pub(crate) fn encode(head: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut payload = vec![0; 4];
    serde_json::to_writer(&mut payload, head)?;
    let length = u32::try_from(payload.len() - 4).map_err(io::Error::other)?;
    payload[..4].copy_from_slice(&length.to_be_bytes());
    payload.extend_from_slice(body);
    Ok(payload)
}

/// Takes a payload apart.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> io::Result<(T, &[u8])> {
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a payload is shorter than it says",
        )
    };
    let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(bad)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (head, body) = rest.split_at_checked(length).ok_or_else(bad)?;
    Ok((serde_json::from_slice(head)?, body))
}
