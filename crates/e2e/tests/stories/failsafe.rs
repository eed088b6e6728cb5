//! `failsafe_mode`: a leader that loses etcd stays in office by the word of its members, and by nothing less.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::eventually;
use serde_json::{Value, json};
use std::time::Duration;

/// More than three leases.
const AWAY: Duration = Duration::from_secs(10);

async fn failsafe_is_on(world: &World<'_>) -> Result<String> {
    let primary = world.cluster.primary().await?;
    let change = json!({"failsafe_mode": true});
    world.cluster.configure(&primary, &change).await?;
    let node = world.cluster.node(&primary)?;
    eventually("everybody would be asked", settle_deadline(), async || {
        let listed: Value = node.get("/failsafe").await?.json()?;
        let listed = listed.as_object().context("no object")?;
        ensure!(listed.len() == 3, "{listed:?}");
        // Whose word counts: those on whom commits rest.
        let members = world.cluster.members_seen_by(node).await?;
        let synchronous = members.iter().filter(|it| it.role == "quorum_standby");
        ensure!(synchronous.count() == 2, "{members:?}");
        Ok(())
    })
    .await?;
    Ok(primary)
}

async fn is_active(world: &World<'_>, name: &str) -> Result<()> {
    let node = world.cluster.node(name)?;
    eventually("the members hold still", settle_deadline(), async || {
        let status: Value = node.get("/patroni").await?.json()?;
        ensure!(status["failsafe_mode_is_active"] == true, "{status}");
        Ok(())
    })
    .await
}

/// Commits go on while etcd is away, by the same Postgres, on the same timeline.
async fn etcd_is_away(world: &mut World<'_>, lose_a_standby: bool) -> Result<()> {
    let primary = failsafe_is_on(world).await?;
    let ledger = world.load(4).await?;
    let postmaster = world.cluster.node(&primary)?.postmaster_pid()?;
    world.etcd()?.kill_all()?;
    let begun = tokio::time::Instant::now();
    is_active(world, &primary).await?;
    if lose_a_standby {
        let lost = world.cluster.standbys().await?.remove(0);
        world.cluster.node_mut(&lost)?.kill_everything()?;
    }
    // The length of the fault is part of the story, not a wait for something.
    tokio::time::sleep_until(begun + AWAY).await;
    ledger.more(50, settle_deadline()).await?;
    world.etcd()?.start_all()?;
    for node in &mut world.cluster.nodes {
        if !node.is_running() {
            node.start()?;
        }
    }
    let leads = world.whole().await?;
    ensure!(leads == primary, "{leads} leads, not {primary}");
    let node = world.cluster.node(&primary)?;
    ensure!(node.postmaster_pid()? == postmaster, "restarted");
    let timeline: i32 = node
        .ask("SELECT timeline_id FROM pg_control_checkpoint()")
        .await?;
    ensure!(timeline == 1, "timeline {timeline}");
    world.reckon(ledger).await.map(drop)
}

#[test]
fn the_leader_stays_while_etcd_is_away() {
    let announced = Announced::FAILSAFE;
    let topology = Topology::ThreeWithEtcd;
    story(
        "the_leader_stays_while_etcd_is_away",
        topology,
        announced,
        async |world| etcd_is_away(world, false).await,
    );
}

/// One synchronous standby of two is enough: the other alone can prove nothing. The members ask each other by HTTPS,
/// and nobody is answered who shows no certificate.
/// Patroni: REST | `failsafe_mode`, `GET` and `POST /failsafe` | works; with synchronous commits as many members
///   must answer as a commit needs, not all; by HTTPS where the members' ports speak it
#[test]
fn the_leader_stays_without_etcd_and_a_standby() {
    let announced = Announced::FAILSAFE;
    let topology = Topology::ThreeWithEtcdByHttps;
    story(
        "the_leader_stays_without_etcd_and_a_standby",
        topology,
        announced,
        async |world| etcd_is_away(world, true).await,
    );
}

/// Its leader key ends in etcd, and nobody takes it: first the members hold still, and when their leader dies one of
/// them takes over.
/// Patroni: Failover | leader key with `ttl` | works; the guard, a process of its own, ends a primary whose lease has
///   ended, whatever became of the agent
#[test]
fn the_leader_alone_is_cut_off_from_etcd() {
    let name = "the_leader_alone_is_cut_off_from_etcd";
    let announced = Announced::FAILSAFE;
    story(name, Topology::ThreeWithEtcd, announced, async |world| {
        let primary = failsafe_is_on(world).await?;
        let ledger = world.load(4).await?;
        let postmaster = world.cluster.node(&primary)?.postmaster_pid()?;
        let standby = world.cluster.standbys().await?.remove(0);
        let members = world.etcd()?.names();
        let cut = |world: &World<'_>, off: bool| -> Result<()> {
            let network = world.lab.network()?;
            for etcd in &members {
                if off {
                    network.drop_one_way(&primary, etcd)?;
                } else {
                    network.restore_one_way(&primary, etcd)?;
                }
            }
            Ok(())
        };
        for again in [true, false] {
            cut(world, true)?;
            let node = world.cluster.node(&standby)?;
            eventually("the leader key has ended", settle_deadline(), async || {
                let status: Value = node.get("/patroni").await?.json()?;
                ensure!(status["cluster_unlocked"] == true, "{status}");
                Ok(())
            })
            .await?;
            is_active(world, &primary).await?;
            ledger.more(50, settle_deadline()).await?;
            if again {
                cut(world, false)?;
                ensure!(world.whole().await? == primary);
                let node = world.cluster.node(&primary)?;
                ensure!(node.postmaster_pid()? == postmaster, "restarted");
            }
        }
        world.cluster.node_mut(&primary)?.kill_everything()?;
        let deadline = settle_deadline();
        world.cluster.another_primary(&primary, deadline).await?;
        ledger.more(50, settle_deadline()).await?;
        cut(world, false)?;
        world.cluster.node_mut(&primary)?.start()?;
        world.reckon(ledger).await.map(drop)
    });
}
