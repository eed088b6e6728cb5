//! The `standfast` that the stories run: `STANDFAST_BIN`, or built from this tree, once.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Never a stale one: a test of yesterday's binary proves nothing.
pub(crate) fn standfast() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("STANDFAST_BIN") {
        let named = PathBuf::from(named);
        ensure!(
            named.is_file(),
            "STANDFAST_BIN={} is no file",
            named.display()
        );
        return Ok(named);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        // What cargo has told this test of its package. A build script of ring's asks for the same names: cargo would
        // build ring anew, and all that is built on it, whenever it is called from somewhere else than the last time.
        let ours = name.to_string_lossy();
        if ours.starts_with("CARGO_PKG_") || ours.starts_with("CARGO_MANIFEST_") {
            build.env_remove(name);
        }
    }
    let built = build
        .args(["build", "--quiet", "--package", "standfast"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("start cargo")?;
    ensure!(built.success(), "standfast does not build");
    let own = std::env::current_exe().context("where this test lies")?;
    let beside = own
        .ancestors()
        .nth(2)
        .context("target/debug/deps has parents")?;
    Ok(beside.join("standfast"))
}
