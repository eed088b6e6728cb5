//! Faults × topology, each repeated, with what a client saw of them.
//! The method is documented in `docs/benchmarks.md`.
//!
//! **Invariant:** every run is audited like an end-to-end test; a figure of a run that lost a row
//! is printed with the loss beside it, and the exit code says so.

mod report;

use super::{machine, or_all};
use crate::exit::ExitCode;
use crate::incidents;
use crate::output;
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use lab::{Cluster, Disk, Etcd, Fault, Lab, Place, Shape, why_no_namespaces};
use report::{Cell, Report, Sample};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How the nodes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Topology {
    /// Three nodes, co-located voters.
    Three,
    /// A monitor and two nodes.
    Pair,
}

/// Where the cluster agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoreKind {
    Raft,
    Etcd,
}

impl Topology {
    pub(crate) const ALL: [Self; 2] = [Self::Three, Self::Pair];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Three => "three nodes",
            Self::Pair => "monitor + 2",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Options {
    /// Which faults, separated by commas; all unless given:
    /// postmaster, machine, cut, frozen, disk, agent, standby, switchover
    #[arg(long, value_delimiter = ',', value_name = "FAULT")]
    pub(crate) faults: Vec<Fault>,
    /// Which topologies, separated by commas; all unless given
    #[arg(long, value_delimiter = ',', value_name = "TOPOLOGY")]
    pub(crate) topologies: Vec<Topology>,
    /// Which store: the embedded one, or an etcd cluster of three on more hosts; a pair has the embedded one
    #[arg(long, value_enum, default_value_t = StoreKind::Raft)]
    pub(crate) store: StoreKind,
    /// How many times each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// How long cuts and freezes last, in seconds
    #[arg(long, default_value_t = 40, value_name = "SECONDS")]
    pub(crate) spell: u64,
    /// A JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Say on standard error what the nodes did after each fault, and when
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Where PostgreSQL's programs lie; found by itself otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
}

const PATIENCE: Duration = Duration::from_secs(90);

/// Runs every fault on every topology, and prints the figures.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let place = match why_no_namespaces() {
        None => Place::Namespaces,
        Some(why) => {
            output::note(&format!(
                "{why}: all nodes on loopback, without cut cables and full disks"
            ));
            Place::Loopback
        }
    };
    let mut cells = Vec::new();
    let topologies: &[Topology] = match options.store {
        StoreKind::Raft => &Topology::ALL,
        StoreKind::Etcd => &[Topology::Three],
    };
    for topology in or_all(&options.topologies, topologies) {
        if !topologies.contains(&topology) {
            bail!("a pair has the embedded store, there is nothing to measure with --store etcd");
        }
        for fault in or_all(&options.faults, &Fault::ALL) {
            if fault.needs_namespaces() && place == Place::Loopback {
                output::note(&format!("left out, it needs root: {}", fault.describe()));
                continue;
            }
            cells.push(measure(options, place, topology, fault)?);
        }
    }
    if cells.is_empty() {
        bail!("nothing could be measured here");
    }
    let report = Report::new(machine::describe(options.pg_bin.as_deref()), cells);
    if options.json {
        output::json(&report)?;
    } else {
        output::print(&report.table());
    }
    Ok(if report.kept() {
        ExitCode::Ok
    } else {
        ExitCode::Error
    })
}

/// All runs of one fault, on one cluster that becomes whole again in between.
fn measure(options: &Options, place: Place, topology: Topology, fault: Fault) -> Result<Cell> {
    output::note(&format!(
        "{} × {} on {} …",
        fault.describe(),
        options.runs,
        topology.as_str()
    ));
    let own = std::env::current_exe().context("where this program lies")?;
    let lab = Lab::within(place, &own, &std::env::temp_dir(), options.pg_bin.clone())?;
    let plan = Plan {
        fault,
        spell: Duration::from_secs(options.spell),
        timeline: options.timeline,
    };
    let (runs, store) = (options.runs, options.store);
    let (lab, samples) = lab.run(async move |lab| {
        let (mut cluster, _etcd) = set_up(lab, topology, store, fault).await?;
        let mut samples = Vec::new();
        for run in 1..=runs {
            let sample = once(lab, &mut cluster, &plan).await;
            let sample = sample.with_context(|| format!("run {run} of {runs}"))?;
            output::note(&format!("  {run}: {sample}"));
            samples.push(sample);
        }
        Ok(samples)
    });
    drop(lab);
    let samples = samples.with_context(|| format!("measure: {}", fault.describe()))?;
    Ok(Cell::new(topology, fault, samples))
}

async fn set_up(
    lab: &mut Lab,
    topology: Topology,
    store: StoreKind,
    fault: Fault,
) -> Result<(Cluster, Option<Etcd>)> {
    let disk = match fault {
        Fault::Disk => Disk::Tmpfs { megabytes: 400 },
        _ => Disk::Shared,
    };
    let etcd = match store {
        StoreKind::Raft => None,
        StoreKind::Etcd => Some(Etcd::three(lab, Disk::Shared).await?),
    };
    let shape = Shape {
        disk,
        etcd: etcd.as_ref().map_or_else(Vec::new, Etcd::addresses),
        ..Shape::default()
    };
    let mut cluster = match topology {
        Topology::Pair => Cluster::pair_on(lab, disk).await?,
        Topology::Three => Cluster::three(lab, &shape)?,
    };
    match topology {
        Topology::Pair => cluster.start_data_nodes()?,
        Topology::Three => cluster.start_all()?,
    }
    cluster.healthy(PATIENCE).await?;
    Ok((cluster, etcd))
}

/// What happens in each run of a cell.
#[derive(Clone, Copy, Debug)]
struct Plan {
    fault: Fault,
    spell: Duration,
    timeline: bool,
}

/// Load, fault, another primary (or none, where the fault is no reason), heal, whole again, audit.
async fn once(lab: &Lab, cluster: &mut Cluster, plan: &Plan) -> Result<Sample> {
    let ledger = cluster.ledger(1).await?;
    ledger.more(100, PATIENCE).await?;
    let old = cluster.primary().await?;
    let (begun, wall) = (Instant::now(), Timestamp::now());
    let fired = plan.fault.strike(lab, cluster, &old).await?;
    if plan.fault.moves_primary() {
        cluster.another_primary(&old, PATIENCE).await?;
    }
    ledger.more(100, PATIENCE).await?;
    if matches!(plan.fault, Fault::Cut | Fault::Frozen) {
        tokio::time::sleep(plan.spell.saturating_sub(begun.elapsed())).await;
    }
    if plan.timeline {
        for (at, what) in incidents::after(cluster, wall, i64::MAX).await {
            output::note(&format!("    {at:>+6} ms  {what}"));
        }
    }
    let healed = Instant::now();
    fired.heal(lab, cluster)?;
    let new = cluster.healthy(PATIENCE).await?;
    let whole = healed.elapsed();
    ledger.more(100, PATIENCE).await?;
    let verdict = ledger.stop().await?.audit(cluster).await?;
    let needless = !plan.fault.moves_primary() && new != old;
    Ok(Sample::new(&verdict, whole, needless))
}
