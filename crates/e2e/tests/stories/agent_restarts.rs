//! The agent of the primary dies and is back at once: its guard keeps Postgres, its lease lives on, nothing changes.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::{Node, eventually};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often it is killed; more with `STANDFAST_E2E_KILLS`.
fn kills() -> u32 {
    let named = std::env::var("STANDFAST_E2E_KILLS").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(4)
}

async fn epoch(node: &Node) -> Result<u64> {
    let state = node.get("/api/v1/state").await?.json()?;
    state["epoch"].as_u64().context("no epoch")
}

async fn store_leader(node: &Node) -> Result<String> {
    let state = node.get("/api/v1/state").await?.json()?;
    let leader = state["store"]["leader"].as_str();
    leader.map(str::to_owned).context("no leader of the store")
}

/// Moves the store's leadership to `name`, by killing whoever has it.
async fn lead_the_store(world: &mut World<'_>, name: &str) -> Result<()> {
    loop {
        let leader = store_leader(world.cluster.node(name)?).await?;
        if leader == name {
            return Ok(());
        }
        let node = world.cluster.node_mut(&leader)?;
        node.kill_agent()?;
        eventually(
            "the store has another leader",
            settle_deadline(),
            async || {
                ensure!(
                    store_leader(world.cluster.node(name)?).await? != leader,
                    "not yet"
                );
                Ok(())
            },
        )
        .await?;
        world.cluster.node_mut(&leader)?.start()?;
        world.whole().await?;
    }
}

async fn kill_and_restart(world: &mut World<'_>, what: &str) -> Result<()> {
    let primary = world.cluster.primary().await?;
    let before = epoch(world.cluster.node(&primary)?).await?;
    let node = world.cluster.node_mut(&primary)?;
    node.kill_agent()?;
    let killed = Instant::now();
    node.start()?;
    let whole = world.whole().await?;
    let after = epoch(world.cluster.node(&whole)?).await?;
    world.say(&format!("{what}: whole after {:?}", killed.elapsed()));
    ensure!(
        (&whole, after) == (&primary, before),
        "{what}: {primary} led epoch {before}, {whole} leads epoch {after}"
    );
    Ok(())
}

#[test]
fn the_agent_of_an_idle_primary_is_restarted_at_once() {
    let name = "the_agent_of_an_idle_primary_is_restarted_at_once";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        for n in 1..=kills() {
            let primary = world.cluster.primary().await?;
            // Every other time the store's leader dies with it.
            if n % 2 == 0 {
                lead_the_store(world, &primary).await?;
            }
            let leader = store_leader(world.cluster.node(&primary)?).await?;
            kill_and_restart(world, &format!("{n}, {primary}, the store led by {leader}")).await?;
        }
        Ok(())
    });
}

#[test]
fn agents_are_restarted_under_their_postgres_in_a_pause() {
    let name = "agents_are_restarted_under_their_postgres_in_a_pause";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let primary = world.cluster.primary().await?;
        let before = epoch(world.cluster.node(&primary)?).await?;
        world
            .cluster
            .configure(&primary, &json!({"pause": true}))
            .await?;
        let names: Vec<String> = world
            .cluster
            .nodes
            .iter()
            .map(|it| it.name.clone())
            .collect();
        for name in &names {
            let node = world.cluster.node_mut(name)?;
            let postmaster = node.postmaster_pid()?;
            let ended = node.stop(settle_deadline()).await?;
            ensure!(ended.success(), "{name}: {ended}");
            node.start()?;
            world.whole().await?;
            let now = world.cluster.node(name)?.postmaster_pid()?;
            ensure!(now == postmaster, "{name}: Postgres is another one");
        }
        let after = epoch(world.cluster.node(&primary)?).await?;
        ensure!(
            (world.cluster.primary().await?, after) == (primary.clone(), before),
            "epoch {after} after {before}"
        );
        world
            .cluster
            .configure(&primary, &json!({"pause": null}))
            .await?;
        ledger.more(50, settle_deadline()).await?;
        world.reckon(ledger).await.map(drop)
    });
}

/// A new agent has never heard this Postgres; its pid file says that it takes connections, so it is no start to wait for.
#[test]
fn the_agent_is_restarted_while_postgres_hangs() {
    let name = "the_agent_is_restarted_while_postgres_hangs";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let node = world.cluster.node_mut(&old)?;
        node.kill_agent()?;
        let postmaster = node.postmaster_pid()?;
        node.host.signal(postmaster, Signal::STOP)?;
        node.start()?;
        let hung = Instant::now();
        world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        let took = hung.elapsed();
        world.say(&format!("another primary after {took:?}"));
        // A start is given a minute.
        ensure!(took < Duration::from_secs(20), "it took {took:?}");
        ledger.more(50, settle_deadline()).await?;
        world.reckon(ledger).await.map(drop)
    });
}
