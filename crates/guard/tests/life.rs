//! Starting, ending, finding again: everything but the deadline.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod support;

use guard::{Cause, Exit, Guard, GuardError, Phase};
use rustix::process::Signal;
use std::fs;
use support::{Bench, ended, is_alive, note, send, until};

#[test]
fn a_killed_postmaster_takes_its_children_along() {
    let bench = Bench::deaf();
    let guard = bench.run();
    send(guard.status().postmaster.unwrap(), Signal::KILL);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::PostmasterDied))
    );
    assert_eq!(status.exit, Some(Exit::Signal(9)));
    assert_eq!(bench.alive(), []);
}

#[test]
fn a_postmaster_that_exits_leaves_its_code_and_its_helpers_a_moment() {
    // The helper needs less than the grace; the deaf one is killed after it.
    let bench = Bench::script("(sleep 0.03; echo > helped) & sleep 1000 & echo > ready; exit 3");
    let guard = bench.run();
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::PostmasterDied))
    );
    assert_eq!(status.exit, Some(Exit::Code(3)));
    assert!(bench.data("helped").exists());
    assert_eq!(bench.alive(), []);
}

#[test]
fn a_guard_that_is_told_to_terminate_stops_postgres_fast() {
    let bench = Bench::script(
        "trap 'exit 0' INT; trap 'exit 9' TERM; echo > ready; while :; do sleep 0.01; done",
    );
    let guard = bench.run();
    for deaf in [Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR2] {
        send(guard.status().guard, deaf);
    }
    send(guard.status().guard, Signal::TERM);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::GuardTold))
    );
    assert_eq!(status.exit, Some(Exit::Code(0)));
}

#[test]
fn a_killed_guard_takes_the_postmaster_along_and_proves_nothing() {
    let bench = Bench::deaf();
    let guard = bench.run();
    let postmaster = guard.status().postmaster.unwrap();
    send(guard.status().guard, Signal::KILL);
    assert_eq!(ended(&guard).phase, Phase::Lost);
    until("the postmaster is dead", || !is_alive(postmaster));
    assert!(Guard::attach(bench.state_dir()).unwrap().is_none());
}

#[test]
fn an_agent_finds_the_guard_again() {
    let bench = Bench::deaf();
    assert!(Guard::attach(bench.state_dir()).unwrap().is_none());
    let first = bench.run();
    first.arm(4, guard::boottime_ns() + 60_000 * support::MS);
    let (pid, postmaster) = (first.status().guard, first.status().postmaster);
    drop(first);
    let second = Guard::attach(bench.state_dir())
        .unwrap()
        .expect("it still runs");
    let status = second.status();
    assert_eq!(
        (status.guard, status.postmaster, status.phase),
        (pid, postmaster, Phase::Running)
    );
    assert_eq!(status.armed.map(|armed| armed.epoch), Some(4));
    assert!(second.postmaster_pidfd().is_some());
    assert!(matches!(
        bench.launch.spawn(),
        Err(GuardError::AlreadyGuarded { .. })
    ));
    assert_eq!(
        second.status().phase,
        Phase::Running,
        "the refused guard did no harm"
    );
    second.fence();
    assert_eq!(ended(&second).phase, Phase::Empty);
    assert!(Guard::attach(bench.state_dir()).unwrap().is_none());
}

#[test]
fn the_next_guard_may_start_as_soon_as_empty_is_said() {
    let bench = Bench::deaf();
    for _ in 0..5 {
        let guard = bench.run();
        guard.fence();
        while guard.status().phase != Phase::Empty {
            std::hint::spin_loop();
        }
        fs::remove_file(bench.data("ready")).unwrap();
    }
}

#[test]
fn a_recycled_number_is_not_taken_for_the_guard() {
    let bench = Bench::deaf();
    let guard = bench.run();
    let (old, state_file) = (guard.status().guard, bench.state_dir().join("guard"));
    let truth = fs::read_to_string(&state_file).unwrap();
    let ours = format!("pid {}\n", rustix::process::getpid());
    fs::write(&state_file, truth.replace(&format!("pid {old}\n"), &ours)).unwrap();
    assert!(
        Guard::attach(bench.state_dir()).unwrap().is_none(),
        "another start time"
    );
    let boot = truth.lines().find(|line| line.starts_with("boot")).unwrap();
    fs::write(&state_file, truth.replace(boot, "boot another")).unwrap();
    assert!(
        Guard::attach(bench.state_dir()).unwrap().is_none(),
        "another boot"
    );
    fs::write(&state_file, &truth[..truth.len() / 2]).unwrap();
    assert!(
        Guard::attach(bench.state_dir()).unwrap().is_none(),
        "a torn file"
    );
    fs::write(&state_file, truth).unwrap();
    assert!(Guard::attach(bench.state_dir()).unwrap().is_some());
}

#[test]
fn a_program_that_can_not_be_started_is_an_error_that_says_so() {
    let mut bench = Bench::deaf();
    bench.launch.program = "/nowhere/postgres".into();
    let error = bench.launch.spawn().unwrap_err();
    assert!(
        matches!(&error, GuardError::Refused(why) if why.contains("/nowhere/postgres")),
        "{error}"
    );
    bench.launch.guard_exe = "/nowhere/standfast".into();
    assert!(matches!(bench.launch.spawn(), Err(GuardError::Exec { .. })));
    bench.launch.data_dir = "/nowhere/data".into();
    assert!(matches!(
        bench.launch.spawn(),
        Err(GuardError::DataDir { .. })
    ));
}

#[test]
fn the_postmaster_inherits_what_it_was_given_and_nothing_else() {
    let bench = Bench::script("env > env; ls /proc/$$/fd > fds; echo > ready; exec sleep 1000");
    let guard = bench.run();
    let env = fs::read_to_string(bench.data("env")).unwrap();
    assert!(
        env.contains("STANDFAST_GUARD_TEST=") && !env.contains("NOTIFY_SOCKET"),
        "{env}"
    );
    let fds = fs::read_to_string(bench.data("fds")).unwrap();
    assert!(
        fds.split_whitespace()
            .all(|fd| ["0", "1", "2", "10", "255"].contains(&fd)),
        "{fds}"
    );
    let postmaster = guard.status().postmaster.unwrap();
    let blocked = fs::read_to_string(format!("/proc/{postmaster}/status")).unwrap();
    assert!(blocked.contains("SigBlk:\t0000000000000000"), "{blocked}");
    let adjusted = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let ours = adjusted(rustix::process::getpid());
    assert_eq!(
        adjusted(postmaster),
        ours,
        "the guard's own protection stays its own"
    );
    note(&format!(
        "memory locked: {}",
        guard.status().has_locked_memory
    ));
    // Nothing of ours either, save what it opened itself.
    let held = fs::read_dir(format!("/proc/{}/fd", guard.status().guard))
        .unwrap()
        .count();
    assert!(held <= 10, "{held} descriptors in the guard");
}

#[test]
fn a_guard_started_by_hand_says_what_it_wants() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_guard-test"))
        .arg("guard")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("--state-dir"));
}
