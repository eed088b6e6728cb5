//! A member that is written to for ever, as by the beats of an idle cluster, keeps a small file:
//! the snapshots and purges are openraft's own, by the policy that `Options` gives it.

#![allow(clippy::print_stdout, reason = "figures for who looks")]

mod common;

use common::{Cluster, PATIENCE};
use futures_util::future::join_all;
use std::path::Path;
use store::{Start, Store, Txn};

const ROUNDS: usize = 10;
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
    // All of it is ten times what the log may hold.
    let written = ROUNDS * COMMITS * 1000;
    let largest = sizes.iter().copied().max().unwrap_or_default();
    assert!(largest < written / 2, "{sizes:?}");
    // And it has stopped to grow.
    assert!(sizes[ROUNDS - 1] <= sizes[ROUNDS / 2], "{sizes:?}");
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
