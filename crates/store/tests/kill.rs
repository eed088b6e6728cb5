//! `kill -9` in the middle of a stream of writes: what was acknowledged is there afterwards.
//!
//! The test starts itself again as a child, which holds the members and counts upwards in the store.

#![allow(clippy::print_stdout, reason = "the child speaks to its parent")]

mod common;

use common::{Cluster, PATIENCE};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use store::{Store, Txn};

/// Set in the child: where its members live, and how many.
const HOME: &str = "STORE_TEST_KILL_HOME";

/// The child's life (on new ports each time, so that its members have moved as well): say what is there, then count on, saying each number after its commit.
async fn count(mut cluster: Cluster) {
    for at in 0..cluster.places.len() {
        cluster.start(at, cluster.all()).await;
    }
    let store = cluster.member(0).clone();
    store.ready(PATIENCE).await.expect("a leader");
    let mut number = loop {
        match store.read("/number").await {
            Ok(seen) => {
                break seen
                    .value("/number")
                    .map_or(0, |text| text.parse().expect("digits"));
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    println!("child found {number}");
    loop {
        number += 1;
        let txn = Txn::new().put("/number", number.to_string());
        match store.commit(txn).await {
            Ok(_) => println!("child acknowledged {number}"),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

fn killed_again_and_again(test: &str, names: &[&str], rounds: u64) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Ok(home) = std::env::var(HOME) {
        let mut cluster = Cluster::planned(names);
        for place in &mut cluster.places {
            place.directory = std::path::Path::new(&home).join(place.name.as_str());
        }
        // A child that makes no progress must not outlive its test.
        let limited = async { tokio::time::timeout(PATIENCE * 2, count(cluster)).await };
        runtime.block_on(limited).expect("killed long before");
    }
    let home = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    let mut total = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(HOME, home.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // Another number of writes in each round, so that another moment is hit.
        let mut left = 20 + round * 7 % 31;
        for line in lines {
            let line = line.expect("text");
            // The test harness says a word of its own on the same line.
            if let Some((_, number)) = line.split_once("child found ") {
                let found: u64 = number.parse().expect("digits");
                assert!(
                    found >= acknowledged,
                    "round {round}: {found} after {acknowledged}"
                );
            }
            if let Some((_, number)) = line.split_once("child acknowledged ") {
                acknowledged = number.parse().expect("digits");
                total += 1;
                // More of them may be in the pipe already.
                left = left.saturating_sub(1);
                if left == 0 {
                    child.kill().expect("killed");
                }
            }
        }
        assert!(!child.wait().expect("ended").success());
    }
    assert!(total >= rounds * 20, "only {total} writes");
}

#[test]
fn a_lone_member_keeps_what_it_acknowledged() {
    killed_again_and_again("a_lone_member_keeps_what_it_acknowledged", &["a"], 20);
}

#[test]
fn three_members_killed_at_once_keep_what_they_acknowledged() {
    let test = "three_members_killed_at_once_keep_what_they_acknowledged";
    killed_again_and_again(test, &["a", "b", "c"], 6);
}
