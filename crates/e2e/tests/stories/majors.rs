//! Every PostgreSQL major that is claimed: made, broken, switched over and rewound.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Terminal, Topology, World, programs_of, say, settle_deadline, story_on};
use lab::{Fault, Ledger, Node, until};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_pair_lives_on_postgres_13() {
    lives_on("a_pair_lives_on_postgres_13", 13);
}

#[test]
fn a_pair_lives_on_postgres_14() {
    lives_on("a_pair_lives_on_postgres_14", 14);
}

#[test]
fn a_pair_lives_on_postgres_15() {
    lives_on("a_pair_lives_on_postgres_15", 15);
}

#[test]
fn a_pair_lives_on_postgres_16() {
    lives_on("a_pair_lives_on_postgres_16", 16);
}

#[test]
fn a_pair_lives_on_postgres_17() {
    lives_on("a_pair_lives_on_postgres_17", 17);
}

#[test]
fn a_pair_lives_on_postgres_18() {
    lives_on("a_pair_lives_on_postgres_18", 18);
}

/// A major's programs; without them the test is not run, and says so.
fn programs(name: &str, major: u32) -> Option<PathBuf> {
    programs_of(major)
        .inspect_err(|why| {
            // PostgreSQL 13 is at its end of life: one day no mirror will have it.
            let needed = std::env::var_os("CI").is_some() && major > 13;
            assert!(!needed, "CI must have what {name} needs: {why:#}");
            say(&format!("{name}: not run: {why:#}"));
        })
        .ok()
}

fn lives_on(name: &'static str, major: u32) {
    let Some(programs) = programs(name, major) else {
        return;
    };
    story_on(
        name,
        programs,
        Topology::Pair,
        Announced::POWER,
        async move |world| {
            for node in world.cluster.data_nodes() {
                let version: String = node.ask("SHOW server_version_num").await?;
                let ran = version.parse::<u32>().context(version)? / 10_000;
                ensure!(ran == major, "{} runs PostgreSQL {ran}", node.name);
            }
            let ledger = world.load(4).await?;
            for fault in [Fault::Postmaster, Fault::Switchover] {
                world.break_and_heal(fault, &ledger, Duration::ZERO).await?;
            }
            a_primary_that_wrote_on_is_rewound(world, &ledger).await?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// Physical replication is within a major: a node of another one is told so, and harms nobody.
#[test]
fn a_standby_of_another_major_is_refused() {
    let name = "a_standby_of_another_major_is_refused";
    let (Some(ours), Some(others)) = (programs(name, 17), programs(name, 16)) else {
        return;
    };
    story_on(
        name,
        ours,
        Topology::Pair,
        Announced::FAILOVER,
        async move |world| {
            let monitor = world.cluster.node("monitor")?.api.clone();
            let others = world.lab.programs(others)?;
            let terminal = Terminal {
                host: world.lab.add_host("c", 13)?,
            };
            let create = |pgctl: &Path| {
                format!(
                    "STANDFAST_SECRET_FILE=../secret standfast create postgres --pgdata ./data \
                     --pgport 6003 --hostname 10.77.0.13 --name c --monitor {monitor} --pgctl {}",
                    pgctl.join("pg_ctl").display()
                )
            };
            let said = terminal.tries(&create(&others))?;
            said.refuses(5, &["PostgreSQL 17", "16", "--pgctl"])?;
            // Created for the right one, run with the other: an upgrade of the machine, say.
            let ours = world.lab.pg_bin();
            terminal.types(&create(ours))?;
            let swap = format!(
                "sed -i 's|{}|{}|' $(find home/.config -name standfast.yml)",
                ours.display(),
                others.display()
            );
            terminal.types(&swap)?;
            let mut agent = terminal.leaves_running("standfast run --pgdata ./data", "c.log")?;
            let log = terminal.host.directory().join("c.log");
            until("the node says why it can't", settle_deadline(), || {
                fs::read_to_string(&log)
                    .is_ok_and(|log| log.contains("runs PostgreSQL 17, we have 16"))
            })
            .await?;
            agent.kill()?;
            agent.wait()?;
            let data = terminal.host.directory().join("data/PG_VERSION");
            ensure!(!data.exists(), "something was copied");
            let ledger = world.load(1).await?;
            ledger.more(50, settle_deadline()).await?;
            let verdict = ledger.stop().await?.audit(&world.cluster).await?;
            verdict.check()
        },
    );
}

/// The old primary writes a row after its successor has taken over: what the network keeps from
/// happening elsewhere is done by hand here, so that there is something to rewind for certain.
async fn a_primary_that_wrote_on_is_rewound(world: &mut World<'_>, ledger: &Ledger) -> Result<()> {
    let old = world.cluster.primary().await?;
    let fired = Fault::Machine
        .strike(world.lab, &mut world.cluster, &old)
        .await?;
    let new = world
        .cluster
        .another_primary(&old, settle_deadline())
        .await?;
    ledger.more(50, settle_deadline()).await?;
    by_hand(
        world.cluster.node(&old)?,
        "CREATE TABLE diverged AS SELECT 1",
    )?;
    fired.heal(world.lab, &mut world.cluster)?;
    world.whole().await?;
    let node = world.cluster.node(&old)?;
    ensure!(
        node.log().contains("rewound to "),
        "{old} was not rewound: see its log"
    );
    for name in [&old, &new] {
        let node = world.cluster.node(name)?;
        let gone: bool = node.ask("SELECT to_regclass('diverged') IS NULL").await?;
        ensure!(gone, "{name} has what only {old} wrote");
    }
    Ok(())
}

/// PostgreSQL's single-user mode: crash recovery, one statement, a clean end.
fn by_hand(node: &Node, sql: &str) -> Result<()> {
    // It lies there so that nobody starts a primary by accident.
    fs::remove_file(node.host.outside(&node.data_dir.join("standby.signal")))?;
    let mut postgres = node
        .host
        .command(node.host.pg_bin().join("postgres"))
        .args(["--single", "-D"])
        .arg(&node.data_dir)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = postgres.stdin.take().context("a pipe")?;
    writeln!(input, "{sql}")?;
    drop(input);
    let ended = postgres.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.success() && !said.contains("ERROR"),
        "{sql}: {said}"
    );
    Ok(())
}
