//! The program that labs run, in one copy for all that are there at a time: a debug build has a hundred megabytes, and
//! a test run a hundred labs.

use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;
use tempfile::TempDir;

/// Goes with the last lab that holds it.
#[derive(Debug)]
pub(crate) struct SharedCopy {
    /// Of what, and where.
    what: What,
    directory: TempDir,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct What {
    binary: PathBuf,
    /// One that was built meanwhile is another.
    modified: SystemTime,
    parent: PathBuf,
}

/// The newest.
static NEWEST: Mutex<Weak<SharedCopy>> = Mutex::new(Weak::new());

impl SharedCopy {
    /// Of `binary`, somewhere in `parent`.
    pub(crate) fn of(binary: &Path, parent: &Path) -> Result<Arc<Self>> {
        let read = || format!("read {}", binary.display());
        let what = What {
            binary: binary.to_owned(),
            modified: binary
                .metadata()
                .and_then(|it| it.modified())
                .with_context(read)?,
            parent: parent.to_owned(),
        };
        let mut newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = newest.upgrade().filter(|copy| copy.what == what) {
            return Ok(copy);
        }
        let directory = tempfile::Builder::new()
            .prefix("standfast-program-")
            .tempdir_in(parent)
            .with_context(|| format!("create a directory in {}", parent.display()))?;
        let copy = Arc::new(Self { what, directory });
        fs::copy(binary, copy.path())
            .with_context(|| format!("copy {} to {}", binary.display(), copy.path().display()))?;
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755))?;
        *newest = Arc::downgrade(&copy);
        Ok(copy)
    }

    /// The same file by another name, where the file system knows such.
    pub(crate) fn link(&self, own: &Path) -> Result<()> {
        fs::hard_link(self.path(), own)
            .or_else(|_| fs::copy(self.path(), own).map(drop))
            .with_context(|| format!("link {} to {}", self.path().display(), own.display()))
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("standfast")
    }
}
