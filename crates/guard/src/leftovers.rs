//! Processes of an instance that nobody watches over: found by where they work, killed by handle.
//!
//! **Invariant:** a number is never signalled, only a handle whose process was looked at after it was opened;
//! so a process that got a recycled number is safe. It needs no guard, and does not know of one.

use crate::GuardError;
use crate::process::{self, Proc};
use rustix::io::Errno;
use rustix::process::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The living processes of the instance in `data_dir`: a Postgres whose working directory it is.
/// Zombies don't count, nor what is so far into its exit that the kernel has closed its files already.
/// A path that doesn't resolve, or a /proc that can't be read, has none that we could name.
pub fn leftovers(data_dir: &Path) -> Vec<Pid> {
    let Ok(proc) = Proc::open() else {
        return Vec::new();
    };
    let data_dir = canonical(data_dir);
    held(&proc, data_dir.as_os_str().as_bytes())
        .map(|held| held.into_iter().map(|(pid, _)| pid).collect())
        .unwrap_or_default()
}

/// Kills every process of the instance in `data_dir` until none is left, for at most `deadline`.
/// It is what remains to do when the guard itself was killed: its postmaster dies with it, but a busy
/// backend goes on, and commits, until it next looks at its parent. It waits: not for an async task.
///
/// # Errors
/// `StillAlive` when a process can't be killed in time (it hangs on a disk); nothing is proven then.
pub fn kill_leftovers(data_dir: &Path, deadline: Duration) -> Result<(), GuardError> {
    let proc = Proc::open().map_err(|errno| GuardError::Proc(errno.into()))?;
    let data_dir = canonical(data_dir);
    let began = Instant::now();
    let mut dying = Vec::new();
    let mut quiet_looks = 0;
    loop {
        let seen = held(&proc, data_dir.as_os_str().as_bytes())
            .map_err(|errno| GuardError::Proc(errno.into()))?;
        for (_, handle) in seen {
            process::kill(handle.as_fd());
            dying.push(handle);
        }
        dying.retain(|handle| !process::has_ended(handle.as_fd()));
        quiet_looks = if dying.is_empty() { quiet_looks + 1 } else { 0 };
        // One look can miss a process that was forked behind it by one that then died; two can't, because
        // whatever the first look found was killed.
        if quiet_looks == 2 {
            return Ok(());
        }
        if began.elapsed() >= deadline && !dying.is_empty() {
            return Err(GuardError::StillAlive {
                left: dying.len(),
                waited: began.elapsed(),
            });
        }
        if !dying.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The processes of the instance, each with a handle that was opened before the last look at it.
fn held(proc: &Proc, data_dir: &[u8]) -> Result<Vec<(Pid, OwnedFd)>, Errno> {
    let mut found = Vec::new();
    each(proc, data_dir, |pid, handle| found.push((pid, handle)))?;
    Ok(found)
}

/// One look: kills what it sees, and says how many that were. Allocates nothing: it is the guard's.
pub(crate) fn strike(proc: &Proc, data_dir: &[u8]) -> Result<usize, Errno> {
    let mut alive = 0;
    each(proc, data_dir, |_, handle| {
        alive += 1;
        process::kill(handle.as_fd());
    })?;
    Ok(alive)
}

fn each(proc: &Proc, data_dir: &[u8], mut visit: impl FnMut(Pid, OwnedFd)) -> Result<(), Errno> {
    proc.each(|pid| {
        if !proc.is_postgres_in(pid, data_dir) {
            return;
        }
        let Ok(handle) = process::handle(pid) else {
            return;
        };
        // Looked at again behind the handle: the number may have been given away in between.
        if proc.is_postgres_in(pid, data_dir) && !process::has_ended(handle.as_fd()) {
            visit(pid, handle);
        }
    })
}

/// The path as /proc shows it. One that is gone is taken by its name.
fn canonical(data_dir: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(data_dir)
        .or_else(|_| std::path::absolute(data_dir))
        .unwrap_or_else(|_| data_dir.to_owned())
}
