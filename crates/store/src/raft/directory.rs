//! A member's directory: its lock, its number, its file.
//!
//! **Invariant:** one process at a time; a number is drawn once and never used by another directory.

use super::disk::{Change, Contents, Disk, builder};
use super::log::{put, stored};
use super::types::NodeId;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
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
        let opened = tokio::task::spawn_blocking(move || open(&path)).await;
        let (disk, contents) = opened.map_err(io::Error::other)??;
        Self::identified(Arc::new(disk), contents).await
    }

    /// Reads the member's number, or draws one.
    pub(crate) async fn identified(disk: Arc<Disk>, contents: Contents) -> io::Result<Self> {
        let id = match stored(&contents, ID)? {
            Some(id) => id,
            None => {
                let id = draw_id();
                disk.write(vec![put_id(id)?]).await?;
                id
            }
        };
        Ok(Self { disk, contents, id })
    }
}

/// 0 is nobody: openraft and its tests use it for placeholders.
pub(crate) fn draw_id() -> NodeId {
    rand::random_range(1..=u64::MAX)
}

pub(crate) fn put_id(id: NodeId) -> io::Result<Change> {
    put(ID, &id)
}

fn open(path: &Path) -> io::Result<(Disk, Contents)> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let lock = lock_directory(path)?;
    let file = path.join("store.redb");
    let is_new = !file.exists();
    let database = builder().create(&file).map_err(io::Error::other)?;
    if is_new {
        // The file's name must survive a power failure too.
        File::open(path)?.sync_all()?;
    }
    Disk::start(database, Some(lock))
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
