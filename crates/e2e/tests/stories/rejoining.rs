//! What befalls a node on its way back into the cluster.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::Fault;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

/// The pieces of pg_rewind's work are looked for this often: what follows must happen within moments.
const CLOSELY: Duration = Duration::from_millis(1);

fn appears(file: &Path) -> Result<()> {
    let begun = Instant::now();
    while !file.exists() {
        ensure!(
            begun.elapsed() < settle_deadline(),
            "no {} came",
            file.display()
        );
        std::thread::sleep(CLOSELY);
    }
    Ok(())
}

/// A directory that was rewound needs WAL of the very leader that it was rewound to before it opens. If that leader is
/// gone by then, nobody else has it: waiting for it would be for ever.
#[test]
fn the_leader_is_lost_to_which_a_node_was_just_rewound() {
    story(
        "the_leader_is_lost_to_which_a_node_was_just_rewound",
        Topology::Three,
        Announced::AGAIN,
        async |world| {
            let ledger = world.load(8).await?;
            let first = world.cluster.primary().await?;
            // Its clients still reach it: what they commit there is written, and acknowledged by nobody.
            let others = world.cluster.standbys().await?;
            for other in &others {
                world.lab.network()?.drop_one_way(&first, other)?;
                world.lab.network()?.drop_one_way(other, &first)?;
            }
            let deadline = settle_deadline();
            let second = world.cluster.another_primary(&first, deadline).await?;
            ledger.more(50, settle_deadline()).await?;
            let node = world.cluster.node(&first)?;
            let label = node.host.outside(&node.data_dir.join("backup_label"));
            ensure!(!label.exists(), "a backup_label before the rewind");
            for other in &others {
                world.lab.network()?.restore_one_way(&first, other)?;
                world.lab.network()?.restore_one_way(other, &first)?;
            }
            appears(&label).context("the old primary is rewound")?;
            world.cluster.node(&second)?.host.freeze()?;
            let deadline = settle_deadline();
            world.cluster.another_primary(&second, deadline).await?;
            ledger.more(50, settle_deadline()).await?;
            world.cluster.node(&second)?.host.thaw()?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// Clients that come to one node again and again, and what they are told.
#[derive(Default)]
struct Knocking {
    ends: AtomicBool,
    let_in: AtomicU64,
    /// For an answer that libpq and asyncpg do not go on to the next host after.
    refused: AtomicU64,
}

async fn knock(config: Config, told: Arc<Knocking>) {
    while !told.ends.load(Ordering::SeqCst) {
        let answer = tokio::time::timeout(CLOSELY * 1000, config.connect(NoTls)).await;
        let counter = match &answer {
            Ok(Ok(_)) => &told.let_in,
            Ok(Err(error))
                if error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) =>
            {
                &told.refused
            }
            _ => continue,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

/// A client with several hosts goes on to the next one where a server starts or refuses the connection. One that lets it
/// in by no line of `pg_hba.conf` is the last that it asks.
#[test]
fn who_comes_while_roles_change_is_refused_by_nobody() {
    let name = "who_comes_while_roles_change_is_refused_by_nobody";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let ledger = world.load(2).await?;
        let told = Arc::new(Knocking::default());
        let nodes: Vec<Config> = world
            .cluster
            .data_nodes()
            .map(lab::Node::sql_config)
            .collect::<Result<_>>()?;
        let clients: Vec<_> = nodes
            .into_iter()
            .map(|node| tokio::spawn(knock(node, Arc::clone(&told))))
            .collect();
        for _ in 0..3 {
            world
                .break_and_heal(Fault::Switchover, &ledger, Duration::ZERO)
                .await?;
            refused_nobody(world, &told, "a switchover")?;
        }
        let standby = world.cluster.standbys().await?.remove(0);
        let (path, body) = ("/restart", serde_json::json!({}));
        let restarted = world.cluster.post(&standby, path, &body, settle_deadline());
        ensure!(restarted.await?.status == 200, "not restarted");
        world.whole().await?;
        refused_nobody(world, &told, "a restart")?;
        world.cluster.node(&standby)?.kill_postmaster()?;
        world.whole().await?;
        refused_nobody(world, &told, "a standby's crash")?;
        for _ in 0..3 {
            let primary = world.cluster.primary().await?;
            world.cluster.node(&primary)?.kill_postmaster()?;
            let deadline = settle_deadline();
            world.cluster.another_primary(&primary, deadline).await?;
            world.whole().await?;
            refused_nobody(world, &told, "a primary's crash")?;
        }
        told.ends.store(true, Ordering::SeqCst);
        for client in clients {
            client.await?;
        }
        world.reckon(ledger).await.map(drop)
    });
}

fn refused_nobody(world: &World<'_>, told: &Knocking, after: &str) -> Result<()> {
    let refused = told.refused.load(Ordering::SeqCst);
    let let_in = told.let_in.load(Ordering::SeqCst);
    world.say(&format!(
        "after {after}: {let_in} clients let in, {refused} refused"
    ));
    ensure!(
        refused == 0 && let_in > 0,
        "{refused} refused, {let_in} let in"
    );
    Ok(())
}
