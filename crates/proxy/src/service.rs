//! The running proxy: its listeners, its sessions, its end.

use crate::auth::{Gatekeeper, NoRandom};
use crate::errors;
use crate::gate::Gate;
use crate::hold::Hold;
use crate::net::Stream;
use crate::options::Options;
use crate::pool::Pools;
use crate::session::{Shared, serve};
use crate::topology;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How often idle server connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// After an accept that failed: most likely there are no more file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listeners: Vec<TcpListener>,
    shared: Arc<Shared>,
    clients: Arc<Semaphore>,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("no random numbers are to be had")]
    NoRandom,
}

impl From<NoRandom> for StartError {
    fn from(_: NoRandom) -> Self {
        Self::NoRandom
    }
}

impl Proxy {
    /// Listens; clients are served when it runs. Must be called in a runtime.
    ///
    /// # Errors
    /// An address can't be listened on.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for address in options.listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|source| StartError::Listen { address, source })?;
            listeners.push(listener);
        }
        let gate = Gate::new();
        let seen = topology::follow(options.source, Arc::clone(&gate));
        let shared = Arc::new(Shared {
            mode: options.pool_mode,
            limits: options.limits,
            gatekeeper: Gatekeeper::new(options.users, options.auth)?,
            pools: Pools::new(gate, options.limits),
            cancels: Arc::default(),
            hold: Hold::new(&options.limits),
            seen,
            registry: Arc::default(),
            on_lossy_failover: options.on_lossy_failover,
        });
        Ok(Self {
            listeners,
            shared,
            clients: Arc::new(Semaphore::new(options.limits.clients_max)),
        })
    }

    /// Where it listens; with port 0 in the options this tells the ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.listeners.iter();
        all.filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Serves clients until it is dropped.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            let (shared, clients) = (Arc::clone(&self.shared), Arc::clone(&self.clients));
            tasks.spawn(accept(listener, shared, clients));
        }
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                _ = sweep.tick() => self.shared.pools.sweep(),
                ended = tasks.join_next() => if ended.is_none() { return },
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, clients: Arc<Semaphore>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&clients).try_acquire_owned() else {
            sessions.spawn(turn_away(stream));
            continue;
        };
        let shared = Arc::clone(&shared);
        sessions.spawn(async move {
            serve(shared, Stream::tcp(stream)).await;
            drop(place);
        });
    }
}

async fn turn_away(mut stream: TcpStream) {
    let report = wire::backend::Report::fatal(
        errors::TOO_MANY_CONNECTIONS,
        "sorry, too many clients already",
    );
    let mut bytes = Vec::new();
    if report.encode(&mut bytes).is_ok() {
        // Who does not listen has not heard it.
        let _ = tokio::time::timeout(BREATH, stream.write_all(&bytes)).await;
    }
}
