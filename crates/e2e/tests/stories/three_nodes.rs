//! Three nodes in network namespaces, and what befalls the primary.

use anyhow::{Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, spell, story};
use lab::Fault;
use rustix::process::Signal;
use std::time::Duration;

/// One fault of the primary under load, healed after `spell`.
async fn survives(world: &mut World<'_>, fault: Fault, spell: Duration) -> Result<()> {
    let ledger = world.load(4).await?;
    world.break_and_heal(fault, &ledger, spell).await?;
    world.reckon(ledger).await.map(drop)
}

#[test]
fn the_postmaster_is_killed() {
    story(
        "the_postmaster_is_killed",
        Topology::Three,
        Announced::FAILOVER,
        async |world| survives(world, Fault::Postmaster, Duration::ZERO).await,
    );
}

#[test]
fn the_machine_is_lost_and_comes_back() {
    story(
        "the_machine_is_lost_and_comes_back",
        Topology::Three,
        Announced::POWER,
        async |world| survives(world, Fault::Machine, Duration::ZERO).await,
    );
}

#[test]
fn the_primary_is_cut_off_and_comes_back() {
    story(
        "the_primary_is_cut_off_and_comes_back",
        Topology::Three,
        Announced::FAILOVER,
        async |world| survives(world, Fault::Cut, spell()).await,
    );
}

#[test]
fn the_machine_freezes_and_thaws() {
    story(
        "the_machine_freezes_and_thaws",
        Topology::Three,
        Announced::STOPPED,
        async |world| survives(world, Fault::Frozen, spell()).await,
    );
}

#[test]
fn a_person_switches_over() {
    story(
        "a_person_switches_over",
        Topology::Three,
        Announced::FAILOVER,
        async |world| survives(world, Fault::Switchover, Duration::ZERO).await,
    );
}

#[test]
fn the_data_disk_is_full() {
    story(
        "the_data_disk_is_full",
        Topology::ThreeOnSmallDisks,
        Announced::TROUBLE,
        async |world| survives(world, Fault::Disk, Duration::ZERO).await,
    );
}

#[test]
fn the_data_disk_hangs() {
    story(
        "the_data_disk_hangs",
        Topology::ThreeOnOwnDisks,
        Announced::TROUBLE,
        async |world| {
            let ledger = world.load(4).await?;
            let old = world.cluster.primary().await?;
            let node = world.cluster.node(&old)?;
            let disk = node.data_dir.parent().expect("a parent").to_owned();
            node.host.hang_disk(&disk)?;
            world
                .cluster
                .another_primary(&old, settle_deadline())
                .await?;
            ledger.more(50, settle_deadline()).await?;
            world.cluster.node(&old)?.host.resume_disk(&disk)?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// An orderly stop would wait for a checkpoint that this disk never takes, and hold the leadership meanwhile. The process
/// itself can't end while the kernel holds its writing thread.
#[test]
fn the_agent_is_stopped_while_its_data_disk_hangs() {
    let name = "the_agent_is_stopped_while_its_data_disk_hangs";
    let (disks, announced) = (Topology::ThreeOnOwnDisks, Announced::STOPPED_IN_TROUBLE);
    story(name, disks, announced, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let node = world.cluster.node_mut(&old)?;
        let disk = node.data_dir.parent().expect("a parent").to_owned();
        node.host.hang_disk(&disk)?;
        node.signal_agent(Signal::TERM)?;
        world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        ledger.more(50, settle_deadline()).await?;
        let node = world.cluster.node_mut(&old)?;
        node.host.resume_disk(&disk)?;
        node.stop(settle_deadline()).await?;
        node.start()?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn a_busy_backend_is_not_taken_for_a_dead_postgres() {
    let name = "a_busy_backend_is_not_taken_for_a_dead_postgres";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let mut ledger = world.load(2).await?;
        ledger.add_busy().await?;
        ledger.more(50, settle_deadline()).await?;
        world
            .break_and_heal(Fault::Postmaster, &ledger, Duration::ZERO)
            .await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_agent_of_the_primary_is_killed_and_restarted() {
    let name = "the_agent_of_the_primary_is_killed_and_restarted";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        world.cluster.node_mut(&old)?.kill_agent()?;
        world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        ledger.more(50, settle_deadline()).await?;
        world.cluster.node_mut(&old)?.start()?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_agent_is_restarted_at_once_and_nobody_notices() {
    let name = "the_agent_is_restarted_at_once_and_nobody_notices";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let node = world.cluster.node_mut(&old)?;
        node.kill_agent()?;
        node.start()?;
        world.whole().await?;
        ledger.more(50, settle_deadline()).await?;
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn the_agent_of_the_primary_is_stopped() {
    story(
        "the_agent_of_the_primary_is_stopped",
        Topology::Three,
        Announced::STOPPED,
        async |world| {
            let ledger = world.load(4).await?;
            let old = world.cluster.primary().await?;
            world.cluster.node(&old)?.signal_agent(Signal::STOP)?;
            world
                .cluster
                .another_primary(&old, settle_deadline())
                .await?;
            ledger.more(50, settle_deadline()).await?;
            // The guard has a clock of its own: nothing of the old primary may be left to acknowledge.
            let node = world.cluster.node(&old)?;
            lab::until("the guard has killed Postgres", settle_deadline(), || {
                node.postmaster_pid().is_err()
            })
            .await?;
            node.signal_agent(Signal::CONT)?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

#[test]
fn a_standby_is_lost_and_comes_back() {
    story(
        "a_standby_is_lost_and_comes_back",
        Topology::Three,
        Announced::POWER,
        async |world| {
            let ledger = world.load(4).await?;
            let primary = world.cluster.primary().await?;
            for standby in world.cluster.standbys().await? {
                let fired = Fault::Machine
                    .strike(world.lab, &mut world.cluster, &standby)
                    .await?;
                ledger.more(100, settle_deadline()).await?;
                fired.heal(world.lab, &mut world.cluster)?;
                world.whole().await?;
            }
            ensure!(
                world.cluster.primary().await? == primary,
                "the primary was changed for nothing"
            );
            world.reckon(ledger).await.map(drop)
        },
    );
}

#[test]
fn a_second_failure_follows_the_promotion() {
    story(
        "a_second_failure_follows_the_promotion",
        Topology::Three,
        Announced::TROUBLE,
        async |world| {
            let ledger = world.load(4).await?;
            let first = world.cluster.primary().await?;
            world.cluster.node(&first)?.kill_postmaster()?;
            let second = world
                .cluster
                .another_primary(&first, settle_deadline())
                .await?;
            world.cluster.node_mut(&second)?.kill_everything()?;
            world
                .cluster
                .another_primary(&second, settle_deadline())
                .await?;
            ledger.more(50, settle_deadline()).await?;
            world.cluster.node_mut(&second)?.start()?;
            world.reckon(ledger).await.map(drop)
        },
    );
}
