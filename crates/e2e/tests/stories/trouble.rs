//! Three nodes, and trouble that is less than the loss of a machine: half-cut networks, full
//! disks, exhausted connections, standbys that lag, people in a hurry.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, spell, story};
use lab::{Fault, Ledger, Node, eventually};
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn a_backend_is_killed() {
    let name = "a_backend_is_killed";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let node = world.cluster.node(&old)?;
        // As the kernel does when memory ends: PostgreSQL then ends every other backend too.
        let victim: i32 = node
            .ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
            .await?;
        node.host.signal(victim, Signal::KILL)?;
        goes_on_elsewhere(world, &ledger, &old).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn postgres_hangs_and_its_agent_lives() {
    let name = "postgres_hangs_and_its_agent_lives";
    story(name, Topology::Three, Announced::TROUBLE, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let host = &world.cluster.node(&old)?.host;
        for process in host.processes() {
            let program = process.command.split(' ').next().unwrap_or_default();
            if program.ends_with("/postgres") || program == "postgres:" {
                host.signal(process.pid, Signal::STOP)?;
            }
        }
        goes_on_elsewhere(world, &ledger, &old).await?;
        world.reckon(ledger).await.map(drop)
    });
}

/// Whoever is in already is served on, so the agent must knock at the door.
#[test]
fn only_the_postmaster_hangs() {
    let name = "only_the_postmaster_hangs";
    story(name, Topology::Three, Announced::TROUBLE, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let node = world.cluster.node(&old)?;
        node.host.signal(node.postmaster_pid()?, Signal::STOP)?;
        goes_on_elsewhere(world, &ledger, &old).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_primary_is_heard_but_does_not_hear() {
    let name = "the_primary_is_heard_but_does_not_hear";
    story(name, Topology::Three, Announced::POWER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        for standby in &standbys {
            world.lab.network()?.drop_one_way(standby, &old)?;
        }
        goes_on_elsewhere(world, &ledger, &old).await?;
        for standby in &standbys {
            world.lab.network()?.restore_one_way(standby, &old)?;
        }
        world.reckon(ledger).await.map(drop)
    });
}

/// Everybody still sees the third: the primary has its majority, and a standby. The one that leads
/// the store is not the one cut off: a primary that can't reach it would have to go.
#[test]
fn the_primary_and_a_standby_do_not_see_each_other() {
    let name = "the_primary_and_a_standby_do_not_see_each_other";
    story(name, Topology::Three, Announced::POWER, async |world| {
        let ledger = world.load(4).await?;
        let primary = world.cluster.primary().await?;
        let state = world.cluster.node(&primary)?.get("/api/v1/state").await?;
        let chairs = state.json()?["store"]["leader"].clone();
        let mut standbys = world.cluster.standbys().await?.into_iter();
        let standby = standbys.find(|name| chairs != **name);
        let standby = standby.context("two lead the store")?;
        let network = world.lab.network()?;
        network.drop_one_way(&primary, &standby)?;
        network.drop_one_way(&standby, &primary)?;
        let begun = ledger.elapsed();
        while ledger.elapsed() < begun + spell() {
            ledger.more(50, settle_deadline()).await?;
        }
        let network = world.lab.network()?;
        network.restore_one_way(&primary, &standby)?;
        network.restore_one_way(&standby, &primary)?;
        stays(world, &primary).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_disk_of_a_standby_is_full() {
    let name = "the_disk_of_a_standby_is_full";
    let topology = Topology::ThreeOnSmallDisks;
    story(name, topology, Announced::TROUBLE, async |world| {
        let ledger = world.load(4).await?;
        let primary = world.cluster.primary().await?;
        let standby = world.cluster.standbys().await?.remove(0);
        let node = world.cluster.node(&standby)?;
        let disk = node.data_dir.parent().expect("a parent").to_owned();
        node.host.fill_disk(&disk)?;
        // It needs a new segment, and has no room for one.
        let switch = "SELECT count(pg_switch_wal()) FROM generate_series(1, 3)";
        let _: i64 = world.cluster.node(&primary)?.ask(switch).await?;
        write_wal(world.cluster.node(&primary)?, 40).await?;
        ledger.more(200, settle_deadline()).await?;
        world.cluster.node(&standby)?.host.free_disk(&disk)?;
        world.whole().await?;
        stays(world, &primary).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_disk_of_the_primarys_store_is_full() {
    let name = "the_disk_of_the_primarys_store_is_full";
    let topology = Topology::ThreeOnSmallStores;
    let announced = Announced(&[
        "No space left on device",
        "the store no longer has this node as leader",
        "WAL that the cluster does not have was discarded",
        "postmaster.pid names a process that is not its; removed",
    ]);
    story(name, topology, announced, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let host = &world.cluster.node(&old)?.host;
        let disk = host.directory().join("store");
        host.fill_disk(&disk)?;
        // Its member of the store can't keep what it promises any more, so it may not go on.
        let node = world.cluster.node_mut(&old)?;
        lab::until("its agent has ended", settle_deadline(), || {
            !node.is_running()
        })
        .await?;
        goes_on_elsewhere(world, &ledger, &old).await?;
        let node = world.cluster.node_mut(&old)?;
        node.host.free_disk(&disk)?;
        // As its service manager does.
        node.start()?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn connections_run_out_and_nothing_else_happens() {
    let name = "connections_run_out_and_nothing_else_happens";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let primary = world.cluster.primary().await?;
        let node = world.cluster.node(&primary)?;
        let mut held = Vec::new();
        while let Ok(client) = node.sql().await {
            held.push(client);
        }
        ensure!(held.len() > 50, "only {} connections", held.len());
        let begun = ledger.elapsed();
        while ledger.elapsed() < begun + spell() {
            ledger.more(50, settle_deadline()).await?;
        }
        drop(held);
        stays(world, &primary).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_primary_dies_while_replay_is_paused() {
    let name = "the_primary_dies_while_replay_is_paused";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let standbys = world.cluster.standbys().await?;
        for standby in &standbys {
            let sql = world.cluster.node(standby)?.sql().await?;
            sql.batch_execute("SELECT pg_wal_replay_pause()").await?;
        }
        // These wait in the standbys' WAL.
        ledger.more(200, settle_deadline()).await?;
        let old = world.cluster.primary().await?;
        world.cluster.node(&old)?.kill_postmaster()?;
        goes_on_elsewhere(world, &ledger, &old).await?;
        // Who leads went on by itself; the other stays as it was told to be, and so does not yet
        // follow to the new timeline.
        let new = world.cluster.primary().await?;
        for standby in standbys.iter().filter(|name| **name != new) {
            let node = world.cluster.node(standby)?;
            eventually("replay is resumed", settle_deadline(), async || {
                let sql = node.sql().await?;
                sql.batch_execute("SELECT pg_wal_replay_resume()").await?;
                Ok(())
            })
            .await?;
        }
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn a_standby_whose_wal_is_gone_is_cloned() {
    let name = "a_standby_whose_wal_is_gone_is_cloned";
    let topology = Topology::ThreeOnLittleWal;
    story(name, topology, Announced::POWER, async |world| {
        let ledger = world.load(2).await?;
        let primary = world.cluster.primary().await?;
        let standby = world.cluster.standbys().await?.remove(0);
        world.cluster.node_mut(&standby)?.kill_everything()?;
        let node = world.cluster.node(&primary)?;
        eventually(
            "the standby's slot has lost its WAL",
            settle_deadline(),
            async || {
                write_wal(node, 30).await?;
                let lost: i64 = node
                    .ask("SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'")
                    .await?;
                ensure!(lost > 0, "not yet");
                Ok(())
            },
        )
        .await?;
        world.cluster.node_mut(&standby)?.start()?;
        world.whole().await?;
        stays(world, &primary).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn after_the_power_loss_two_of_three_suffice() {
    let name = "after_the_power_loss_two_of_three_suffice";
    story(name, Topology::Three, Announced::POWER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        world.cluster.cut_power()?;
        // The primary's machine stays dark: the two others have every acknowledged row between them.
        for standby in &standbys {
            world.cluster.node_mut(standby)?.start()?;
        }
        goes_on_elsewhere(world, &ledger, &old).await?;
        world.cluster.node_mut(&old)?.start()?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn a_person_switches_over_again_and_again() {
    let name = "a_person_switches_over_again_and_again";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        for _ in 0..5 {
            world
                .break_and_heal(Fault::Switchover, &ledger, Duration::ZERO)
                .await?;
        }
        world.reckon(ledger).await.map(drop)
    });
}

/// A cancelled wait for the standby is told to the client as a success with a warning, and is none.
#[test]
fn commits_are_cancelled_while_they_wait() {
    let name = "commits_are_cancelled_while_they_wait";
    story(name, Topology::Three, Announced::POWER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let node = world.cluster.node(&old)?;
        let sql = node.sql().await?;
        for standby in world.cluster.standbys().await? {
            world.lab.network()?.drop_one_way(&old, &standby)?;
        }
        let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
                      WHERE wait_event = 'SyncRep'";
        eventually(
            "commits that wait are cancelled",
            settle_deadline(),
            async || {
                let cancelled: i64 = sql.query_one(cancel, &[]).await?.try_get(0)?;
                ensure!(cancelled >= 3, "{cancelled} waited");
                Ok(())
            },
        )
        .await?;
        goes_on_elsewhere(world, &ledger, &old).await?;
        for name in ["n1", "n2", "n3"].iter().filter(|name| **name != old) {
            world.lab.network()?.restore_one_way(&old, name)?;
        }
        world.reckon(ledger).await.map(drop)
    });
}

async fn goes_on_elsewhere(world: &World<'_>, ledger: &Ledger, old: &str) -> Result<()> {
    world
        .cluster
        .another_primary(old, settle_deadline())
        .await?;
    ledger.more(50, settle_deadline()).await
}

async fn stays(world: &World<'_>, primary: &str) -> Result<()> {
    let now = world.cluster.primary().await?;
    ensure!(now == primary, "the primary was changed for nothing: {now}");
    Ok(())
}

/// So many megabytes of WAL, and a checkpoint that lets go of what nobody needs.
async fn write_wal(node: &Node, megabytes: i32) -> Result<()> {
    let sql = node.sql().await?;
    let write = format!(
        "SELECT count(pg_logical_emit_message(false, 'wal', repeat('x', 1000000))) \
         FROM generate_series(1, {megabytes}); CHECKPOINT"
    );
    sql.batch_execute(&write).await?;
    Ok(())
}
