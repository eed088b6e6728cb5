//! Short programs run to their end, and where PostgreSQL's programs lie.

use crate::Identity;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program and returns its stdout; a failure names the program and what it printed.
pub fn run_to_end(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The directory of the newest PostgreSQL server programs: `STANDFAST_PG_BIN`, else Debian's
/// places, else that of `initdb` on the PATH.
pub fn postgres_bin_dir() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("STANDFAST_PG_BIN") {
        let named = PathBuf::from(named);
        return if has_server(&named) {
            Ok(named)
        } else {
            bail!(
                "STANDFAST_PG_BIN={} has no initdb and postgres",
                named.display()
            )
        };
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(version, bin)| (13..=18).contains(version) && has_server(bin))
        .collect();
    versions.sort();
    if let Some((_, bin)) = versions.pop() {
        return Ok(bin);
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .find(|directory| has_server(directory))
        .context("no PostgreSQL server programs found: run `make setup`")
}

/// `bin`, or a copy in `room` where a user of ours can't reach the original, as below root's home.
pub(crate) fn within_reach(bin: PathBuf, identity: &Identity, room: &Path) -> Result<PathBuf> {
    let original = bin
        .canonicalize()
        .with_context(|| format!("look for {}", bin.display()))?;
    let open = |part: &Path| part.metadata().is_ok_and(|meta| meta.mode() & 0o001 != 0);
    if matches!(identity, Identity::Oneself { .. }) || original.ancestors().all(open) {
        return Ok(bin);
    }
    // Libraries and the rest lie beside the programs.
    let root = bin.parent().context("a directory has a parent")?;
    run_to_end(Command::new("cp").arg("-a").arg(root).arg(room))?;
    Ok(room.join(bin.strip_prefix(root.parent().unwrap_or(root))?))
}

fn has_server(directory: &Path) -> bool {
    directory.join("initdb").is_file() && directory.join("postgres").is_file()
}
