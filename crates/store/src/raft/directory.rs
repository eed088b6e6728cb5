//! A member's directory: its lock, its number, its file.
//!
//! **Invariant:** one process at a time; a number is drawn once and never used by another directory.

use super::disk::{Change, Contents, Disk, builder};
use super::log::{put, stored};
use super::types::NodeId;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions, remove_file, rename};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

const ID: &str = "id";

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) disk: Arc<Disk>,
    pub(crate) contents: Contents,
    pub(crate) id: NodeId,
}

impl Directory {
    /// Opens the directory; an absent one is created, readable by its owner only.
    pub(crate) async fn open(path: &Path) -> io::Result<Self> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || open(&path))
            .await
            .map_err(io::Error::other)?
    }
}

/// 0 is nobody: openraft and its tests use it for placeholders.
pub(crate) fn draw_id() -> NodeId {
    rand::random_range(1..=u64::MAX)
}

pub(crate) fn put_id(id: NodeId) -> io::Result<Change> {
    put(ID, &id)
}

fn open(path: &Path) -> io::Result<Directory> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let lock = lock_directory(path)?;
    let file = path.join("store.redb");
    if !file.exists() {
        create(path, &file)?;
    }
    let database = builder().open(&file).map_err(io::Error::other)?;
    let (disk, contents) = Disk::start(database, Some(lock))?;
    let id = stored(&contents, ID)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the store's file names no member",
        )
    })?;
    Ok(Directory {
        disk: Arc::new(disk),
        contents,
        id,
    })
}

/// Makes a complete file under another name first: one whose making was cut short by a power failure
/// could not be opened again.
fn create(path: &Path, file: &Path) -> io::Result<()> {
    let unfinished = path.join("store.redb.new");
    match remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let database = builder().create(&unfinished).map_err(io::Error::other)?;
    let (disk, _) = Disk::start(database, None)?;
    disk.write_now(vec![put_id(draw_id())?])?;
    drop(disk);
    rename(&unfinished, file)?;
    File::open(path)?.sync_all()
}

fn lock_directory(path: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        let path = path.display();
        match error {
            rustix::io::Errno::WOULDBLOCK => {
                io::Error::other(format!("{path} is in use by another process"))
            }
            other => other.into(),
        }
    })?;
    Ok(lock)
}
