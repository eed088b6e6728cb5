//! What a call costs on loopback. Figures are printed with `--nocapture`; the bounds are generous.

#![allow(clippy::print_stdout, reason = "figures for who looks")]

mod common;

use common::Cluster;
use std::time::Duration;
use store::{Store, Txn};
use tokio::time::Instant;

async fn median<F: Future<Output = ()>>(
    rounds: usize,
    call: impl Fn(usize) -> F,
) -> (Duration, Duration) {
    let mut times = Vec::new();
    for round in 0..rounds {
        let before = Instant::now();
        call(round).await;
        times.push(before.elapsed());
    }
    times.sort();
    (times[rounds / 2], times[rounds * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_take_milliseconds() {
    let lone = Cluster::of(&["a"]).await;
    let three = Cluster::of(&["a", "b", "c"]).await;
    let tls = Cluster::with_tls(&["a", "b", "c"]).await;
    let (leader, tls_leader) = (three.leader().await, tls.leader().await);
    for (what, store) in [
        ("one member", lone.member(0)),
        ("three members, leader", three.member(leader)),
        ("three members, leader, TLS", tls.member(tls_leader)),
        ("three members, follower", three.member((leader + 1) % 3)),
        (
            "three members, follower, TLS",
            tls.member((tls_leader + 1) % 3),
        ),
    ] {
        let write = median(100, |round| async move {
            store
                .commit(Txn::new().put("/a", round.to_string()))
                .await
                .expect("committed");
        });
        let write = write.await;
        let read = median(100, |_| async move {
            store.read("/a").await.expect("read");
        });
        let read = read.await;
        println!("{what}: write {write:?} read {read:?} (median, 99 %)");
    }
}

/// The two by turns, so that whatever else the machine does weighs on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_costs_little() {
    let plain = Cluster::of(&["a", "b", "c"]).await;
    let tls = Cluster::with_tls(&["a", "b", "c"]).await;
    let stores = [
        plain.member(plain.leader().await),
        tls.member(tls.leader().await),
    ];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..600 {
        for (store, times) in stores.iter().zip(&mut times) {
            let before = Instant::now();
            let txn = Txn::new().put("/a", round.to_string());
            store.commit(txn).await.expect("committed");
            times.push(before.elapsed());
        }
    }
    let [plain, tls] = times.map(|mut times| {
        times.sort();
        [0.5, 0.99].map(|share| times[(600.0 * share) as usize])
    });
    let ratio = tls[0].as_secs_f64() / plain[0].as_secs_f64();
    println!("commit: plain {plain:?}, TLS {tls:?} (median, 99 %), medians 1 : {ratio:.3}");
    assert!(ratio < 2.0, "{ratio}");
}
