//! The project's own chores: `cargo xtask ci` is everything that CI runs and never writes to the
//! tree; `cargo xtask fix` does.

mod fetched;
mod lints;
mod postgres;
mod reach;
mod tests;

use anyhow::{Context, Result, anyhow, ensure};
use std::ffi::OsStr;
use std::process::{Command, ExitCode};

const USAGE: &str = "cargo xtask <command>
  ci        formatting, lints, every test, the end-to-end tests
  fix       rustfmt, and what clippy can mend
  test      every test but the end-to-end ones
  e2e       the end-to-end tests alone; words after it choose tests by name
  etcd      the end-to-end tests of three nodes with etcd as their store; words after it choose
  pg N …    test or e2e on PostgreSQL N, fetched if it is not here: pg 17 e2e the_postmaster
  soak N    the end-to-end tests, N times over
  soak proxy N   32 clients of the proxy through N changes of the primary
  sim N     N seeded worlds of the simulation
  bench …   standfast bench failover, release build";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["ci"] => ci(),
        ["fix"] => fix(),
        ["test"] => tests::run(&tests::UNIT).and_then(tests::Count::finish),
        ["e2e", names @ ..] => e2e(names),
        ["etcd", names @ ..] => with_etcd(names).and_then(tests::Count::finish),
        ["pg", major, "test"] => on_postgres(major, &tests::UNIT),
        ["pg", major, "e2e", names @ ..] => on_postgres(major, &tests::end_to_end(names)),
        ["soak", "proxy", changes] => soak_proxy(changes).and_then(tests::Count::finish),
        ["soak", times] => soak(times),
        ["sim", worlds] => cargo(&["run", "--package", "sim", "--", "--worlds", worlds]),
        ["bench", rest @ ..] => bench(rest),
        _ => Err(anyhow!("{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tests::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What is played with etcd on every run: the faults of which each kind stands for many. `cargo xtask etcd` plays all.
const WITH_ETCD: [&str; 5] = [
    "the_machine_freezes",
    "the_primary_is_cut_off",
    "the_agent_of_the_primary",
    "a_standby_is_lost",
    "a_second_failure",
];

/// Lints first: they are fast, and a person who waits wants to know early. But a lint that fails
/// keeps no test from being run, so that one run shows all there is.
fn ci() -> Result<()> {
    let checks = lints::check();
    // Crates' own tests use other majors, too.
    postgres::have_all();
    fetched::have();
    let mut count = tests::run(&tests::ALL)?;
    count.add(&with_etcd(&WITH_ETCD)?);
    for check in checks {
        if let Err(error) = check {
            tests::say(&format!("{error:#}"));
            count.fail_a_check();
        }
    }
    count.finish()
}

fn fix() -> Result<()> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ])?;
    cargo(&["fmt", "--all"])
}

fn e2e(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        postgres::have_all();
    }
    // Whichever tests the words choose: this is quick where it is there already.
    fetched::have();
    tests::run(&tests::end_to_end(names))?.finish()
}

fn on_postgres(major: &str, arguments: &tests::Words) -> Result<()> {
    let programs = postgres::programs(major)?;
    tests::run_with(arguments, &[("STANDFAST_PG_BIN", programs.as_os_str())])?.finish()
}

fn with_etcd(names: &[&str]) -> Result<tests::Count> {
    let store = OsStr::new("etcd");
    tests::run_with(
        &tests::three_nodes(names),
        &[("STANDFAST_E2E_STORE", store)],
    )
}

fn soak(times: &str) -> Result<()> {
    let times: u32 = times.parse().context("how many times")?;
    for round in 1..=times {
        tests::say(&format!("round {round} of {times}"));
        e2e(&[])?;
    }
    Ok(())
}

fn soak_proxy(changes: &str) -> Result<tests::Count> {
    let count: u32 = changes.parse().context("how many changes")?;
    tests::run_with(
        &tests::proxy(&["what_the_proxy_says_of_rows_is_true"]),
        &[("STANDFAST_E2E_CHANGES", OsStr::new(&count.to_string()))],
    )
}

fn bench(rest: &[&str]) -> Result<()> {
    let standfast = [
        "run",
        "--release",
        "--package",
        "standfast",
        "--",
        "bench",
        "failover",
    ];
    cargo(&[&standfast, rest].concat())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    tests::say(&format!("cargo {}", arguments.join(" ")));
    let status = fresh_cargo()
        .args(arguments)
        .status()
        .context("start cargo")?;
    ensure!(
        status.success(),
        "cargo {} failed: {status}",
        arguments.join(" ")
    );
    Ok(())
}

/// As if a person called it. Cargo has told this program of the package that it is from, and a build script of ring's
/// asks for the same names: cargo would build ring anew, and all that is built on it, whenever it is called from
/// somewhere else than the last time.
fn fresh_cargo() -> Command {
    let name = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = own_ipc(&name).unwrap_or_else(|| Command::new(&name));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("CARGO_PKG_") || ours.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The same program in an IPC namespace of its own, where that is allowed. A server that is killed leaves a segment of
/// shared memory behind, and a machine has room for 4096: with the namespace they go, too.
fn own_ipc(name: &OsStr) -> Option<Command> {
    let mut unshare = Command::new("unshare");
    unshare.arg("--ipc");
    let tried = Command::new("unshare").args(["--ipc", "true"]).output();
    let works = tried.is_ok_and(|tried| tried.status.success());
    works.then(|| {
        unshare.arg(name);
        unshare
    })
}
