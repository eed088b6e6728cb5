//! Switchovers that can't be: to itself, to nobody, to a monitor, to the dead, from another epoch,
//! in the past, and two at once.

use super::desk::refused;
use super::running_cluster::Place;
use anyhow::{Context, Result, ensure};
use e2e::settle_deadline;
use lab::eventually;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// What an order that was refused may not change.
pub(super) async fn cluster_state(place: &Place<'_>) -> Result<Value> {
    let node = place.cluster.node("monitor")?;
    let state = node.get("/api/v1/state").await?.json()?;
    let config = node.get("/config").await?.json()?;
    let nodes = state["nodes"].as_array().context("no nodes")?;
    let fixed = [
        "id",
        "name",
        "host",
        "port",
        "priority",
        "quorum",
        "witness",
        "maintenance",
    ];
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|node| fixed.iter().map(|key| node[key].clone()).collect())
        .collect();
    Ok(json!({
        "leader": state["leader"],
        "epoch": state["epoch"],
        "system_id": state["system_id"],
        "paused": state["paused"],
        "switchover": state["switchover"],
        "nodes": nodes,
        "config": config,
    }))
}

pub(super) async fn impossible_switchovers(place: &mut Place<'_>) -> Result<()> {
    let leader = place.whole().await?;
    let other = place
        .cluster
        .standbys()
        .await?
        .pop()
        .context("no standby")?;
    let before = cluster_state(place).await?;
    for (words, code, said) in [
        (
            format!("perform switchover --name {leader}"),
            5,
            "leader already",
        ),
        ("perform switchover --name nobody".to_owned(), 3, "nobody"),
        (
            "perform switchover --name monitor".to_owned(),
            3,
            "no Postgres",
        ),
        ("perform promotion --name nobody".to_owned(), 3, "nobody"),
        ("perform failover --name nobody".to_owned(), 3, "nobody"),
        ("enable maintenance --name nobody".to_owned(), 3, "nobody"),
        ("drop node --yes --name nobody".to_owned(), 3, "nobody"),
        (
            "set node candidate-priority 101 --name a".to_owned(),
            2,
            "101",
        ),
    ] {
        refused(&place.terminal, &place.asks(&words), code, &[said])?;
    }
    for (path, body, status) in [
        (
            "/api/v1/perform",
            json!({"action": "switchover", "to": &other, "epoch": 77}),
            412,
        ),
        (
            "/switchover",
            json!({"leader": &other, "candidate": &leader}),
            412,
        ),
        (
            "/switchover",
            json!({"leader": &leader, "candidate": &leader}),
            412,
        ),
        (
            "/switchover",
            json!({"leader": &leader, "candidate": "a b"}),
            400,
        ),
        (
            "/switchover",
            json!({"leader": &leader, "candidate": &other, "scheduled_at": "2001-01-01T00:00:00Z"}),
            422,
        ),
    ] {
        let answer = place
            .cluster
            .post(&leader, path, &body, Duration::from_secs(5))
            .await?;
        ensure!(answer.status == status, "{path} {body}: {answer:?}");
    }
    ensure!(
        cluster_state(place).await? == before,
        "a refused order changed something"
    );
    to_the_dead(place, &leader, &other)
        .await
        .context("to a dead node")?;
    ensure!(
        cluster_state(place).await? == before,
        "an order to the dead changed something"
    );
    two_at_once(place, &other, &before)
        .await
        .context("two at once")
}

/// The cluster keeps the primary that it has.
async fn to_the_dead(place: &mut Place<'_>, leader: &str, other: &str) -> Result<()> {
    place.cluster.node_mut(other)?.kill_everything()?;
    let line = place.asks(&format!("perform switchover --name {other} --wait 5"));
    // So soon after its death nobody can know it yet: the order may be taken, and is given up.
    let said = place.terminal.tries(&line)?;
    ensure!(said.code != Some(0), "{said:?}");
    eventually("the order is refused", settle_deadline(), async || {
        refused(&place.terminal, &line, 5, &[other]).map(drop)
    })
    .await?;
    let primaries = place.cluster.primaries().await;
    ensure!(primaries == [leader], "primaries: {primaries:?}");
    place.cluster.node_mut(other)?.start()?;
    let still = place.whole().await?;
    ensure!(still == leader, "{still} leads now");
    Ok(())
}

/// One is done, the other hears why not.
async fn two_at_once(place: &mut Place<'_>, other: &str, before: &Value) -> Result<()> {
    let line = place.asks(&format!("perform switchover --name {other}"));
    let second = thread::spawn({
        let (terminal, line) = (place.terminal.clone(), line.clone());
        move || terminal.tries(&line)
    });
    let first = place.terminal.tries(&line)?;
    let second = second.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    let mut codes = [first.code, second.code];
    codes.sort_unstable();
    ensure!(codes == [Some(0), Some(5)], "{first:?}\n{second:?}");
    let leader = place.whole().await?;
    ensure!(leader == other, "{leader} leads");
    let epoch = |state: &Value| state["epoch"].as_u64();
    let after = cluster_state(place).await?;
    ensure!(
        epoch(&after) == epoch(before).map(|epoch| epoch + 1),
        "{before} became {after}"
    );
    Ok(())
}
