//! Files that survive a power loss: written beside, synced, renamed, and the directory synced.
//!
//! **Invariant:** a reader sees the old content or the new, never a part; and no file is written through a symbolic
//! link that somebody else put there.

use crate::error::PostgresError;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// Replaces `path` by a file of mode 0600 with this content.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<(), PostgresError> {
    let fail = |doing: &'static str| move |e: io::Error| PostgresError::file(doing, path, e);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let beside = path.with_file_name(format!(".{name}.new"));
    // A file left by an earlier attempt, or planted, is removed, never opened.
    remove(&beside)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&beside, flags, Mode::RUSR | Mode::WUSR)
        .map_err(io::Error::from)
        .map_err(fail("create"))?;
    let mut file = File::from(file);
    file.write_all(content).map_err(fail("write"))?;
    file.sync_all().map_err(fail("sync"))?;
    drop(file);
    std::fs::rename(&beside, path).map_err(fail("rename to"))?;
    sync_parent(path)
}

/// Like [`write_atomic`], but touches nothing when the content is there already. Returns whether it wrote.
pub(crate) fn write_if_changed(path: &Path, content: &[u8]) -> Result<bool, PostgresError> {
    let plain = std::fs::symlink_metadata(path)
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o777 == 0o600);
    if plain && std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    write_atomic(path, content)?;
    Ok(true)
}

/// Removes a file and makes that durable; no file is no error.
pub(crate) fn remove_durably(path: &Path) -> Result<(), PostgresError> {
    if remove(path)? {
        sync_parent(path)
    } else {
        Ok(())
    }
}

/// Removes a file; says whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, PostgresError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(PostgresError::file("remove", path, e)),
    }
}

/// Makes the entries of the directory that holds `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), PostgresError> {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    sync_dir(parent)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), PostgresError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| PostgresError::file("sync directory", dir, e))
}

/// Makes a directory of mode 0700, with its parents.
pub(crate) fn private_dir(path: &Path) -> Result<(), PostgresError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| PostgresError::file("create directory", path, e))
}

/// The text of a file, `None` if there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, PostgresError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(PostgresError::file("read", path, e)),
    }
}

/// Up to `limit` bytes of a file from `offset` on.
pub(crate) fn read_from(path: &Path, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, target) = (dir.path().join("victim"), dir.path().join("conf"));
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".conf.new")).unwrap();
        std::os::unix::fs::symlink(&victim, &target).unwrap();
        write_atomic(&target, b"ours").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "ours");
        assert!(!write_if_changed(&target, b"ours").unwrap());
        assert!(write_if_changed(&target, b"new").unwrap());
    }
}
