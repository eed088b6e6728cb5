//! A member that is written to for ever, as by the beats of an idle cluster, keeps a small file:
//! the snapshots and purges are openraft's own, by the policy that `Options` gives it.

#![allow(clippy::print_stdout, reason = "figures for who looks")]

mod common;

use common::{Cluster, PATIENCE};
use futures_util::future::join_all;
use std::path::Path;
use store::{Start, Store, Txn};

const ROUNDS: usize = 20;
/// More than a snapshot's worth in each round.
const COMMITS: usize = 500;
const SNAPSHOT_EVERY: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_written_to_for_ever_keeps_a_small_file() {
    let mut cluster = Cluster::planned(&["a"]);
    cluster.tune = |options| options.snapshot_every = SNAPSHOT_EVERY;
    cluster.start(0, Start::Found).await;
    let store = cluster.member(0);
    store.ready(PATIENCE).await.expect("founded");
    let mut sizes = Vec::new();
    for round in 0..ROUNDS {
        for part in 0..COMMITS / 20 {
            // The same few keys again and again.
            let beats = (0..20).map(|key| {
                let value = format!("{round} {part} {}", "v".repeat(1000));
                store.commit(Txn::new().put(format!("/beat/{key}"), value))
            });
            for beat in join_all(beats).await {
                beat.expect("committed");
            }
        }
        sizes.push(size(&cluster.places[0].directory));
    }
    println!("bytes after each {COMMITS} commits of 1 kB: {sizes:?}");
    // The file breathes: redb gives free space at its end back and takes it again, by half or by as much
    // more, as snapshots and purges fall. So no two sizes are compared: all of them stay below a bound that
    // knows what the log holds (the entries of a snapshot and some more) and not how much was written.
    let written = ROUNDS * COMMITS * 1000;
    let held = usize::try_from(SNAPSHOT_EVERY).expect("fits") * 2 * 1000;
    let bound = held * 5;
    assert!(bound * 5 <= written, "the bound would tell nothing");
    assert!(sizes.iter().all(|size| *size <= bound), "{sizes:?}");
}

fn size(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .expect("readable")
        .map(|entry| {
            let meta = entry.expect("an entry").metadata().expect("there");
            usize::try_from(meta.len()).expect("fits")
        })
        .sum()
}
