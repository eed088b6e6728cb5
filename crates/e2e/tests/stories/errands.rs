//! What Patroni's REST paths order, on a real cluster under load: restarts, a new base backup, a reload, a switchover
//! for later.

use anyhow::{Context as _, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::eventually;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

const LIMIT: Duration = Duration::from_secs(30);

async fn order(world: &World<'_>, node: &str, path: &str, body: Value) -> Result<(u16, String)> {
    let answer = world.cluster.post(node, path, &body, LIMIT).await?;
    world.say(&format!(
        "POST {node}{path} {body}: {} {}",
        answer.status, answer.body
    ));
    Ok((answer.status, answer.body))
}

/// When a node's Postgres was started; empty while it is not up.
async fn started(world: &World<'_>, node: &str) -> Result<String> {
    let status = world.cluster.node(node)?.get("/patroni").await?.json()?;
    Ok(status["postmaster_start_time"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

async fn restarted_since(world: &World<'_>, node: &str, before: &str) -> Result<()> {
    let what = format!("Postgres of {node} was started anew");
    eventually(&what, settle_deadline(), async || {
        let now = started(world, node).await?;
        ensure!(!now.is_empty() && now != before, "{now}");
        Ok(())
    })
    .await
}

/// RFC 3339 in so many seconds.
fn seconds_ahead(seconds: u64) -> Result<String> {
    let at = SystemTime::now() + Duration::from_secs(seconds);
    let since = at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let time = lab::run_to_end(std::process::Command::new("date").args([
        "-u",
        "-Iseconds",
        "-d",
        &format!("@{since}"),
    ]))?;
    Ok(time.trim().to_owned())
}

/// Patroni: REST | `POST`, `DELETE /restart`, conditions, schedule | work; a restarted primary leads on, in a new
///   epoch and timeline, with its standbys counted from the first commit; one that does not come back hands over
#[test]
fn a_person_restarts_and_reinitializes() {
    let name = "a_person_restarts_and_reinitializes";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(4).await?;
        let leader = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        let (first, second) = (&standbys[0], &standbys[1]);

        let before = started(world, first).await?;
        let done = (200, "restarted successfully".to_owned());
        ensure!(order(world, first, "/restart", json!({"role": "replica"})).await? == done);
        restarted_since(world, first, &before).await?;
        world.whole().await?;

        // The leader keeps its leadership, in a new epoch, and no row is lost.
        let before = started(world, &leader).await?;
        ensure!(order(world, &leader, "/restart", json!({})).await? == done);
        restarted_since(world, &leader, &before).await?;
        ensure!(world.whole().await? == leader, "the leader was changed");
        ledger.more(50, settle_deadline()).await?;
        let wrong = order(world, &leader, "/restart", json!({"role": "replica"})).await?;
        ensure!(wrong.0 == 503, "{wrong:?}");

        let control = world
            .cluster
            .node(second)?
            .data_dir
            .join("global/pg_control");
        let control = world.cluster.node(second)?.host.outside(&control);
        let old = std::fs::metadata(&control)?.created()?;
        let begun = order(world, second, "/reinitialize", json!({})).await?;
        ensure!(begun == (200, "reinitialize started".to_owned()));
        eventually(
            "there is a new data directory",
            settle_deadline(),
            async || {
                let new = std::fs::metadata(&control)?.created()?;
                ensure!(new > old, "it is the old one");
                Ok(())
            },
        )
        .await?;
        ensure!(world.whole().await? == leader, "the leader was changed");
        let refused = order(world, &leader, "/reinitialize", json!({})).await?;
        ensure!(refused.0 == 503, "{refused:?}");

        let node = world.cluster.node(first)?;
        node.write_to_its_file("tags: {nofailover: true, zone: north}\n")?;
        ensure!(order(world, first, "/reload", json!({})).await?.0 == 202);
        eventually("the node has reloaded", settle_deadline(), async || {
            ensure!(node.log().contains("reloaded: "), "nothing is logged");
            let document = node.get("/patroni").await?.json()?;
            ensure!(document["tags"]["zone"] == "north", "{document}");
            let state = node.get("/api/v1/state").await?.json()?;
            let nodes = state["nodes"].as_array().context("nodes")?;
            let mine = nodes.iter().find(|it| it["name"] == first.as_str());
            ensure!(mine.context("the node")?["priority"] == 0, "{state}");
            Ok(())
        })
        .await?;
        world.reckon(ledger).await.map(drop)
    });
}

/// Patroni: REST | `POST /switchover`, `/failover`, scheduled | work; a switchover that was missed by 30 s is not
///   caught up with
#[test]
fn a_restart_and_a_switchover_happen_at_their_time() {
    let name = "a_restart_and_a_switchover_happen_at_their_time";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(2).await?;
        let leader = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        let (first, second) = (&standbys[0], &standbys[1]);
        let before = started(world, first).await?;
        let soon = json!({"schedule": seconds_ahead(4)?});
        ensure!(order(world, first, "/restart", soon.clone()).await?.0 == 202);
        ensure!(order(world, first, "/restart", soon).await?.0 == 409);
        let body =
            json!({"leader": leader, "candidate": second, "scheduled_at": seconds_ahead(8)?});
        let scheduled = order(world, first, "/switchover", body).await?;
        ensure!(scheduled == (202, "Switchover scheduled".to_owned()));
        // Another node than the one that was asked has it a moment later.
        eventually("both are shown to all", LIMIT, async || {
            let cluster = world.cluster.node(second)?.get("/cluster").await?;
            let told = cluster.json()?["scheduled_switchover"]["to"] == **second;
            ensure!(
                told && cluster.body.contains("scheduled_restart"),
                "{}",
                cluster.body
            );
            Ok(())
        })
        .await?;
        ensure!(world.cluster.primary().await? == leader, "too early");
        restarted_since(world, first, &before).await?;
        let new = world
            .cluster
            .another_primary(&leader, settle_deadline())
            .await?;
        ensure!(new == *second, "{new} leads instead of {second}");
        world.whole().await?;
        eventually("nothing is scheduled any more", LIMIT, async || {
            let cluster = world.cluster.node(first)?.get("/cluster").await?;
            ensure!(!cluster.body.contains("scheduled"), "{}", cluster.body);
            Ok(())
        })
        .await?;
        world.reckon(ledger).await.map(drop)
    });
}
