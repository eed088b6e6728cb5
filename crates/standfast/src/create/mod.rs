//! `create monitor` and `create postgres`: they check, register, and write one configuration file.
//!
//! **Invariant:** the configuration file is written last and at once. Cut off anywhere, the same command works again,
//! and nothing that was there before is touched.

mod certificates;
mod monitor;
mod network;
mod postgres;

pub(crate) use certificates::StoreFiles;
pub(crate) use monitor::{MonitorRequest, create_monitor};
pub(crate) use postgres::{Access, PostgresRequest, create_postgres};

use crate::config::{Config, ConfigError, write_private};
use crate::exit::Failure;
use crate::output::note;
use crate::paths::Homes;
use anyhow::Context as _;
use std::io;
use std::path::{Path, PathBuf};

/// The cluster's name where nobody gave one: pg_auto_failover's only formation.
pub(crate) const DEFAULT_SCOPE: &str = "default";

/// What this installation of an agent is called in the store, so that two nodes with one name are told apart. Made
/// once, kept in the state directory.
pub(crate) fn identity(state_dir: &Path) -> anyhow::Result<String> {
    let file = state_dir.join("identity");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() == 32 => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    }
    let identity = format!("{:032x}", rand::random::<u128>());
    write_private(&file, identity.as_bytes())
        .with_context(|| format!("can't write {}", file.display()))?;
    Ok(identity)
}

/// The configuration that an earlier `create` left for this directory.
fn existing(file: &Path, homes: &Homes) -> Result<Option<Config>, ConfigError> {
    if !file.exists() {
        return Ok(None);
    }
    let (config, _) = Config::load(file, homes)?;
    Ok(Some(config))
}

/// Whether a directory is there and holds something.
fn is_filled(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Everything on the machine would lie inside of it, our own files first.
fn refuse_root_directory(dir: &Path) -> Result<(), Failure> {
    if dir.parent().is_some() {
        return Ok(());
    }
    Err(Failure::refused("--pgdata is the root directory")
        .hint("name an empty directory with --pgdata"))
}

/// Whether `dir` could be made, or written to if it is there.
fn check_writable(dir: &Path) -> Result<(), Failure> {
    let mut present = dir;
    while !present.exists() {
        match present.parent() {
            Some(parent) => present = parent,
            None => break,
        }
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if !present.is_dir() {
        return Err(Failure::error(format!(
            "{} is not a directory",
            present.display()
        )));
    }
    rustix::fs::access(present, access).map_err(|errno| {
        let failure = Failure::error(format!("can't write to {}: {errno}", present.display()));
        match std::env::var("USER") {
            Ok(user) => failure.hint(format!(
                "give {user} the directory; started as root, Standfast becomes the user of --user"
            )),
            Err(_) => failure,
        }
    })
}

/// A wrong `--hostname` is seen much later otherwise: as a node that waits for the store.
fn warn_of(host: &str) {
    if let Some(doubt) = network::doubt(host) {
        note(&format!("warning: {doubt}; the other nodes connect to it"));
    }
}

/// Says which flags were read and change nothing.
fn note_without_effect(flags: &[String]) {
    for flag in flags {
        note(&format!("note: {flag} has no effect in this version"));
    }
}

/// A JSON value that a path becomes; a path that is no text can't stand in the file.
fn path_value(path: &Path) -> anyhow::Result<serde_json::Value> {
    let text = path.to_str().map(str::to_owned);
    text.map(Into::into)
        .ok_or_else(|| Failure::usage(format!("the path {} is not UTF-8", path.display())).into())
}

/// What the person reads when all went well.
fn say_next(pgdata: &Path, file: &Path) {
    note(&format!("configuration: {}", file.display()));
    note(&format!("next: standfast run --pgdata {}", quoted(pgdata)));
}

/// For a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What `create` gives back: the file that it wrote, and whether to run it now.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) file: PathBuf,
    pub(crate) run: bool,
}
