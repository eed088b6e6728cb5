//! Where the programs of each PostgreSQL major lie: the machine's own, or those that
//! `scripts/postgres.sh` fetched into `target/postgres`. A test fetches nothing itself.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The directory of a major's programs; the error says how to get them.
pub fn programs_of(major: u32) -> Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fetched = project
        .canonicalize()?
        .join(format!("target/postgres/{major}"));
    let own = PathBuf::from(format!("/usr/lib/postgresql/{major}"));
    [own, fetched]
        .into_iter()
        .map(|root| root.join("bin"))
        .find(|bin| bin.join("postgres").is_file() && bin.join("pg_rewind").is_file())
        .map_or_else(
            || bail!("no PostgreSQL {major} here: run `scripts/postgres.sh {major}`"),
            Ok,
        )
}
