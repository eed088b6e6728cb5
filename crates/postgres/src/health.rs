//! Probes that a hung or full disk can't deceive: with those, connections and `SELECT 1` go on working.
//!
//! **Invariant:** at most one write is under way, however long the disk hangs, and no caller waits longer than its limit.

use crate::error::PostgresError;
use crate::instance::Instance;
use ha::Lsn;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Base backups and pg_rewind leave out names that begin so.
const PROBE_FILE: &str = "pgsql_tmp_standfast_probe";

pub(crate) struct WriteProbe {
    /// Held by the thread that writes, which a hung disk may hold for ever.
    turn: Arc<Semaphore>,
}

impl WriteProbe {
    pub(crate) fn new() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

/// The file system of the data directory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    pub size: u64,
    /// For those who are not root; both are 0 where the system does not tell.
    pub free: u64,
}

impl DiskSpace {
    /// Blocks, on a disk that hangs for ever.
    fn of(dir: &Path) -> Self {
        let found = rustix::fs::statvfs(dir);
        found.map_or_else(
            |_| Self::default(),
            |fs| Self {
                size: fs.f_blocks.saturating_mul(fs.f_frsize),
                free: fs.f_bavail.saturating_mul(fs.f_frsize),
            },
        )
    }
}

impl Instance {
    /// Writes and syncs a small file in the data directory (and where the WAL is, if that is elsewhere). `Hung`,
    /// `DiskFull` and `ReadOnly` are what is wrong with the storage.
    pub async fn probe_write(&self, limit: Duration) -> Result<DiskSpace, PostgresError> {
        let began = Instant::now();
        let hung = || PostgresError::Hung {
            detail: "write and sync a file".to_owned(),
            after: limit,
        };
        let turn = self.inner.write_probe.turn.clone();
        let turn = tokio::time::timeout(limit, turn.acquire_owned())
            .await
            .map_err(|_| hung())?;
        let (tell, told) = oneshot::channel();
        let data_dir = self.options().data_dir.clone();
        // A thread of its own: a hung disk must not use up those that the runtime has for others.
        std::thread::Builder::new()
            .name("write-probe".to_owned())
            .spawn(move || {
                let result = write_once(&data_dir).map(|()| DiskSpace::of(&data_dir));
                drop(turn);
                // Nobody may be waiting any more.
                let _ = tell.send(result);
            })
            .map_err(|e| PostgresError::file("start a thread to write in", Path::new("."), e))?;
        let left = limit.saturating_sub(began.elapsed());
        let written = tokio::time::timeout(left, told).await.map_err(|_| hung())?;
        written.unwrap_or_else(|_| Err(hung()))
    }

    /// On a primary: while somebody waits for the WAL's disk, the WAL must move. `Hung` when it did not for `limit`.
    pub async fn probe_wal(&self, limit: Duration) -> Result<(), PostgresError> {
        let end = Instant::now() + limit;
        let first = self.probe(limit).await?;
        if first.in_recovery || first.wal_waiters == 0 {
            return Ok(());
        }
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let next = self.probe(limit).await?;
            if next.wal_waiters == 0 || next.in_recovery || moved(first.flushed, next.flushed) {
                return Ok(());
            }
        }
        let detail = format!(
            "the WAL stands at {} while sessions wait for it",
            first.flushed
        );
        Err(PostgresError::Hung {
            detail,
            after: limit,
        })
    }
}

fn moved(from: Lsn, to: Lsn) -> bool {
    to > from
}

/// Blocks for as long as the disk does.
pub(crate) fn write_once(data_dir: &Path) -> Result<(), PostgresError> {
    write_in(data_dir)?;
    let wal = data_dir.join("pg_wal");
    if std::fs::symlink_metadata(&wal).is_ok_and(|m| m.is_symlink()) {
        write_in(&wal)
    } else {
        Ok(())
    }
}

fn write_in(dir: &Path) -> Result<(), PostgresError> {
    let path = dir.join(PROBE_FILE);
    let failed = |e: io::Error| PostgresError::file("write and sync", &path, e);
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
    let mut file = File::from(file);
    // Freshly allocated each time, or a full disk would go unnoticed.
    let result = file
        .write_all(&[0x5a; 8192])
        .and_then(|()| file.sync_all())
        .map_err(failed);
    drop(file);
    let removed = std::fs::remove_file(&path).map_err(failed);
    result.and(removed)
}
