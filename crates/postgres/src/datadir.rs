//! What is in the data directory, and the marker that says that it is not whole.
//!
//! **Invariant:** the marker is on disk before the first byte of a clone, rewind or initdb is written, and goes only
//! after the last one is; nothing is removed that neither carries the marker nor was named by the caller.

use crate::binaries::Binaries;
use crate::control::{Control, ControlState};
use crate::error::PostgresError;
use crate::files;
use crate::program::Running;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDir {
    Absent,
    Empty,
    Ready(Control),
    /// Work on it was cut off, or goes on: it must not be started.
    Unfinished(Work),
    /// Not ours to touch.
    Unusable {
        why: String,
    },
}

/// Work that leaves the directory unusable when it is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    Init,
    Clone,
    Rewind,
}

/// The marker's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) work: Work,
    pub(crate) data_dir: PathBuf,
    /// The program that does it, so that an agent that comes after a crash can end it.
    pub(crate) program: Option<Running>,
}

impl Marker {
    /// The marker of this directory. One that can't be read counts as the worst case.
    pub(crate) fn read(path: &Path, data_dir: &Path) -> Result<Option<Self>, PostgresError> {
        let Some(text) = files::read_text(path)? else {
            return Ok(None);
        };
        let marker = serde_json::from_str::<Self>(&text).unwrap_or_else(|_| Self {
            work: Work::Rewind,
            data_dir: data_dir.to_owned(),
            program: None,
        });
        Ok((marker.data_dir == data_dir).then_some(marker))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), PostgresError> {
        let text = serde_json::to_vec(self)
            .map_err(|e| PostgresError::file("write", path, std::io::Error::other(e)))?;
        files::write_atomic(path, &text)
    }
}

pub(crate) fn inspect(
    data_dir: &Path,
    marker: &Path,
    binaries: &Binaries,
) -> Result<DataDir, PostgresError> {
    if let Some(marker) = Marker::read(marker, data_dir)? {
        return Ok(DataDir::Unfinished(marker.work));
    }
    look(data_dir, binaries)
}

/// What is there, whatever any marker says.
pub(crate) fn look(data_dir: &Path, binaries: &Binaries) -> Result<DataDir, PostgresError> {
    let unusable = |why: String| Ok(DataDir::Unusable { why });
    if data_dir.parent().is_none() {
        return unusable("it is the root directory".to_owned());
    }
    let metadata = match std::fs::symlink_metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(DataDir::Absent),
        Err(e) => return unusable(format!("can't be looked at: {e}")),
    };
    if metadata.is_symlink() {
        let real = std::fs::canonicalize(data_dir).unwrap_or_default();
        return unusable(format!(
            "it is a symbolic link; name {} instead",
            real.display()
        ));
    }
    if !metadata.is_dir() {
        return unusable("it is not a directory".to_owned());
    }
    let me = geteuid().as_raw();
    if metadata.uid() != me {
        return unusable(format!(
            "it belongs to user {}, we are user {me}",
            metadata.uid()
        ));
    }
    let mut entries = match std::fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(e) => return unusable(format!("can't be read: {e}")),
    };
    if entries.next().is_none() {
        return Ok(DataDir::Empty);
    }
    let Some(version) = files::read_text(&data_dir.join("PG_VERSION"))? else {
        return unusable("it is not empty and holds no PostgreSQL cluster".to_owned());
    };
    if version.trim().parse() != Ok(binaries.major) {
        return unusable(format!(
            "it was made by PostgreSQL {}, the programs in {} are of PostgreSQL {}",
            version.trim(),
            binaries.dir.display(),
            binaries.major
        ));
    }
    if metadata.mode() & 0o027 != 0 {
        let mode = metadata.mode() & 0o777;
        return unusable(format!(
            "its mode is {mode:04o}, PostgreSQL wants 0700 or 0750"
        ));
    }
    match Control::read(binaries, data_dir) {
        Ok(control) => Ok(DataDir::Ready(control)),
        Err(PostgresError::Spawn { program, source }) => {
            Err(PostgresError::Spawn { program, source })
        }
        Err(e) => unusable(format!("its control file can't be read: {e}")),
    }
}

/// In the data directory, so that it outlives the state directory: Standfast has run this copy.
const MARK: &str = "standfast.cluster";
/// Made by a person in the data directory that shall be the beginning of a new cluster.
const WORD: &str = "standfast.found";
const MARK_TEXT: &str = "\
This data directory belongs to a Standfast cluster; every node's does.
Where the store of that cluster is lost, none of them becomes a new cluster by itself:
another one may have newer data. A person decides, by a file standfast.found beside this one.
";

/// Written before Postgres starts under Standfast. A person's word is used up by it.
pub(crate) fn mark(data_dir: &Path) -> Result<(), PostgresError> {
    files::write_if_changed(&data_dir.join(MARK), MARK_TEXT.as_bytes())?;
    files::remove_durably(&data_dir.join(WORD)).map(drop)
}

/// A copy of a cluster's directory that begins a new one, as a person has configured it.
pub(crate) fn unmark(data_dir: &Path) -> Result<(), PostgresError> {
    files::remove_durably(&data_dir.join(MARK))?;
    files::remove_durably(&data_dir.join(WORD)).map(drop)
}

/// Why no new cluster may be made of this directory, unless a person says so.
pub(crate) fn may_found(data_dir: &Path, control: &Control) -> Result<(), String> {
    let word = data_dir.join(WORD);
    if word.is_file() {
        return Ok(());
    }
    let how = format!("make the file {} there", word.display());
    if !matches!(data_dir.join(MARK).try_exists(), Ok(false)) {
        return Err(format!(
            "its data directory belongs to a cluster whose store is not here, and another node may have newer data; \
             bring the store back, or choose the one node that shall begin anew and {how}"
        ));
    }
    match control.state {
        ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => Err(format!(
            "its data directory is a standby's; begin with the primary's, or {how} if this one shall take its place"
        )),
        ControlState::ShutDown
        | ControlState::InProduction
        | ControlState::InCrashRecovery
        | ControlState::Other => Ok(()),
    }
}

/// The major version of the cluster in a directory, if there is one.
pub(crate) fn major(data_dir: &Path) -> Option<u32> {
    std::fs::read_to_string(data_dir.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Removes what is in the directory but not itself (it may be a mount point), with what its links for WAL and
/// tablespaces point at. Returns where the WAL was, when that was elsewhere.
///
/// The caller has made sure that it may.
pub(crate) fn clear(data_dir: &Path, major: u32) -> Result<Option<PathBuf>, PostgresError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| PostgresError::file("remove", &path, e)
    };
    let wal = std::fs::read_link(data_dir.join("pg_wal"))
        .ok()
        .filter(|target| target.is_absolute());
    if let Some(wal) = &wal {
        remove_children(wal, |_| true)?;
    }
    let tablespaces = std::fs::read_dir(data_dir.join("pg_tblspc"));
    for link in tablespaces.into_iter().flatten().flatten() {
        if let Ok(target) = std::fs::read_link(link.path()) {
            // Versions share a tablespace's directory; only our major's part is this cluster's.
            remove_children(&target, |name| name.starts_with(&format!("PG_{major}_")))?;
        }
    }
    // The control file goes first: what is left can't be taken for a cluster, with or without the marker.
    let control = data_dir.join("global/pg_control");
    if files::remove(&control)? {
        files::sync_parent(&control)?;
    }
    match std::fs::read_dir(data_dir) {
        Ok(_) => remove_children(data_dir, |_| true)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(data_dir)(e)),
    }
    Ok(wal)
}

fn remove_children(dir: &Path, which: impl Fn(&str) -> bool) -> Result<(), PostgresError> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if !which(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        // `file_type` does not follow links: a link is unlinked, its target left alone.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(|e| PostgresError::file("remove", &path, e))?;
    }
    files::sync_dir(dir)
}
