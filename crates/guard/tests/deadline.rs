//! The deadline, the orders that move it, and the agents that don't.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod support;

use guard::{Armed, Cause, Guard, Phase, boottime_ns};
use rustix::process::Signal;
use support::{Bench, MS, ended, holds_until, is_alive, ms_between, note, send, until};

#[test]
fn a_passed_deadline_leaves_nothing_alive() {
    let bench = Bench::deaf();
    let guard = bench.run();
    assert_eq!(guard.status().phase, Phase::Running);
    until("its family is complete", || bench.alive().len() >= 7);
    let deadline = boottime_ns() + 200 * MS;
    guard.arm(1, deadline);
    assert_eq!(
        guard.status().armed,
        Some(Armed {
            epoch: 1,
            deadline_ns: deadline
        })
    );
    until("the guard's timer is set", || {
        guard.status().timer_ns == Some(deadline)
    });
    holds_until(deadline - 20 * MS, || {
        guard.status().phase == Phase::Running
    });
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert_eq!(bench.alive(), []);
    let took = ms_between(deadline, status.empty_ns.unwrap());
    note(&format!(
        "script: deadline to last process dead {took:.1} ms"
    ));
    assert!((0.0..200.0).contains(&took), "{took} ms");
    until("the log says why", || {
        bench
            .log()
            .contains("the deadline passed; nothing of postmaster")
    });
}

#[test]
fn an_extended_deadline_lets_it_live_and_wakes_nobody() {
    let bench = Bench::deaf();
    let guard = bench.run();
    guard.arm(1, boottime_ns() + 500 * MS);
    until("the guard's timer is set", || {
        guard.status().timer_ns.is_some()
    });
    let wakes = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", guard.status().guard));
        let status = status.unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt"))
            .unwrap();
        line.split_whitespace()
            .last()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let (before, mut orders) = (wakes(), 0);
    holds_until(boottime_ns() + 1_500 * MS, || {
        guard.arm(1, boottime_ns() + 500 * MS);
        orders += 1;
        guard.status().phase == Phase::Running
    });
    let woken = wakes() - before;
    assert!(
        orders > 100 && woken <= 20,
        "{woken} wake-ups for {orders} orders"
    );
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
}

#[test]
fn a_shortened_deadline_counts_and_only_for_its_epoch() {
    let bench = Bench::deaf();
    let guard = bench.run();
    let (far, near) = (boottime_ns() + 60_000 * MS, boottime_ns() + 200 * MS);
    guard.shorten(1, near);
    assert_eq!(guard.status().armed, None, "what is not armed stays so");
    guard.arm(2, far);
    until("the guard's timer is set", || {
        guard.status().timer_ns == Some(far)
    });
    guard.shorten(1, near);
    guard.shorten(3, near);
    guard.shorten(2, far + MS);
    let armed = |deadline_ns| {
        Some(Armed {
            epoch: 2,
            deadline_ns,
        })
    };
    assert_eq!(guard.status().armed, armed(far));
    guard.shorten(2, near);
    assert_eq!(guard.status().armed, armed(near));
    let status = ended(&guard);
    assert_eq!(status.cause, Some(Cause::Deadline));
    let took = ms_between(near, status.empty_ns.unwrap());
    assert!((0.0..200.0).contains(&took), "{took} ms");
}

#[test]
fn a_deadline_that_has_passed_kills_at_once() {
    let bench = Bench::deaf();
    let guard = bench.run();
    guard.arm(1, boottime_ns() - 1);
    assert_eq!(ended(&guard).cause, Some(Cause::Deadline));
    assert_eq!(bench.alive(), []);
}

#[test]
fn a_disarmed_guard_knows_no_deadline_until_armed_again() {
    let bench = Bench::deaf();
    let guard = bench.run();
    let deadline = boottime_ns() + 150 * MS;
    guard.arm(1, deadline);
    guard.disarm();
    assert_eq!(guard.status().armed, None);
    holds_until(deadline + 150 * MS, || {
        guard.status().phase == Phase::Running
    });
    guard.arm(1, boottime_ns() + 50 * MS);
    assert_eq!(ended(&guard).cause, Some(Cause::Deadline));
}

#[test]
fn an_older_epoch_or_an_earlier_deadline_changes_nothing() {
    let bench = Bench::deaf();
    let guard = bench.run();
    let now = boottime_ns();
    let armed = Armed {
        epoch: 7,
        deadline_ns: now + 60_000 * MS,
    };
    guard.arm(armed.epoch, armed.deadline_ns);
    guard.arm(7, now + 100 * MS);
    guard.arm(6, now + 100 * MS);
    guard.arm(6, now + 90_000 * MS);
    assert_eq!(guard.status().armed, Some(armed));
    holds_until(now + 250 * MS, || guard.status().phase == Phase::Running);
}

#[test]
fn a_new_epoch_may_end_sooner() {
    let bench = Bench::deaf();
    let guard = bench.run();
    guard.arm(1, boottime_ns() + 60_000 * MS);
    until("the guard's timer is set", || {
        guard.status().timer_ns.is_some()
    });
    let deadline = boottime_ns() + 100 * MS;
    guard.arm(2, deadline);
    let status = ended(&guard);
    assert_eq!(status.cause, Some(Cause::Deadline));
    assert!(ms_between(deadline, status.empty_ns.unwrap()) < 200.0);
}

/// An agent that is `signal`led stops renewing: what it led must be dead 300 ms after its last order.
fn fenced_although_the_agent_got(signal: Signal) {
    let bench = Bench::deaf();
    let agent = bench.agent();
    bench.wait_ready();
    let guard = Guard::attach(bench.state_dir())
        .unwrap()
        .expect("a running guard");
    until("the agent leads", || guard.status().armed.is_some());
    let first = guard.status().armed.unwrap().deadline_ns;
    until("the agent renews", || {
        guard.status().armed.unwrap().deadline_ns > first
    });
    agent.signal(signal);
    let status = ended(&guard);
    let deadline = status.armed.unwrap().deadline_ns;
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert_eq!(bench.alive(), []);
    let took = ms_between(deadline, status.empty_ns.unwrap());
    assert!((0.0..200.0).contains(&took), "{took} ms");
}

#[test]
fn a_killed_agent_does_not_keep_postgres_alive() {
    fenced_although_the_agent_got(Signal::KILL);
}

#[test]
fn a_stopped_agent_does_not_keep_postgres_alive() {
    fenced_although_the_agent_got(Signal::STOP);
}

#[test]
fn an_aborted_agent_does_not_keep_postgres_alive() {
    fenced_although_the_agent_got(Signal::ABORT);
}

#[test]
fn a_stopped_postmaster_is_killed_too() {
    let bench = Bench::deaf();
    let guard = bench.run();
    let postmaster = guard.status().postmaster.unwrap();
    for pid in bench.alive() {
        send(pid, Signal::STOP);
    }
    let deadline = boottime_ns() + 100 * MS;
    guard.arm(1, deadline);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert!(!is_alive(postmaster));
    assert_eq!(bench.alive(), []);
    assert!(ms_between(deadline, status.empty_ns.unwrap()) < 200.0);
}

#[test]
fn a_fence_needs_no_deadline_to_pass_and_wakes_a_stopped_guard() {
    let bench = Bench::deaf();
    let guard = bench.run();
    guard.arm(3, boottime_ns() + 60_000 * MS);
    send(guard.status().guard, Signal::STOP);
    let asked = boottime_ns();
    guard.fence();
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Asked))
    );
    assert_eq!(bench.alive(), []);
    let took = ms_between(asked, status.empty_ns.unwrap());
    assert!(took < 200.0, "{took} ms");
}
