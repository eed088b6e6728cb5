//! Formatting and lints.
//!
//! **Invariant:** a toolchain that is newer than the code never fails a run by what it has learnt to complain about.

use crate::{cargo, tests};
use anyhow::{Context, Result};
use std::process::Command;

/// The Rust whose complaints count; others are shown.
const JUDGE: &str = "1.95.";

/// Checks the whole workspace and changes nothing. Every failure is in the answer.
pub(crate) fn check() -> [Result<()>; 2] {
    [cargo(&["fmt", "--all", "--check"]), clippy()]
}

fn clippy() -> Result<()> {
    let mut words = vec!["clippy", "--workspace", "--all-targets", "--locked"];
    let here = rustc_version()?;
    if here.starts_with(JUDGE) {
        words.extend(["--", "--deny", "warnings"]);
    } else {
        tests::say(&format!(
            "warnings are shown and don't count: this is Rust {here}, the code is judged by {JUDGE}x"
        ));
    }
    cargo(&words)
}

/// `1.95.0`.
fn rustc_version() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let printed = output.context("start rustc")?.stdout;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let version = printed.split_whitespace().nth(1);
    version.map(str::to_owned).context("rustc has no version")
}
