//! The running proxy: its listeners, its sessions, its end.
//!
//! **Invariant:** who is within a transaction when the proxy is told to stop finishes it, as long as
//! the time that was given for that lasts.

mod handle;
mod listen;
mod takeover;

pub use handle::Handle;
pub use listen::{Place, UnixSocket};

use crate::anteroom::{Anteroom, Full};
use crate::auth::{Gatekeeper, NoRandom};
use crate::errors;
use crate::gate::Gate;
use crate::hold::Hold;
use crate::net::Stream;
use crate::options::{Options, Route, Source};
use crate::pause::Pause;
use crate::peers::{self, Peers};
use crate::pool::Pools;
use crate::session::{Closing, Shared, Wishes, serve};
use crate::stats;
use crate::swap::Swap;
use crate::topology::{self, Ear};
use listen::Listener;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use store::layout::ProxyRecord;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often idle server connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// After an accept that failed: most likely there are no more file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listeners: Vec<Listener>,
    offer: Option<takeover::Offer>,
    shared: Arc<Shared>,
    ending: watch::Receiver<Ending>,
    handle: Handle,
    /// Where the other proxies of the cluster find it, if there is a cluster.
    place: Option<peers::Place>,
}

/// What it has been told about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// Nobody new; those who are there, until they are between two transactions.
    Soon,
    Now,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {place}")]
    Listen {
        place: Place,
        #[source]
        source: io::Error,
    },
    #[error("can't take over at {}", path.display())]
    TakeOver {
        path: PathBuf,
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
        let path = options.takeover.clone();
        let failed = |source| StartError::TakeOver {
            path: path.clone().unwrap_or_default(),
            source,
        };
        let asked = match &path {
            Some(path) => takeover::ask(path).await.map_err(failed)?,
            None => None,
        };
        let (mut before, found, is_paused) = match asked {
            Some(given) => (Some(given.stream), given.sockets, given.is_paused),
            None => (None, Vec::new(), false),
        };
        let handed_over = Arc::new(AtomicBool::new(false));
        let listeners = listen::open(&options, found, &handed_over)?;
        let missing = options.source.missing();
        let gate = Gate::new();
        let limits = Arc::new(Swap::new(options.limits));
        let pools = Pools::new(options.server_tls.clone(), Arc::clone(&limits));
        let ear = Arc::new(Ear::default());
        let place = place(&options, &listeners, &ear);
        let source = options.source.clone();
        let doubt = source.doubt();
        let its_gate = Arc::clone(&gate);
        let (seen, readers) =
            topology::follow(source, &doubt, its_gate, &pools, &options.users, &ear);
        let shared = Arc::new(Shared {
            mode: Swap::new(options.pool_mode),
            gatekeeper: Gatekeeper::new(handle::rules(&options))?,
            client_tls: Swap::new(options.client_tls),
            pools,
            gate,
            doubt,
            cancels: Arc::default(),
            peers: Peers::default(),
            hold: Hold::new(Arc::clone(&limits)),
            limits,
            seen,
            ear,
            readers,
            registry: Arc::default(),
            on_lossy_failover: Swap::new(options.on_lossy_failover),
            closing: Closing::default(),
            anteroom: Anteroom::default(),
            predecessor: tokio::sync::Mutex::default(),
            stats: Arc::default(),
            roster: Arc::default(),
            pause: Pause::default(),
            admins: Swap::new(options.admins),
            wishes: Wishes::default(),
            missing,
        });
        let (told, ending) = watch::channel(Ending::No);
        // Last of all: whatever fails before leaves the one before in its place.
        let offer = match &path {
            None => None,
            Some(path) => {
                let sockets = listeners.iter().map(Listener::share);
                Some(takeover::Offer {
                    meeting: takeover::meet(path).map_err(failed)?,
                    sockets: sockets.collect::<io::Result<_>>().map_err(failed)?,
                    handed_over,
                })
            }
        };
        if is_paused {
            shared.pause.set(true);
        }
        if let Some(before) = &mut before {
            takeover::ready(before).await.map_err(failed)?;
            tracing::info!("taken over from the proxy that was here before");
        }
        *shared.predecessor.lock().await = before;
        Ok(Self {
            offer,
            listeners,
            handle: Handle::new(Arc::clone(&shared), told),
            shared,
            ending,
            place,
        })
    }

    /// Where it listens by TCP; with port 0 in the options this tells the ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(Listener::address)
            .collect()
    }

    /// By which it is told things while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves clients until it is dropped, or told to stop.
    pub async fn run(mut self) {
        let mut tasks = JoinSet::new();
        for listener in std::mem::take(&mut self.listeners) {
            let ending = self.ending.clone();
            tasks.spawn(accept(listener, Arc::clone(&self.shared), ending));
        }
        // Ends with this.
        let mut beside = JoinSet::new();
        if let Some(offer) = self.offer.take() {
            let (handle, shared) = (self.handle.clone(), Arc::clone(&self.shared));
            beside.spawn(offer.run(handle, shared, self.ending.clone()));
        }
        beside.spawn(stats::watch(Arc::clone(&self.shared)));
        let store = self.place.as_ref().map(|place| Arc::clone(&place.store));
        if let Some(place) = self.place.take() {
            let shared = Arc::clone(&self.shared);
            beside.spawn(async move {
                let seen = shared.seen.clone();
                shared.peers.follow(&place, &shared.cancels, seen).await;
            });
        }
        let mut sweep = tokio::time::interval(SWEEP);
        let mut warming = JoinSet::new();
        loop {
            tokio::select! {
                _ = sweep.tick() => {
                    if self.shared.pools.sweep() {
                        self.shared.doubt.raise();
                    }
                    self.warm(&mut warming);
                    let pools = &self.shared.pools;
                    self.shared.stats.averages.turn(Instant::now(), || stats::sums(pools));
                }
                // What is kept open is wanted there soonest after a failover.
                () = self.shared.changed() => self.warm(&mut warming),
                ended = tasks.join_next() => if ended.is_none() { break },
            }
        }
        beside.shutdown().await;
        if let Some(store) = store {
            self.shared.peers.leave(&*store).await;
        }
    }
}

impl Proxy {
    fn warm(&self, warming: &mut JoinSet<()>) {
        while warming.try_join_next().is_some() {}
        let Ok(primary) = self.shared.place(Route::Write) else {
            return;
        };
        if self.shared.pause.is_on() {
            return;
        }
        if warming.is_empty() && self.shared.limits.load().pool_size_min > 0 {
            let pools = Arc::clone(&self.shared.pools);
            warming.spawn(async move { pools.warm(&primary).await });
        }
    }
}

/// As what the proxy is written down, if its cluster has a store.
fn place(options: &Options, listeners: &[Listener], ear: &Arc<Ear>) -> Option<peers::Place> {
    let Source::Store { store, keys } = &options.source else {
        return None;
    };
    let first = listeners.first().and_then(Listener::address);
    let first = first.filter(|address| !address.ip().is_unspecified());
    let address = options.presence.address.clone();
    let tls = &options.client_tls;
    Some(peers::Place {
        store: Arc::clone(store),
        keys: keys.clone(),
        ear: Arc::clone(ear),
        record: ProxyRecord {
            name: options.presence.name.clone(),
            address: address.or_else(|| first.map(|address| address.to_string())),
            tls: tls.config.is_some() && !tls.mode.verifies(),
            epoch: ha::Epoch::NONE,
        },
    })
}

/// Ends when no client is left after it was told to stop.
async fn accept(listener: Listener, shared: Arc<Shared>, mut ending: watch::Receiver<Ending>) {
    let mut sessions = JoinSet::new();
    let route = listener.route;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
            // It fails when nobody can tell any more, and then everything ends.
            _ = ending.wait_for(|ending| *ending != Ending::No) => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let limits = shared.limits.load();
        let seat = match shared.anteroom.enter(stream.peer_address(), &limits) {
            Ok(seat) => seat,
            Err(full) => {
                turn_away(stream, full);
                continue;
            }
        };
        limits.keepalive.watch(&stream);
        let shared = Arc::clone(&shared);
        sessions.spawn(serve(shared, stream, route, seat));
    }
    drop(listener);
    tokio::select! {
        () = async { while sessions.join_next().await.is_some() {} } => {}
        _ = ending.wait_for(|ending| *ending == Ending::Now) => {}
    }
}

/// At once: those who wait to be turned away would be as many as there are file descriptors, the node's own among them.
fn turn_away(stream: Stream, why: Full) {
    let report = errors::too_many_clients().detail(&format!("{why}."));
    let mut bytes = Vec::new();
    if report.encode(&mut bytes).is_ok() {
        stream.end_with(&bytes);
    }
}
