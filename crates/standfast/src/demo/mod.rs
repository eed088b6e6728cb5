//! `standfast demo`: a cluster on this machine that loses its primary and repairs itself, with
//! the figures of what a client saw.
//!
//! **Invariant:** it starts the same binary with the same commands that a person would type; it
//! succeeds only if no acknowledged row was lost, and leaves nothing behind unless asked to.

mod failover;
mod screen;
mod status;

use crate::exit::ExitCode;
use anyhow::{Context, Result};
use lab::{Cluster, Lab, Ledger, Place, Verdict};
use screen::Screen;
use std::path::PathBuf;
use std::time::Duration;

/// What the person chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Options {
    /// Leave the cluster running at the end, and say how to play with it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where PostgreSQL's programs lie; found by itself otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
}

/// Nothing in the demo takes this long on a machine that is not in trouble.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays the demo on threads of its own: the client must go on while we kill.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    runtime.block_on(until_interrupted(options))
}

/// As much of the demo as Ctrl-C allows.
async fn until_interrupted(options: Options) -> Result<ExitCode> {
    let own = std::env::current_exe().context("where this program lies")?;
    let parent = std::env::temp_dir();
    let mut lab = Lab::within(Place::Loopback, &own, &parent, options.pg_bin)?;
    let screen = Screen::new();
    let played = tokio::select! {
        played = play(&mut lab, &screen) => Some(played),
        _ = tokio::signal::ctrl_c() => None,
    };
    let Some(played) = played else {
        screen.say("interrupted: everything that was started is stopped again");
        return Ok(ExitCode::Error);
    };
    let (mut cluster, verdict) = played?;
    let kept = report(&screen, &verdict);
    if options.keep {
        status::how_to_play(&screen, &lab, &cluster);
        cluster.nodes.iter_mut().for_each(lab::Node::leave_running);
        lab.leave_running();
    }
    Ok(if kept { ExitCode::Ok } else { ExitCode::Error })
}

async fn play(lab: &mut Lab, screen: &Screen) -> Result<(Cluster, Verdict)> {
    screen.act("A monitor and two nodes, on this machine");
    let mut cluster = bring_up(lab, screen).await?;
    screen.act("A client that inserts a row every 10 ms, over the multi-host URI");
    screen.command(&status::uri(&cluster));
    let ledger = cluster.ledger(1).await?;
    show_load(screen, &cluster, &ledger, 150).await?;
    screen.act("The primary's machine is lost: agent, guard and PostgreSQL are killed at once");
    let fall = failover::strike(&mut cluster, &ledger, screen).await?;
    show_load(screen, &cluster, &ledger, 100).await?;
    screen.act("The machine comes back");
    heal(&mut cluster, &fall.victim, screen).await?;
    show_load(screen, &cluster, &ledger, 100).await?;
    screen.end_of_line();
    let history = ledger.stop().await?;
    screen.act("What happened, in milliseconds after the kill");
    failover::timeline(screen, &fall, &cluster, &history).await;
    let verdict = history.audit(&cluster).await?;
    Ok((cluster, verdict))
}

async fn bring_up(lab: &mut Lab, screen: &Screen) -> Result<Cluster> {
    let begun = std::time::Instant::now();
    let mut cluster = Cluster::pair(lab).await?;
    for node in cluster.nodes.iter().rev() {
        screen.command(&status::create_command(lab, node));
        screen.command(&format!(
            "standfast run --pgdata {}",
            status::short(lab, &node.data_dir)
        ));
    }
    cluster.start_data_nodes()?;
    let whole = cluster.healthy(PATIENCE);
    status::live(screen, &cluster, None, whole).await?;
    screen.end_of_line();
    screen.say(&format!(
        "ready after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(cluster)
}

async fn show_load(screen: &Screen, cluster: &Cluster, ledger: &Ledger, rows: u64) -> Result<()> {
    status::live(screen, cluster, Some(ledger), ledger.more(rows, PATIENCE)).await
}

async fn heal(cluster: &mut Cluster, victim: &str, screen: &Screen) -> Result<()> {
    let begun = std::time::Instant::now();
    screen.command(&format!("standfast run --pgdata …/{victim}/data"));
    cluster.node_mut(victim)?.start()?;
    let whole = cluster.healthy(PATIENCE);
    status::live(screen, cluster, None, whole).await?;
    screen.end_of_line();
    let after = begun.elapsed().as_secs_f64();
    screen.say(&format!(
        "{victim} follows the new primary as a standby after {after:.1} s"
    ));
    Ok(())
}

/// The figures; true if the promise was kept.
fn report(screen: &Screen, verdict: &Verdict) -> bool {
    screen.act("The figures");
    screen.figure("rows acknowledged", verdict.acknowledged);
    screen.figure(
        "longest time without one (write gap)",
        format!("{} ms", verdict.gap.length.as_millis()),
    );
    screen.figure("errors that the client saw", verdict.errors);
    screen.figure("acknowledged rows lost", verdict.lost.len());
    screen.figure(
        "times that two nodes acknowledged at once",
        verdict.dual_acks.len(),
    );
    match verdict.check() {
        Ok(()) => true,
        Err(error) => {
            screen.say(&format!("the promise was broken: {error:#}"));
            false
        }
    }
}
