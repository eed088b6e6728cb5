//! pgbench against one server: direct, and through each proxy that this machine has, in turns.
//!
//! **Invariant:** figures are compared only within one round: whatever else the machine does in that
//! minute befalls all of them.

mod contestant;
mod pgbench;
mod report;

use super::{machine, or_all};
use crate::exit::ExitCode;
use crate::output;
use anyhow::{Context, Result, bail};
use contestant::{Contestant, Kind, Stand};
use lab::{Lab, Place};
use pgbench::{Load, Protocol, Script};
use report::{Cell, Report};
use std::path::PathBuf;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Options {
    /// Which transactions, separated by commas; all unless given
    #[arg(long, value_delimiter = ',', value_name = "SCRIPT")]
    scripts: Vec<Script>,
    /// Which protocols of pgbench, separated by commas; all unless given
    #[arg(long, value_delimiter = ',', value_name = "PROTOCOL")]
    protocols: Vec<Protocol>,
    /// How many clients at a time, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: Vec<u16>,
    /// How many rounds; in each, everything is measured once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long each measurement lasts, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Server connections of each pool
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pool_size: u16,
    /// pgbench's scale
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
    /// A JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Where PostgreSQL's programs lie; found by itself otherwise
    #[arg(long, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

/// Runs every load against every contestant, and prints the figures.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let own = std::env::current_exe().context("where this program lies")?;
    let parent = std::env::temp_dir();
    let lab = Lab::within(Place::Loopback, &own, &parent, options.pg_bin.clone())?;
    let machine = machine::describe(options.pg_bin.as_deref());
    let wanted = options.clone();
    let (lab, cells) = lab.run(async move |lab| measure(lab, &wanted));
    drop(lab);
    let report = Report::new(machine, options.runs, options.seconds, cells?);
    if options.json {
        output::json(&report)?;
    } else {
        output::print(&report.tables());
    }
    Ok(ExitCode::Ok)
}

fn measure(lab: &mut Lab, options: &Options) -> Result<Vec<Cell>> {
    let most = options.clients.iter().copied().max().unwrap_or(1);
    let stand = Stand::set_up(lab, most.max(options.pool_size), options.scale)?;
    let loads = loads(options);
    let mut cells: Vec<_> = loads.iter().map(|load| Cell::new(*load)).collect();
    let kinds = stand.kinds();
    if !kinds.contains(&Kind::PgBouncer) {
        output::note("no pgbouncer here: nothing to compare pooling with");
    }
    for (load, cell) in loads.iter().zip(&mut cells) {
        let sizes = contestant::Sizes {
            clients: load.clients,
            pool: options.pool_size,
        };
        let mut contestants = kinds
            .iter()
            .map(|kind| Contestant::start(lab, &stand, *kind, load.protocol, sizes))
            .collect::<Result<Vec<_>>>()?;
        for run in 0..=options.runs {
            // The first round opens the pools, fills the caches, and counts for nothing.
            let seconds = if run == 0 { 1 } else { options.seconds };
            for one in &mut contestants {
                let figures = pgbench::run(&stand, one, *load, seconds);
                let figures = figures.with_context(|| format!("{load} {}", one.kind))?;
                if run > 0 {
                    cell.add(one, figures);
                }
            }
        }
        output::note(&format!("{cell}"));
    }
    if cells.is_empty() {
        bail!("nothing to measure");
    }
    Ok(cells)
}

fn loads(options: &Options) -> Vec<Load> {
    let scripts = or_all(&options.scripts, &Script::ALL);
    let protocols = or_all(&options.protocols, &Protocol::ALL);
    let mut loads = Vec::new();
    for script in scripts {
        for protocol in &protocols {
            for clients in &options.clients {
                loads.push(Load {
                    script,
                    protocol: *protocol,
                    clients: *clients,
                });
            }
        }
    }
    loads
}
