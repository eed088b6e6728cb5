//! Parameters of which a standby must not have less than its primary, changed for the cluster and restarted in the
//! wrong order. Before PostgreSQL 14 such a standby ends; later ones pause replay until somebody restarts them.

use anyhow::{Result, ensure};
use e2e::{Announced, Topology, World, programs_of, say, settle_deadline, story, story_on};
use lab::eventually;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// With PostgreSQL's own values of them, or ours.
const CHANGED: [(&str, u64); 4] = [
    ("max_worker_processes", 8),
    ("max_wal_senders", 16),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// What is said where Postgres refuses to run on with what it has, before 14.
const SAID: Announced = Announced(&[
    "the store no longer has this node as leader",
    "the action failed and is decided anew",
]);

async fn ask_for(world: &World<'_>, more: u64) -> Result<()> {
    let parameters: serde_json::Map<String, Value> = CHANGED
        .iter()
        .map(|(name, usual)| ((*name).to_owned(), (usual + more).into()))
        .collect();
    let body = json!({"postgresql": {"parameters": parameters}});
    let leader = world.cluster.primary().await?;
    let answer = world.cluster.ask("PATCH", &leader, "/config", &body, LIMIT);
    let answer = answer.await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(())
}

/// Whether a restart is pending there, for all of them or none.
async fn pending(world: &World<'_>, node: &str, wanted: bool) -> Result<()> {
    let what = format!("pending_restart of {node}: {wanted}");
    eventually(&what, settle_deadline(), async || {
        let document = world.cluster.node(node)?.get("/patroni").await?.json()?;
        let reasons = document["pending_restart_reason"].as_object();
        let found = reasons.map_or(0, |reasons| reasons.len());
        let all = if wanted { CHANGED.len() } else { 0 };
        ensure!(found == all, "{document}");
        Ok(())
    })
    .await
}

async fn restart(world: &World<'_>, node: &str) -> Result<()> {
    let body = json!({});
    let answer = world.cluster.post(node, "/restart", &body, LIMIT).await?;
    world.say(&format!("restart of {node}: {}", answer.body));
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(())
}

async fn have(world: &World<'_>, nodes: &[&str], more: u64) -> Result<()> {
    let what = format!("{nodes:?} have {more} more");
    eventually(&what, settle_deadline(), async || {
        for node in nodes {
            for (name, usual) in CHANGED {
                let shown: String = world
                    .cluster
                    .node(node)?
                    .ask(&format!("SHOW {name}"))
                    .await?;
                ensure!(
                    shown == (usual + more).to_string(),
                    "{name} of {node}: {shown}"
                );
            }
        }
        Ok(())
    })
    .await
}

/// Every node replays what is written now.
async fn nobody_is_stuck(world: &World<'_>, leader: &str) -> Result<()> {
    ensure!(world.whole().await? == leader, "the leader was changed");
    let primary = world.cluster.node(leader)?;
    let end: String = primary
        .ask("SELECT pg_current_wal_insert_lsn()::text")
        .await?;
    let question = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    let standbys = world.cluster.standbys().await?;
    eventually("standbys replay", settle_deadline(), async || {
        for node in &standbys {
            let replayed: bool = world.cluster.node(node)?.ask(&question).await?;
            ensure!(replayed, "{node} does not replay");
        }
        Ok(())
    })
    .await
}

/// More, and the primary first: the standbys follow by themselves.
async fn raise(world: &World<'_>) -> Result<()> {
    let leader = world.cluster.primary().await?;
    let standbys = world.cluster.standbys().await?;
    let (b, c) = (standbys[0].as_str(), standbys[1].as_str());
    have(world, &[&leader, b, c], 0).await?;
    ask_for(world, 40).await?;
    pending(world, b, true).await?;
    restart(world, &leader).await?;
    have(world, &[&leader, b, c], 40).await?;
    nobody_is_stuck(world, &leader).await
}

async fn raise_and_lower(world: &World<'_>) -> Result<()> {
    raise(world).await?;
    let leader = world.cluster.primary().await?;
    let standbys = world.cluster.standbys().await?;
    let b = standbys[0].as_str();

    // Less, and a standby first: it stays where its primary is, and says no more that a restart would help.
    ask_for(world, 8).await?;
    pending(world, &leader, true).await?;
    pending(world, b, false).await?;
    restart(world, b).await?;
    have(world, &[b], 40).await?;
    restart(world, &leader).await?;
    have(world, &[&leader], 8).await?;
    nobody_is_stuck(world, &leader).await?;
    pending(world, b, true).await?;
    restart(world, b).await?;
    have(world, &[b], 8).await?;

    // More again, on one standby, and then that one leads: the others follow it.
    ask_for(world, 20).await?;
    restart(world, b).await?;
    have(world, &[b], 20).await?;
    world.whole().await?;
    let order = json!({"leader": leader, "candidate": b});
    let answer = world.cluster.post(&leader, "/switchover", &order, LIMIT);
    let answer = answer.await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    nobody_is_stuck(world, b).await?;
    have(world, &[&leader, b], 20).await
}

/// Patroni: Configuration | `max_connections`, `max_worker_processes`, `max_wal_senders`,
///   `max_prepared_transactions`, `max_locks_per_transaction` changed | works in any order of restarts: a standby
///   never runs with less than its primary, one that has too little is restarted by itself, and `pending_restart`
///   names only what a restart would change
#[test]
fn parameters_are_raised_and_lowered_in_any_order() {
    let name = "parameters_are_raised_and_lowered_in_any_order";
    story(name, Topology::Three, SAID, async |world| {
        let ledger = world.load(2).await?;
        raise_and_lower(world).await?;
        ledger.more(50, settle_deadline()).await?;
        world.reckon(ledger).await.map(drop)
    });
}

/// Patroni: Configuration | `max_connections`, `max_worker_processes`, `max_wal_senders`,
///   `max_prepared_transactions`, `max_locks_per_transaction` changed
#[test]
fn a_standby_that_has_too_little_is_started_again_on_13() {
    let name = "a_standby_that_has_too_little_is_started_again_on_13";
    match programs_of(13) {
        Ok(programs) => story_on(name, programs, Topology::Three, SAID, async |world| {
            let ledger = world.load(2).await?;
            raise(world).await?;
            world.reckon(ledger).await.map(drop)
        }),
        // It is at its end of life: one day no mirror will have it.
        Err(why) => say(&format!("{name}: not run: {why:#}")),
    }
}
