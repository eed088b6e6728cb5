//! How openraft reaches its peers.
//!
//! **Invariant:** an answer counts only when it comes from the member that was asked for.

use super::machine::Machine;
use super::options::Start;
use super::types::{NodeId, Peer, Types};
use crate::lock;
use crate::peer::connection::CallError;
use crate::peer::message::{Request, Response};
use crate::peer::pool::Pool;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// When each peer last answered us.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<BTreeMap<NodeId, Instant>>);

impl Contacts {
    pub(crate) fn note(&self, peer: NodeId) {
        lock(&self.0).insert(peer, Instant::now());
    }

    pub(crate) fn last(&self, peer: NodeId) -> Option<Instant> {
        lock(&self.0).get(&peer).copied()
    }
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) pool: Arc<Pool>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) book: AddressBook,
    /// Knows the membership that is in force.
    pub(crate) machine: Machine,
}

/// Addresses by name from this member's own configuration, for when nobody is at the one in the log:
/// members that have all moved at once could not tell each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook(Arc<BTreeMap<String, String>>);

impl AddressBook {
    pub(crate) fn of(start: &Start) -> Self {
        let list = match start {
            Start::Members(list) => list.clone(),
            Start::Found | Start::Join(_) => BTreeMap::new(),
        };
        let plain = list
            .into_iter()
            .map(|(name, address)| (name.into(), address));
        Self(Arc::new(plain.collect()))
    }

    pub(crate) fn address<'a>(&'a self, peer: &'a Peer, pool: &Pool) -> &'a str {
        match self.0.get(&peer.name) {
            Some(other) if pool.is_failing(&peer.address) && !pool.is_failing(other) => other,
            _ => &peer.address,
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, peer: &Peer) -> Client {
        Client {
            pool: Arc::clone(&self.pool),
            contacts: Arc::clone(&self.contacts),
            target,
            peer: peer.clone(),
            book: self.book.clone(),
            machine: self.machine.clone(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pool: Arc<Pool>,
    contacts: Arc<Contacts>,
    target: NodeId,
    peer: Peer,
    book: AddressBook,
    machine: Machine,
}

type Error<E> = RPCError<NodeId, Peer, RaftError<NodeId, E>>;

impl Client {
    async fn call<E>(&self, request: Request, body: &[u8]) -> Result<Response, Error<E>>
    where
        E: std::error::Error,
    {
        // openraft keeps a client for as long as it leads; its peer may move meanwhile.
        let moved = self.machine.peer(self.target);
        let address = self
            .book
            .address(moved.as_ref().unwrap_or(&self.peer), &self.pool);
        match self
            .pool
            .call(address, Some(self.target), request, body)
            .await
        {
            Ok(response) => {
                self.contacts.note(self.target);
                Ok(response)
            }
            Err(error @ CallError::Lost(_)) => Err(NetworkError::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }
}

fn unexpected<E: std::error::Error>(response: &Response) -> Error<E> {
    let error = CallError::Lost(format!("an answer to another question: {response:?}"));
    Unreachable::new(&error).into()
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Error<openraft::error::Infallible>> {
        match self.call(Request::Append(request), &[]).await? {
            Response::Append(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        mut request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Error<InstallSnapshotError>> {
        let body = std::mem::take(&mut request.data);
        match self.call(Request::Snapshot(request), &body).await? {
            Response::Snapshot(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Error<openraft::error::Infallible>> {
        match self.call(Request::Vote(request), &[]).await? {
            Response::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(150)))
    }
}
