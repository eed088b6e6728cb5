//! A flood of health checks on the primary: its loop goes on as before, and nothing fails over.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story_alone};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RATE: u32 = 10_000;
const CONNECTIONS: u32 = 20;
const ROUND: Duration = Duration::from_millis(20);
const FOR: Duration = Duration::from_secs(5);

/// Sum and count of the loop's turns so far.
async fn turns(world: &World<'_>, node: &str) -> Result<(f64, f64)> {
    let page = world.cluster.node(node)?.get("/metrics").await?.body;
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name));
        let value = line
            .and_then(|line| line.rsplit_once(' '))?
            .1
            .parse::<f64>();
        value.ok()
    };
    let sum = value("standfast_loop_seconds_sum{").context("no sum")?;
    Ok((
        sum,
        value("standfast_loop_seconds_count{").context("no count")?,
    ))
}

/// Checks at the rate's share of one connection; gives how many were answered.
async fn check(api: String) -> Result<u64> {
    let mut stream = TcpStream::connect(&api).await?;
    stream.set_nodelay(true)?;
    let rounds = u32::try_from(FOR.as_millis() / ROUND.as_millis())?;
    let each = RATE / CONNECTIONS * u32::try_from(ROUND.as_millis())? / 1000;
    let batch = "OPTIONS /primary HTTP/1.1\r\nHost: x\r\n\r\n".repeat(each as usize);
    let (begun, mut answered, mut buffer) = (Instant::now(), 0, vec![0; 1 << 16]);
    for round in 0..rounds {
        stream.write_all(batch.as_bytes()).await?;
        let mut seen = String::new();
        while seen.matches("HTTP/1.1 ").count() < each as usize {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "closed");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        answered += seen.matches("HTTP/1.1 200 OK").count() as u64;
        // The rate is the load itself, not a wait for something.
        tokio::time::sleep((ROUND * (round + 1)).saturating_sub(begun.elapsed())).await;
    }
    Ok(answered)
}

#[test]
fn a_flood_of_health_checks_slows_no_loop() {
    let name = "a_flood_of_health_checks_slows_no_loop";
    story_alone(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(2).await?;
        let leader = world.cluster.primary().await?;
        let api = world.cluster.node(&leader)?.api.clone();
        let quiet = turns(world, &leader).await?;
        tokio::time::sleep(FOR).await;
        let before = turns(world, &leader).await?;
        let begun = Instant::now();
        let checks: Vec<_> = (0..CONNECTIONS)
            .map(|_| tokio::spawn(check(api.clone())))
            .collect();
        let mut answered = 0;
        for check in checks {
            answered += check.await??;
        }
        let took = begun.elapsed().as_secs_f64();
        let after = turns(world, &leader).await?;
        let mean = |(sum, count): (f64, f64), (sum2, count2): (f64, f64)| {
            (sum2 - sum) / (count2 - count).max(1.0) * 1000.0
        };
        let (idle, flooded) = (mean(quiet, before), mean(before, after));
        world.say(&format!(
            "{answered} checks in {took:.1} s; a turn took {idle:.2} ms before, {flooded:.2} ms meanwhile ({} and {} turns)",
            before.1 - quiet.1,
            after.1 - before.1
        ));
        ensure!(
            answered == u64::from(RATE) * FOR.as_secs(),
            "{answered} were answered with 200"
        );
        ensure!(
            world.cluster.primary().await? == leader,
            "the primary was changed"
        );
        ensure!(
            flooded < idle.max(1.0) * 10.0,
            "a turn takes {flooded} ms instead of {idle}"
        );
        ledger.more(20, settle_deadline()).await?;
        world.reckon(ledger).await.map(drop)
    });
}
