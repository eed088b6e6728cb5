//! Three nodes: the store loses its majority, the power goes, and the way back in every order.

use anyhow::Result;
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::Node;

#[test]
fn the_store_loses_its_majority_and_gets_it_back() {
    let name = "the_store_loses_its_majority_and_gets_it_back";
    story(name, Topology::Three, Announced::POWER, async |world| {
        let ledger = world.load(4).await?;
        let primary = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        for standby in &standbys {
            world.cluster.node_mut(standby)?.kill_agent()?;
        }
        // Nobody can renew a lease now: the primary must cease to be one.
        let node = world.cluster.node(&primary)?;
        lab::until("the primary is fenced", settle_deadline(), || {
            node.postmaster_pid().is_err()
        })
        .await?;
        for standby in &standbys {
            world.cluster.node_mut(standby)?.start()?;
        }
        world.reckon(ledger).await.map(drop)
    });
}

#[test]
fn every_cable_is_pulled_and_put_back() {
    story(
        "every_cable_is_pulled_and_put_back",
        Topology::Three,
        Announced::POWER,
        async |world| {
            let ledger = world.load(4).await?;
            let primary = world.cluster.primary().await?;
            for name in ["n1", "n2", "n3"] {
                world.lab.network()?.set_link(name, false)?;
            }
            let node = world.cluster.node(&primary)?;
            lab::until("the primary is fenced", settle_deadline(), || {
                node.postmaster_pid().is_err()
            })
            .await?;
            for name in ["n1", "n2", "n3"] {
                world.lab.network()?.set_link(name, true)?;
            }
            world.reckon(ledger).await.map(drop)
        },
    );
}

#[test]
fn the_primary_is_not_heard_but_hears() {
    story(
        "the_primary_is_not_heard_but_hears",
        Topology::Three,
        Announced::POWER,
        async |world| {
            let ledger = world.load(4).await?;
            let primary = world.cluster.primary().await?;
            let standbys = world.cluster.standbys().await?;
            for standby in &standbys {
                world.lab.network()?.drop_one_way(&primary, standby)?;
            }
            world
                .cluster
                .another_primary(&primary, settle_deadline())
                .await?;
            ledger.more(50, settle_deadline()).await?;
            for standby in &standbys {
                world.lab.network()?.restore_one_way(&primary, standby)?;
            }
            world.reckon(ledger).await.map(drop)
        },
    );
}

#[test]
fn the_power_goes_and_comes_back() {
    story(
        "the_power_goes_and_comes_back",
        Topology::Three,
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

/// Cuts the power and starts the nodes one after the other, each when the one before it is up.
async fn restart_in(world: &mut World<'_>, order: [&str; 3]) -> Result<()> {
    let ledger = world.load(2).await?;
    world.cluster.cut_power()?;
    for name in order {
        let node: &mut Node = world.cluster.node_mut(name)?;
        node.start()?;
        node.wait_for_api().await?;
    }
    world.reckon(ledger).await.map(drop)
}

#[test]
fn after_the_power_loss_any_order_will_do() {
    story(
        "after_the_power_loss_any_order_will_do",
        Topology::Three,
        Announced::POWER,
        async |world| {
            let orders = [
                ["n1", "n2", "n3"],
                ["n1", "n3", "n2"],
                ["n2", "n1", "n3"],
                ["n2", "n3", "n1"],
                ["n3", "n1", "n2"],
                ["n3", "n2", "n1"],
            ];
            for order in orders {
                restart_in(world, order).await?;
            }
            Ok(())
        },
    );
}
