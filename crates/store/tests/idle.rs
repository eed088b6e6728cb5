//! What a cluster costs that has nothing to do. Alone in its process, so that nothing else is counted.

#![allow(clippy::print_stdout, reason = "figures for who looks")]

mod common;

use common::Cluster;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.expect("positive"), nanos.expect("positive"))
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("readable");
    let pages = statm.split(' ').nth(1).expect("a second field");
    pages.parse::<u64>().expect("digits") * 4096
}

#[tokio::test]
async fn idle_members_cost_next_to_nothing() {
    let before = resident_bytes();
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.leader().await;
    let (cpu, wall) = (cpu_time(), Instant::now());
    // The span that is measured, not a wait for something.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let share = (cpu_time() - cpu).as_secs_f64() / wall.elapsed().as_secs_f64();
    let bytes = resident_bytes().saturating_sub(before);
    println!(
        "three idle members: {:.2} % of a core, {} KiB",
        share * 100.0,
        bytes / 1024
    );
    // This is a debug build.
    assert!(share < 0.06, "{share}");
    assert!(bytes < 64 << 20, "{bytes}");
}
