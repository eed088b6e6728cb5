//! What the tests run in place of `standfast`: `guard …` is the guard; `agent …` an agent to be killed.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|verb| verb.to_str()) {
        Some("guard") => guard::main(args.collect()),
        Some("agent") => agent(&args.collect::<Vec<_>>()),
        _ => ExitCode::FAILURE,
    }
}

/// Attaches to the guard of the state directory and keeps its deadline 300 ms ahead until it is killed.
fn agent(args: &[OsString]) -> ExitCode {
    let Some(state_dir) = args.first() else {
        return ExitCode::FAILURE;
    };
    let Ok(Some(guard)) = guard::Guard::attach(state_dir.as_ref()) else {
        return ExitCode::FAILURE;
    };
    loop {
        guard.arm(1, guard::boottime_ns() + 300_000_000);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
