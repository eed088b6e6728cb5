//! A real PostgreSQL under the guard.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod support;

use guard::{Cause, Exit, GuardError, Phase, boottime_ns, kill_leftovers, leftovers};
use rustix::process::Signal;
use std::time::Duration;
use support::postgres::{bench, ran_as_postgres};
use support::{MS, ended, is_alive, ms_between, note, os, send, until};

#[test]
fn at_the_deadline_no_backend_is_left() {
    if ran_as_postgres("at_the_deadline_no_backend_is_left") {
        return;
    }
    let bench = bench();
    let mut took = Vec::new();
    for _ in 0..5 {
        let guard = bench.run_postgres();
        let (backend, _client) = bench.busy_backend();
        let deadline = boottime_ns() + 100 * MS;
        guard.arm(1, deadline);
        let status = ended(&guard);
        assert!(!is_alive(backend));
        assert_eq!(
            (status.phase, status.cause),
            (Phase::Empty, Some(Cause::Deadline))
        );
        assert_eq!(leftovers(&bench.launch.data_dir), []);
        took.push(ms_between(deadline, status.empty_ns.unwrap()));
    }
    took.sort_by(f64::total_cmp);
    note(&format!(
        "PostgreSQL, by descendants: deadline to last process dead {took:.1?} ms"
    ));
    assert!(
        took.iter().all(|took| (0.0..200.0).contains(took)),
        "{took:?}"
    );
}

#[test]
fn ninety_busy_backends_die_together() {
    if ran_as_postgres("ninety_busy_backends_die_together") {
        return;
    }
    let bench = bench();
    let guard = bench.run_postgres();
    let _clients = bench.busy_clients(90);
    let deadline = boottime_ns() + 100 * MS;
    guard.arm(1, deadline);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert_eq!(leftovers(&bench.launch.data_dir), []);
    let took = ms_between(deadline, status.empty_ns.unwrap());
    note(&format!(
        "PostgreSQL, 90 busy backends: deadline to last process dead {took:.1} ms"
    ));
    assert!(took < 500.0, "{took} ms");
}

#[test]
fn a_busy_backend_does_not_outlive_its_postmaster_for_long() {
    if ran_as_postgres("a_busy_backend_does_not_outlive_its_postmaster_for_long") {
        return;
    }
    let bench = bench();
    let guard = bench.run_postgres();
    let (backend, _client) = bench.busy_backend();
    let killed = boottime_ns();
    send(guard.status().postmaster.unwrap(), Signal::KILL);
    until("it is proven", || guard.status().phase == Phase::Empty);
    assert!(!is_alive(backend), "Empty was said too early");
    assert_eq!(leftovers(&bench.launch.data_dir), []);
    let status = ended(&guard);
    assert_eq!(status.cause, Some(Cause::PostmasterDied));
    assert_eq!(status.exit, Some(Exit::Signal(9)));
    let took = ms_between(killed, status.empty_ns.unwrap());
    note(&format!(
        "PostgreSQL: kill -9 of the postmaster to proof {took:.1} ms"
    ));
    assert!(took < 200.0, "{took} ms");
}

#[test]
fn what_a_killed_guard_leaves_is_found_and_killed() {
    if ran_as_postgres("what_a_killed_guard_leaves_is_found_and_killed") {
        return;
    }
    let bench = bench();
    let guard = bench.run_postgres();
    let (backend, client) = bench.busy_backend();
    let postmaster = guard.status().postmaster.unwrap();
    let found = leftovers(&bench.launch.data_dir);
    assert!(
        found.contains(&postmaster) && found.contains(&backend),
        "{found:?}"
    );
    send(guard.status().guard, Signal::KILL);
    assert_eq!(ended(&guard).phase, Phase::Lost);
    until("the postmaster is dead", || !is_alive(postmaster));
    assert!(
        is_alive(backend),
        "a busy backend goes on: this is what leftovers are for"
    );
    assert!(matches!(
        bench.launch.spawn(),
        Err(GuardError::InstanceAlive { .. })
    ));
    kill_leftovers(&bench.launch.data_dir, Duration::from_secs(2)).unwrap();
    assert!(!is_alive(backend));
    assert_eq!(leftovers(&bench.launch.data_dir), []);
    drop(client);
    // Where nobody reaps the dead postmaster, PostgreSQL alone would take it for a living one.
    let again = bench.run_postgres();
    again.fence();
    assert_eq!(ended(&again).phase, Phase::Empty);
}

#[test]
fn a_clean_stop_keeps_its_last_words() {
    if ran_as_postgres("a_clean_stop_keeps_its_last_words") {
        return;
    }
    let mut bench = bench();
    bench.launch.args.extend(os(&[
        "-c",
        "logging_collector=on",
        "-c",
        "log_filename=collected",
    ]));
    let guard = bench.run_postgres();
    send(guard.status().guard, Signal::TERM);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::GuardTold))
    );
    assert_eq!(status.exit, Some(Exit::Code(0)));
    let collected = std::fs::read_to_string(bench.data("log/collected")).unwrap();
    assert!(
        collected.contains("database system is shut down"),
        "{collected}"
    );
}

#[test]
fn a_crashed_backend_ends_the_instance_and_the_proof_follows_at_once() {
    if ran_as_postgres("a_crashed_backend_ends_the_instance_and_the_proof_follows_at_once") {
        return;
    }
    let bench = bench();
    let guard = bench.run_postgres();
    let (backend, _client) = bench.busy_backend();
    send(backend, Signal::KILL);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::PostmasterDied))
    );
    assert_eq!(
        status.exit,
        Some(Exit::Code(1)),
        "restart_after_crash is off"
    );
    let took = ms_between(status.ended_ns.unwrap(), status.empty_ns.unwrap());
    note(&format!("PostgreSQL: its own end to proof {took:.1} ms"));
    assert!(took < 150.0, "{took} ms");
}

#[test]
fn a_shell_in_the_data_directory_is_no_leftover() {
    let bench = support::Bench::deaf();
    let guard = bench.run();
    assert_eq!(
        leftovers(&bench.launch.data_dir),
        [],
        "scripts, not Postgres"
    );
    guard.fence();
    ended(&guard);
}
