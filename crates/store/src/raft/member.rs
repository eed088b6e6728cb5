//! A running member: its Raft node, its state, its connections, and what it answers to others.
//!
//! **Invariant:** a refusal other than `Unknown` means that nothing happened.

use super::directory::Directory;
use super::log::LogStore;
use super::machine::Machine;
use super::network::{AddressBook, Contacts, Network};
use super::options::Options;
use super::types::{NodeId, Peer, Raft, StoredMembership, Vote};
use crate::kv::{Snapshot, StoreError};
use crate::lock;
use crate::peer::message::{self, Refusal, Request, Response};
use crate::peer::pool::{Identity, Pool};
use crate::peer::serve::{self, Door};
use crate::state::{Answer, Command};
use openraft::ServerState;
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, RaftError};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A transaction may be so large as JSON. The log keeps thousands of them in memory.
const COMMAND_BYTES_MAX: usize = 1 << 20;

/// How long a question for news is held back when there are none.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) options: Options,
    pub(crate) id: NodeId,
    pub(crate) raft: Debugless<Raft>,
    pub(crate) machine: Machine,
    pub(crate) pool: Arc<Pool>,
    pub(crate) contacts: Arc<Contacts>,
    book: AddressBook,
    pub(crate) door: Door,
    /// When the leader was last heard of.
    led: Mutex<Option<Instant>>,
    /// The leadership that was last seen here, and since when.
    leads: Mutex<Option<(Vote, Instant)>>,
    failure: watch::Sender<Option<String>>,
}

/// openraft's handle has no `Debug`.
pub(crate) struct Debugless<T>(T);

impl<T> std::ops::Deref for Debugless<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::fmt::Debug for Debugless<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// Who leads, as far as this member knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    Me,
    Other(NodeId, Peer),
    Nobody,
}

impl Member {
    pub(crate) async fn start(options: Options, directory: Directory) -> io::Result<Self> {
        let Directory { disk, contents, id } = directory;
        if let Some(tls) = &options.tls {
            tls.watch();
        }
        let identity = Arc::new(Identity {
            cluster: options.cluster.clone(),
            secret: options.secret.clone(),
            tls: options.tls.clone(),
            handshake_timeout: options.timing.handshake_timeout,
        });
        let pool = Arc::new(Pool::new(Arc::clone(&identity)));
        let contacts = Arc::new(Contacts::default());
        let log = LogStore::new(Arc::clone(&disk), &contents, id)?;
        let machine = Machine::new(disk, &contents)?;
        let book = AddressBook::of(&options.start);
        let network = Network {
            pool: Arc::clone(&pool),
            contacts: Arc::clone(&contacts),
            book: book.clone(),
            machine: machine.clone(),
        };
        let config = options.raft_config().validate().map_err(io::Error::other)?;
        let raft = Raft::new(id, Arc::new(config), network, log, machine.clone())
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            options,
            id,
            raft: Debugless(raft),
            machine,
            pool,
            contacts,
            book,
            door: Door::new(identity),
            led: Mutex::default(),
            leads: Mutex::default(),
            failure: watch::channel(None).0,
        })
    }

    /// This member as its cluster should know it.
    pub(crate) fn myself(&self) -> Peer {
        Peer {
            name: self.options.name.to_string(),
            address: self.options.address.clone(),
            ..Peer::default()
        }
    }

    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        Arc::clone(&self.raft.metrics().borrow().membership_config)
    }

    /// A peer with the address at which to look for it.
    pub(crate) fn reachable(&self, peer: &Peer) -> Peer {
        Peer {
            address: self.book.address(peer, &self.pool).to_owned(),
            ..peer.clone()
        }
    }

    pub(crate) fn leader(&self) -> Leader {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match metrics.current_leader {
            Some(id) if id == self.id => Leader::Me,
            Some(id) => match metrics.membership_config.membership().get_node(&id) {
                Some(peer) => Leader::Other(id, self.reachable(peer)),
                None => Leader::Nobody,
            },
            None => Leader::Nobody,
        }
    }

    fn not_leader(&self) -> Refusal {
        let leader = match self.leader() {
            Leader::Other(_, peer) => Some(peer),
            Leader::Me | Leader::Nobody => None,
        };
        Refusal::NotLeader { leader }
    }

    /// So long without its leader, or as leader without its majority, and a member is cut off.
    pub(crate) fn silence_max(&self) -> Duration {
        self.options.timing.election_timeout.1 * 2
    }

    /// Says whether this member leads and a majority has said so lately.
    fn lead(&self) -> Result<(), Refusal> {
        let metrics = self.raft.metrics();
        let (leads, alone, acknowledged) = {
            let metrics = metrics.borrow();
            let leads = metrics.state == ServerState::Leader;
            let alone = metrics.membership_config.voter_ids().eq([self.id]);
            (leads, alone, metrics.millis_since_quorum_ack)
        };
        if !leads {
            return Err(self.not_leader());
        }
        let silence = acknowledged.map(Duration::from_millis);
        if !alone && silence.is_some_and(|silence| silence > self.silence_max()) {
            // It would only wait in the log, and perhaps happen much later.
            return Err(Refusal::Unreachable(
                "no majority of the voters answers the leader".into(),
            ));
        }
        Ok(())
    }

    /// Whether this member takes part in a cluster that works.
    pub(crate) fn is_settled(&self) -> bool {
        match self.leader() {
            Leader::Me => self.lead().is_ok(),
            Leader::Other(..) => {
                lock(&self.led).is_some_and(|led| led.elapsed() < self.silence_max())
            }
            Leader::Nobody => false,
        }
    }

    /// Whether this directory has ever been part of a cluster.
    pub(crate) async fn is_founded(&self) -> bool {
        // A stopped Raft node counts as founded: nobody may found anything with it.
        self.raft.is_initialized().await.unwrap_or(true)
    }

    /// Ends this member for good.
    pub(crate) fn fail(&self, why: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(reason = %why, "this store member cannot go on");
                *failure = Some(why);
            }
            first
        });
    }

    /// Why this member cannot go on, if it can't.
    pub(crate) fn failure(&self) -> Result<(), StoreError> {
        // Copies: a guard on a channel held while it is written to would wait for itself.
        let known = self.failure.borrow().clone();
        if let Some(why) = known {
            return Err(StoreError::Fatal(why));
        }
        let fatal = self.raft.metrics().borrow().running_state.clone().err();
        let Some(fatal) = fatal else { return Ok(()) };
        if self.was_told_to_stop(&fatal) {
            // Somebody still asks.
            return Err(StoreError::Fatal("this store member was stopped".into()));
        }
        self.fail(fatal.to_string());
        Err(StoreError::Fatal(fatal.to_string()))
    }

    /// Ends when this member cannot go on.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            Ok(None) | Err(_) => "it is gone".into(),
        }
    }

    /// Notices that Raft has ended by itself. A task of its own: the metrics change with each message.
    pub(crate) async fn watch_raft(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        while self.failure().is_ok() {
            // The sender is gone when Raft has ended, which `running_state` has said before.
            if metrics.changed().await.is_err() {
                self.fail("its Raft node has ended".into());
            }
        }
    }

    /// Whether Raft ended as it was told to, which is no failure.
    fn was_told_to_stop(&self, fatal: &Fatal<NodeId>) -> bool {
        self.door.is_closed() && matches!(fatal, Fatal::Stopped)
    }

    fn fatal(&self, fatal: &Fatal<NodeId>) -> Refusal {
        if !self.was_told_to_stop(fatal) {
            self.fail(fatal.to_string());
        }
        Refusal::Failed(fatal.to_string())
    }

    /// Commits here, as leader.
    pub(crate) async fn write_here(
        &self,
        command: Command,
        limit: Duration,
    ) -> Result<Answer, Refusal> {
        self.lead()?;
        let size = serde_json::to_vec(&command).map_or(usize::MAX, |bytes| bytes.len());
        if size > COMMAND_BYTES_MAX {
            let why = format!("a transaction of {size} bytes is larger than {COMMAND_BYTES_MAX}");
            return Err(Refusal::Denied(why));
        }
        match timeout(limit, self.raft.client_write(command)).await {
            Ok(Ok(committed)) => Ok(committed.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                // Also said of an entry that was in the log and is overwritten now. Another member may
                // still hold a copy of it, so nothing is certain.
                Err(Refusal::Unknown(
                    "the leader changed during the write".into(),
                ))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
                Err(Refusal::Unknown(error.to_string()))
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.fatal(&fatal)),
            Err(_) => Err(Refusal::Unknown(
                "no majority confirmed the write in time".into(),
            )),
        }
    }

    /// Reads here, as leader, after a majority has confirmed that it still is.
    pub(crate) async fn read_here(
        &self,
        prefix: &str,
        limit: Duration,
    ) -> Result<Snapshot, Refusal> {
        self.lead()?;
        match timeout(limit, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(self.machine.read(prefix)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => {
                Err(self.not_leader())
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => Err(
                Refusal::Unreachable("no majority confirmed the leader in time".into()),
            ),
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.fatal(&fatal)),
        }
    }

    pub(crate) async fn status(&self) -> message::Status {
        let membership = self.membership();
        let nodes = membership.membership();
        let leads = self.leader() == Leader::Me;
        let member = |(id, peer): (&NodeId, &Peer)| message::Member {
            id: *id,
            peer: peer.clone(),
            voter: self.machine.votes(*id),
            silent: if leads { self.silence(*id) } else { None },
        };
        message::Status {
            id: self.id,
            name: self.options.name.to_string(),
            founded: self.is_founded().await,
            generation: generation(&membership),
            membership_index: membership.log_id().map_or(0, |log_id| log_id.index),
            leader: match self.leader() {
                Leader::Me => Some(self.id),
                Leader::Other(id, _) => Some(id),
                Leader::Nobody => None,
            },
            settled: self.is_settled(),
            members: nodes.nodes().map(member).collect(),
        }
    }

    /// For how long this member has led, as far as it was asked.
    pub(crate) fn leading_for(&self) -> Duration {
        let vote = self.raft.metrics().borrow().vote;
        let mut leads = lock(&self.leads);
        match *leads {
            Some((known, since)) if known == vote => since.elapsed(),
            _ => {
                *leads = Some((vote, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// How long ago `id` answered this member.
    pub(crate) fn silence(&self, id: NodeId) -> Option<Duration> {
        if id == self.id {
            return Some(Duration::ZERO);
        }
        self.contacts.last(id).map(|last| last.elapsed())
    }

    async fn news(&self, prefix: &str, after: Option<u64>, patience: Duration) -> Option<Snapshot> {
        let mut view = self.machine.view(prefix);
        let newer = |seen: &Arc<Snapshot>| after.is_none_or(|after| seen.revision > after);
        let waited = timeout(patience.min(PATIENCE_MAX), view.wait_for(newer)).await;
        match waited {
            Ok(Ok(seen)) => Some(Snapshot::clone(&seen)),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn raft_request(&self, request: Request, body: Vec<u8>) -> Result<Response, Refusal> {
        let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
        match request {
            Request::Append(request) => {
                let answer = self.raft.append_entries(request).await;
                let answer = answer.map_err(|error| failed(&error))?;
                if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                    *lock(&self.led) = Some(Instant::now());
                }
                Ok(Response::Append(answer))
            }
            Request::Vote(request) => {
                let answer = self
                    .raft
                    .vote(request)
                    .await
                    .map_err(|error| failed(&error))?;
                Ok(Response::Vote(answer))
            }
            Request::Snapshot(mut request) => {
                request.data = body;
                let answer = self.raft.install_snapshot(request).await;
                let answer = answer.map_err(|error| failed(&error))?;
                *lock(&self.led) = Some(Instant::now());
                Ok(Response::Snapshot(answer))
            }
            other => Err(failed(&format!("not a Raft request: {other:?}"))),
        }
    }
}

/// The youngest generation among the members: a recovery starts a new one.
pub(crate) fn generation(membership: &StoredMembership) -> u64 {
    membership
        .nodes()
        .map(|(_, peer)| peer.generation)
        .max()
        .unwrap_or(0)
}

impl serve::Answer for Member {
    fn id(&self) -> NodeId {
        self.id
    }

    async fn answer(&self, request: Request, body: Vec<u8>) -> Result<Response, Refusal> {
        self.failure()?;
        let limit = self.options.timing.request_timeout;
        match request {
            Request::Append(_) | Request::Vote(_) | Request::Snapshot(_) => {
                self.raft_request(request, body).await
            }
            Request::Write(command) => self.write_here(command, limit).await.map(Response::Answer),
            Request::Read { prefix } => {
                let snapshot = self.read_here(&prefix, limit).await?;
                Ok(Response::Read(snapshot.into()))
            }
            Request::Watch {
                prefix,
                after,
                patience,
            } => {
                let news = self.news(&prefix, after, patience).await;
                Ok(Response::Watch(news.map(Into::into)))
            }
            Request::Status => Ok(Response::Status(self.status().await)),
            Request::Join { id, name, address } => {
                self.lead()?;
                self.let_in(id, name, address)
                    .await
                    .map(|()| Response::Done)
            }
            Request::Remove { name } => {
                self.lead()?;
                self.let_go(&name).await.map(|()| Response::Done)
            }
        }
    }
}
