//! What the tests run in place of `standfast`: `guard …` is the guard, `agent …` an agent to be killed.

use guard::{Launch, boottime_ns};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|verb| verb.to_str()) {
        Some("guard") => guard::main(args.collect()),
        Some("agent") => agent(&args.collect::<Vec<_>>()),
        _ => ExitCode::FAILURE,
    }
}

/// Launches a script under a guard and keeps its deadline 300 ms ahead until it is killed.
fn agent(args: &[OsString]) -> ExitCode {
    let [state_dir, data_dir, log_file, script] = args else {
        return ExitCode::FAILURE;
    };
    let Ok(guard_exe) = std::env::current_exe() else {
        return ExitCode::FAILURE;
    };
    let launch = Launch {
        guard_exe,
        guard_args: vec!["guard".into()],
        state_dir: state_dir.into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.clone()],
        env: std::env::vars_os().collect(),
        data_dir: data_dir.into(),
        log_file: log_file.into(),
        cgroup: None,
        watchdog: None,
    };
    let Ok(guard) = launch.spawn() else {
        return ExitCode::FAILURE;
    };
    loop {
        guard.arm(1, boottime_ns() + 300_000_000);
        std::thread::sleep(Duration::from_millis(50));
    }
}
