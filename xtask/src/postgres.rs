//! PostgreSQL's programs of another major, as `scripts/postgres.sh` finds or fetches them.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The majors that the end-to-end tests want. Without 13 they go on: its life has ended, and one
/// day no mirror will have it.
const WANTED: [&str; 6] = ["13", "14", "15", "16", "17", "18"];

/// Where the programs of `major` are; fetches them if they are nowhere.
pub(crate) fn programs(major: &str) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres.sh");
    let output = Command::new(script)
        .arg(major)
        .stderr(Stdio::inherit())
        .output()
        .context("start scripts/postgres.sh")?;
    ensure!(output.status.success(), "there is no PostgreSQL {major}");
    let path = String::from_utf8(output.stdout).context("a path")?;
    Ok(PathBuf::from(path.trim_end()))
}

/// Has all majors ready. What is missing is said by the tests that need it, which fail under CI.
/// Only root can run them: to others nothing is fetched.
pub(crate) fn have_all() {
    if !crate::reach::is_root() {
        return;
    }
    for major in WANTED {
        if let Err(error) = programs(major) {
            crate::tests::say(&format!("{error:#}"));
        }
    }
}
