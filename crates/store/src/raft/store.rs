//! The handle that the rest of the process holds.

use super::directory::Directory;
use super::member::{Leader, Member};
use super::options::{Options, Start};
use super::{around, caretaker, expiry, start};
use crate::answers::{self, done, outcome};
use crate::kv::{LeaseId, Outcome, Result, Snapshot, Store, StoreError, Txn, View};
use crate::lock;
use crate::peer::message::{Request, Response, Status};
use crate::state::{Answer, Command};
use async_trait::async_trait;
use ha::NodeName;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Whether a member has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Voter,
    Learner,
}

/// A member as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    pub name: String,
    pub address: String,
    pub id: u64,
    pub role: Role,
    pub leader: bool,
    /// How long ago the Raft leader heard of it. Without one it is known whether this member hears of it now: no time,
    /// or all of it.
    pub last_contact: Option<Duration>,
}

/// A member of the built-in store, running in this process. Clones are handles on the same member;
/// the last one dropped stops it.
#[derive(Clone, Debug)]
pub struct RaftStore {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    member: Arc<Member>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl RaftStore {
    /// The first bytes of a connection that belongs to [`RaftStore::serve_connection`].
    pub const PREFACE: [u8; 4] = crate::peer::auth::MAGIC;

    /// Opens the directory and starts the member. Others are met in the background: see
    /// [`RaftStore::ready`]. Nobody reaches it before [`RaftStore::listen`] or
    /// [`RaftStore::serve_connection`].
    pub async fn start(options: Options) -> Result<Self> {
        if let Start::Members(list) = &options.start
            && !list.contains_key(&options.name)
        {
            let why = format!("{} is not in its own list of members", options.name);
            return Err(StoreError::Denied(why));
        }
        let path = options.directory.display().to_string();
        let failed = |error: std::io::Error| StoreError::Fatal(format!("{path}: {error}"));
        let directory = Directory::open(&options.directory).await.map_err(failed)?;
        Self::in_directory(options, directory).await
    }

    /// As [`RaftStore::start`], in a directory that is open already.
    pub(super) async fn in_directory(options: Options, directory: Directory) -> Result<Self> {
        let path = options.directory.display().to_string();
        let failed = |error: std::io::Error| StoreError::Fatal(format!("{path}: {error}"));
        let member = Arc::new(Member::start(options, directory).await.map_err(failed)?);
        let tasks = vec![
            tokio::spawn(Arc::clone(&member).watch_raft()).abort_handle(),
            tokio::spawn(start::run(Arc::clone(&member))).abort_handle(),
            tokio::spawn(expiry::run(Arc::clone(&member))).abort_handle(),
            tokio::spawn(caretaker::run(Arc::clone(&member))).abort_handle(),
        ];
        Ok(Self {
            running: Arc::new(Running {
                member,
                tasks: Mutex::new(tasks),
            }),
        })
    }

    /// After the permanent loss of a majority: makes the stopped member in `options.directory` the only
    /// one of its cluster, with all that it knows. Refused while a majority of the voters can still
    /// answer. The others must come back with empty directories.
    pub async fn recover(options: &Options) -> Result<()> {
        super::recover::recover(options).await
    }

    fn member(&self) -> &Arc<Member> {
        &self.running.member
    }

    /// This member's number.
    pub fn id(&self) -> u64 {
        self.member().id
    }

    /// Listens for peers on a port of its own. Returns the address, which has the port chosen for port 0.
    pub async fn listen(&self, address: SocketAddr) -> std::io::Result<SocketAddr> {
        self.serve(TcpListener::bind(address).await?)
    }

    /// As [`RaftStore::listen`], on a listener that is there already.
    pub fn serve(&self, listener: TcpListener) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let member = Arc::clone(self.member());
        let task = tokio::spawn(accept(listener, member));
        lock(&self.running.tasks).push(task.abort_handle());
        Ok(address)
    }

    /// Serves one peer's connection until it ends. The preface must still be unread (peek at it).
    pub async fn serve_connection(&self, stream: TcpStream) {
        let member = Arc::clone(self.member());
        self.member().door.serve(stream, member).await;
    }

    /// Waits until this member is part of a cluster that has a leader.
    pub async fn ready(&self, within: Duration) -> Result<()> {
        let member = self.member();
        let mut changes = member.raft.metrics();
        let settled = async {
            while !member.is_settled() {
                member.failure()?;
                if changes.changed().await.is_err() {
                    return Err(StoreError::Fatal("its Raft node has ended".into()));
                }
            }
            Ok(())
        };
        match tokio::time::timeout(within, settled).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unreachable(
                "no part of a cluster with a leader yet".into(),
            )),
        }
    }

    /// All members, as the leader sees them, or else as this one does; without a leader it asks them itself.
    pub async fn members(&self) -> Result<Vec<MemberInfo>> {
        let member = self.member();
        member.failure()?;
        let limit = member.options.timing.request_timeout;
        if let Leader::Other(id, peer) = member.leader()
            && let Ok(Response::Status(status)) = member
                .pool
                .call_within(limit, &peer.address, Some(id), Request::Status)
                .await
        {
            return Ok(infos(status));
        }
        let known = infos(member.status().await);
        Ok(match member.leader() {
            Leader::Nobody => around::look(member, known).await,
            Leader::Me | Leader::Other(..) => known,
        })
    }

    /// Makes the node `name` leave. The number of voters stays odd.
    pub async fn remove_member(&self, name: &NodeName) -> Result<()> {
        let member = self.member();
        // Each request is one step; it takes a handful of them, over a change of leader too.
        let deadline = Instant::now() + member.options.timing.request_timeout * 10;
        loop {
            member.failure()?;
            let request = Request::Remove {
                name: name.to_string(),
            };
            let limit = deadline.saturating_duration_since(Instant::now());
            let result = match member.leader() {
                Leader::Me => crate::peer::serve::Answer::answer(&**member, request, vec![]).await,
                Leader::Other(id, peer) => {
                    let called = member
                        .pool
                        .call_within(limit, &peer.address, Some(id), request);
                    called.await.map_err(super::refusal)
                }
                Leader::Nobody => Err(crate::peer::message::Refusal::NotLeader { leader: None }),
            };
            let error = match result {
                Ok(_) => return Ok(()),
                Err(refusal) => answers::error(refusal),
            };
            if !error.is_retryable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends when this member cannot go on: its disk failed, or it was removed. The process must stop.
    pub async fn failed(&self) -> StoreError {
        StoreError::Fatal(self.member().failed().await)
    }

    /// Stops this member and waits until its directory is free again.
    pub async fn shutdown(&self) {
        self.running.stop();
        let member = self.member();
        if let Err(error) = member.raft.shutdown().await {
            tracing::warn!(%error, "the Raft node did not end well");
        }
        member.machine.close().await;
    }
}

impl Running {
    fn stop(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        self.member.door.close();
        self.member.pool.close();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        let member = Arc::clone(&self.member);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                drop(member.raft.shutdown().await);
                member.machine.close().await;
            });
        }
    }
}

async fn accept(listener: TcpListener, member: Arc<Member>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let member = Arc::clone(&member);
                tokio::spawn(async move {
                    member.door.serve(stream, Arc::clone(&member)).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, as a rule; accepting at once would fail again.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn infos(status: Status) -> Vec<MemberInfo> {
    let leader = status.leader;
    let info = |member: crate::peer::message::Member| MemberInfo {
        name: member.peer.name,
        address: member.peer.address,
        id: member.id,
        role: if member.voter {
            Role::Voter
        } else {
            Role::Learner
        },
        leader: Some(member.id) == leader,
        last_contact: member.silent,
    };
    let mut all: Vec<_> = status.members.into_iter().map(info).collect();
    all.sort_by(|left, right| (&left.name, left.id).cmp(&(&right.name, right.id)));
    all
}

#[async_trait]
impl Store for RaftStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot> {
        self.member().read(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        outcome(self.member().write(Command::Commit(txn)).await?)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        loop {
            let lease = answers::draw_lease();
            match self.member().write(Command::Grant { lease, ttl }).await? {
                Answer::LeaseTaken => {}
                answer => return done(answer).map(|()| lease),
            }
        }
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        done(self.member().write(Command::Renew(lease)).await?)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        done(self.member().write(Command::Revoke(lease)).await?)
    }

    fn view(&self, prefix: &str) -> View {
        self.member().machine.view(prefix)
    }
}
