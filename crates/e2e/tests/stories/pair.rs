//! A monitor and two nodes: any one of the three may die, the monitor included.

use anyhow::{Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::Fault;
use std::time::Duration;

#[test]
fn the_monitor_is_lost_and_returns() {
    story(
        "the_monitor_is_lost_and_returns",
        Topology::Pair,
        Announced::POWER,
        async |world| {
            let ledger = world.load(4).await?;
            let primary = world.cluster.primary().await?;
            let fired = Fault::Machine
                .strike(world.lab, &mut world.cluster, "monitor")
                .await?;
            ledger.more(200, settle_deadline()).await?;
            fired.heal(world.lab, &mut world.cluster)?;
            world.whole().await?;
            ensure!(
                world.cluster.primary().await? == primary,
                "the primary was changed for nothing"
            );
            world.reckon(ledger).await.map(drop)
        },
    );
}

async fn survives(world: &mut World<'_>, fault: Fault) -> Result<()> {
    let ledger = world.load(4).await?;
    world.break_and_heal(fault, &ledger, Duration::ZERO).await?;
    world.reckon(ledger).await.map(drop)
}

#[test]
fn the_postmaster_of_a_pair_is_killed() {
    story(
        "the_postmaster_of_a_pair_is_killed",
        Topology::Pair,
        Announced::POWER,
        async |world| survives(world, Fault::Postmaster).await,
    );
}

#[test]
fn a_machine_of_a_pair_is_lost_and_comes_back() {
    let name = "a_machine_of_a_pair_is_lost_and_comes_back";
    story(name, Topology::Pair, Announced::POWER, async |world| {
        survives(world, Fault::Machine).await
    });
}

/// What commits wait is `synchronous_relax_after` (2 s) from the standby's last word, not what
/// PostgreSQL needs to notice that it is gone (5 s). The load of a test machine comes on top.
const WAITS_AT_MOST: Duration = Duration::from_millis(4500);

#[test]
fn commits_wait_for_the_lost_standby_of_a_pair_and_go_on() {
    let name = "commits_wait_for_the_lost_standby_of_a_pair_and_go_on";
    story(name, Topology::Pair, Announced::POWER, async |world| {
        let ledger = world.load(4).await?;
        world
            .break_and_heal(Fault::Standby, &ledger, Duration::ZERO)
            .await?;
        let gap = world.reckon(ledger).await?.gap.length;
        ensure!(gap < WAITS_AT_MOST, "commits waited {gap:?}");
        Ok(())
    });
}

#[test]
fn the_power_of_a_pair_goes_and_comes_back() {
    story(
        "the_power_of_a_pair_goes_and_comes_back",
        Topology::Pair,
        Announced::POWER,
        async |world| {
            let ledger = world.load(4).await?;
            world.cluster.cut_power()?;
            world.cluster.start_all()?;
            world.whole().await?;
            ledger.more(50, settle_deadline()).await?;
            world.reckon(ledger).await.map(drop)
        },
    );
}
