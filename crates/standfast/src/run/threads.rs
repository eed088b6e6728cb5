//! A node's threads: the store with the lease, the REST API, and the agent, each a runtime of its own.
//!
//! **Invariant:** the store's thread waits for nothing but the network, timers and the store's own disk. What may be
//! held up by a hung data directory is the agent's, what a flood of requests may hold up is the API's.
//!
//! One thread each and not a pool for all: next to nothing is to be computed, and waking a sleeping worker for each of
//! some hundred messages a second is most of what an idle node costs.

use anyhow::{Context as _, Result};
use std::io;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// What the store's thread is at is given so long to end; all that counts is on its disk already.
const STORE_ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The runtimes of one node.
#[derive(Debug)]
pub(crate) struct Threads {
    store: Runtime,
    rest: Runtime,
    /// On the thread that calls [`Threads::run`].
    agent: Runtime,
}

/// Where the parts of the node are spawned that don't belong to the agent.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    /// The store's member, its peers, and the agent's keeper of the lease.
    pub(crate) store: Handle,
    /// The REST API.
    pub(crate) rest: Handle,
}

impl Threads {
    pub(crate) fn new() -> Result<Self> {
        let start = || -> io::Result<Self> {
            Ok(Self {
                store: one("store")?,
                rest: one("rest")?,
                agent: Builder::new_current_thread().enable_all().build()?,
            })
        };
        start().context("can't start the node's threads")
    }

    /// Does something that needs the agent's runtime to be there.
    pub(crate) fn with_runtime<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.agent.enter();
        work()
    }

    /// Runs the agent's part on this thread, to its end.
    pub(crate) fn run<F: Future>(self, part: impl FnOnce(Elsewhere) -> F) -> F::Output {
        let elsewhere = Elsewhere {
            store: self.store.handle().clone(),
            rest: self.rest.handle().clone(),
        };
        let result = self.agent.block_on(part(elsewhere));
        // Neither requests that are still being answered nor threads that wait for a hung disk keep the process.
        self.rest.shutdown_background();
        self.agent.shutdown_background();
        self.store.shutdown_timeout(STORE_ENDS_WITHIN);
        result
    }
}

fn one(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
}
