//! Connections to peers by address: dialled when first needed, shared, dialled again when broken.
//!
//! **Invariant:** at most one connection and one attempt to connect for an address.

use super::connection::{CallError, Connection};
use super::handshake::{self, HandshakeError};
use super::limit::Sparingly;
use super::message::{Request, Response};
use super::tls::{self, Denial, Tls, Wire};
use crate::lock;
use crate::raft::types::NodeId;
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

/// Unacknowledged bytes for so long mean that the peer is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

/// How this process introduces itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) secret: Secret,
    pub(crate) tls: Option<Tls>,
    pub(crate) handshake_timeout: Duration,
}

/// All outgoing connections of this process to one cluster.
#[derive(Debug)]
pub(crate) struct Pool {
    identity: Arc<Identity>,
    lines: Mutex<BTreeMap<String, Arc<Line>>>,
    denials: Arc<Sparingly>,
    /// Where the connections live, whoever asks for them: all share them, so none may hold them up.
    runtime: Handle,
}

#[derive(Debug)]
struct Line {
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Dialling,
    Open(Arc<Connection>),
    Failed(CallError),
}

impl Pool {
    /// Its connections live in the runtime that it is made in.
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        let denials = Arc::new(Sparingly::default());
        Self {
            identity,
            lines: Mutex::default(),
            denials,
            runtime: Handle::current(),
        }
    }

    /// Asks whoever is at `address`. The caller puts a limit on the time; see [`Pool::call_within`].
    pub(crate) async fn call(
        &self,
        address: &str,
        to: Option<NodeId>,
        request: Request,
        body: &[u8],
    ) -> Result<Response, CallError> {
        self.connection(address)
            .await?
            .call(to, request, body)
            .await
    }

    /// As [`Pool::call`], and knows what a missed limit means.
    pub(crate) async fn call_within(
        &self,
        limit: Duration,
        address: &str,
        to: Option<NodeId>,
        request: Request,
    ) -> Result<Response, CallError> {
        let deadline = tokio::time::Instant::now() + limit;
        let connection = tokio::time::timeout_at(deadline, self.connection(address))
            .await
            .map_err(|_| CallError::NotSent(format!("no connection to {address} in time")))??;
        tokio::time::timeout_at(deadline, connection.call(to, request, &[]))
            .await
            .map_err(|_| CallError::Lost(format!("no answer from {address} in time")))?
    }

    /// Whether the last attempt to connect to `address` failed.
    pub(crate) fn is_failing(&self, address: &str) -> bool {
        let lines = lock(&self.lines);
        let state = lines.get(address).map(|line| line.state.borrow().clone());
        // Dialling again after a failure is no success yet, but a fair chance.
        matches!(state, Some(State::Failed(_)))
    }

    /// Closes everything.
    pub(crate) fn close(&self) {
        lock(&self.lines).clear();
    }

    async fn connection(&self, address: &str) -> Result<Arc<Connection>, CallError> {
        let line = self.line(address);
        let mut state = line.state.subscribe();
        if let Some(open) = line.usable() {
            return Ok(open);
        }
        if line.begin_dialling() {
            let dialling = dial(
                address.to_owned(),
                Arc::clone(&self.identity),
                Arc::clone(&self.denials),
            );
            let line = Arc::clone(&line);
            // In a task of its own: an impatient caller must not cut off what others wait for.
            self.runtime.spawn(async move {
                let result = dialling.await;
                line.state.send_replace(match result {
                    Ok(connection) => State::Open(Arc::new(connection)),
                    Err(error) => State::Failed(error),
                });
            });
        }
        let settled = state
            .wait_for(|state| !matches!(state, State::Dialling | State::Idle))
            .await;
        match settled.as_deref() {
            Ok(State::Open(connection)) => Ok(Arc::clone(connection)),
            Ok(State::Failed(error)) => Err(error.clone()),
            Ok(State::Idle | State::Dialling) | Err(_) => {
                Err(CallError::NotSent("the connection was closed".into()))
            }
        }
    }

    fn line(&self, address: &str) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        let new = || {
            Arc::new(Line {
                state: watch::channel(State::Idle).0,
            })
        };
        Arc::clone(lines.entry(address.to_owned()).or_insert_with(new))
    }
}

impl Line {
    fn usable(&self) -> Option<Arc<Connection>> {
        match &*self.state.borrow() {
            State::Open(connection) if connection.is_usable() => Some(Arc::clone(connection)),
            State::Idle | State::Dialling | State::Open(_) | State::Failed(_) => None,
        }
    }

    /// Whether it falls to the caller to dial.
    fn begin_dialling(&self) -> bool {
        self.state.send_if_modified(|state| {
            let begin = match state {
                State::Dialling => false,
                State::Open(connection) => !connection.is_usable(),
                State::Idle | State::Failed(_) => true,
            };
            if begin {
                *state = State::Dialling;
            }
            begin
        })
    }
}

async fn dial(
    address: String,
    identity: Arc<Identity>,
    denials: Arc<Sparingly>,
) -> Result<Connection, CallError> {
    let not_sent = |error: &dyn std::fmt::Display| {
        CallError::NotSent(format!("cannot connect to {address}: {error}"))
    };
    let connected = async {
        match (meet(&address, &identity, true).await, &identity.tls) {
            (Err(HandshakeError::Tls(Denial::WithoutTls)), Some(tls)) if !tls.is_required() => {
                meet(&address, &identity, false).await
            }
            (met, _) => met,
        }
    };
    match timeout(identity.handshake_timeout, connected).await {
        Ok(Ok(connection)) => Ok(Connection::new(connection)),
        Ok(Err(error)) if error.is_denial() => {
            if denials.may_speak(&address) {
                tracing::warn!(peer = %address, %error, "a peer and this node deny each other");
            }
            Err(CallError::Denied(format!("{address}: {error}")))
        }
        Ok(Err(error)) => Err(not_sent(&error)),
        Err(_) => Err(not_sent(&"it does not answer")),
    }
}

/// One attempt to connect, with TLS if there are certificates.
async fn meet(
    address: &str,
    identity: &Identity,
    with_tls: bool,
) -> Result<handshake::Connection, HandshakeError> {
    let stream = TcpStream::connect(address).await?;
    let tls = identity.tls.as_ref().filter(|_| with_tls);
    let wire = prepare(stream, tls, address).await?;
    handshake::client(wire, &identity.cluster, &identity.secret).await
}

/// Sends the magic and, where wanted, begins TLS.
async fn prepare(
    mut stream: TcpStream,
    tls: Option<&Tls>,
    address: &str,
) -> Result<Wire, HandshakeError> {
    tune(&stream);
    handshake::send_magic(&mut stream).await?;
    match tls {
        Some(tls) => tls.connect(stream, address).await,
        None => Ok(tls::plain(stream)),
    }
}

/// Small frames at once, and an end for connections whose other side is gone.
pub(crate) fn tune(stream: &TcpStream) {
    let limit = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, limit)?));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a socket option was refused");
    }
}
