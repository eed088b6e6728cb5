//! `standfast bench`: figures of this machine, by real processes and real clients.
//! The methods are documented in `docs/benchmarks.md`.

mod failover;
mod machine;
mod proxy;

use crate::exit::ExitCode;
use anyhow::Result;

/// What can be measured.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Bench {
    /// Faults of the primary: write gap, errors, acknowledged rows lost
    Failover(failover::Options),
    /// What a transaction costs through the proxy, beside PgBouncer, HAProxy and no proxy at all
    Proxy(proxy::Options),
}

/// Measures what was asked for.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Failover(options) => failover::run(options),
        Bench::Proxy(options) => proxy::run(options),
    }
}

/// `chosen`, or all there are.
fn or_all<T: Copy>(chosen: &[T], all: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        all.to_vec()
    } else {
        chosen.to_vec()
    }
}
