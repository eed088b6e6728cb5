//! What befalls a node on its way back into the cluster.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, settle_deadline, story};
use std::path::Path;
use std::time::{Duration, Instant};

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
