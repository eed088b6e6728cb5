//! Three nodes whose store members speak TLS.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::{Fault, Node, eventually};
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the store of `node` says to somebody who begins without TLS.
async fn plain_talk(node: &Node) -> Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect((node.host.address(), 8009)).await?;
        let nonce = vec!["0"; 32].join(",");
        let hello = format!(r#"{{"cluster":"lab","nonce":[{nonce}]}}"#);
        stream.write_all(b"SFS1").await?;
        stream.write_u32(u32::try_from(hello.len())?).await?;
        stream.write_all(hello.as_bytes()).await?;
        let mut answer = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer)?)
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, talk)
        .await
        .context("an answer")?
}

/// Connections that say nothing, or begin TLS and do not go on.
async fn dawdle(node: &Node) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(TcpStream::connect(&node.api).await?);
        if crowd.len() % 2 == 0 {
            let mut stream = TcpStream::connect((node.host.address(), 8009)).await?;
            stream.write_all(b"SFS1\x16\x03\x01\x02").await?;
            crowd.push(stream);
        }
    }
    Ok(crowd)
}

async fn kill_the_postmaster(world: &mut World<'_>) -> Result<()> {
    let ledger = world.load(4).await?;
    world
        .break_and_heal(Fault::Postmaster, &ledger, Duration::ZERO)
        .await?;
    world.reckon(ledger).await.map(drop)
}

const ANNOUNCED: Announced = Announced(&[
    "the store no longer has this node as leader",
    "WAL that the cluster does not have was discarded",
    // The one who begins without TLS.
    "a peer was denied",
]);

#[test]
fn the_postmaster_is_killed_over_tls() {
    let name = "the_postmaster_is_killed_over_tls";
    story(name, Topology::ThreeWithTls, ANNOUNCED, async |world| {
        for node in &world.cluster.nodes {
            let said = plain_talk(node).await?;
            ensure!(said.contains("OnlyTls"), "{} says {said}", node.name);
        }
        let primary = world.cluster.primary().await?;
        let node = world.cluster.node(&primary)?;
        let _crowd = dawdle(node).await?;
        ensure!(node.get("/liveness").await?.status == 200, "it is drowned");
        kill_the_postmaster(world).await
    });
}

#[test]
fn certificates_are_renewed_under_way() {
    let name = "certificates_are_renewed_under_way";
    story(
        name,
        Topology::ThreeWithTls,
        Announced::FAILOVER,
        async |world| {
            let primary = world.cluster.primary().await?;
            world.renew_certificates()?;
            for node in &world.cluster.nodes {
                node.signal_agent(Signal::HUP)?;
                let what = format!("{} has read its certificates again", node.name);
                eventually(&what, settle_deadline(), async || {
                    let told = node.log().contains("reloaded: the certificates");
                    told.then_some(()).context("not yet")
                })
                .await?;
            }
            let still = world.whole().await?;
            ensure!(still == primary, "{primary} was replaced by {still}");
            // One that begins with the new certificates meets those that began with the old ones.
            let standby = world.cluster.standbys().await?.remove(0);
            let node = world.cluster.node_mut(&standby)?;
            node.stop(settle_deadline()).await?;
            node.start()?;
            world.whole().await?;
            kill_the_postmaster(world).await
        },
    );
}
