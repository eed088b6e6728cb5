//! Processes of an instance that nobody watches over: found by where they work, killed by handle.
//!
//! **Invariant:** a number is never signalled, only a handle whose process was looked at after it was opened;
//! so a process that got a recycled number is safe. It needs no guard, and does not know of one.

use crate::GuardError;
use crate::process::{self, Proc};
use rustix::process::Pid;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The living processes (no zombies) of the instance in `data_dir`: a Postgres whose working directory it is.
/// A path that doesn't resolve, or a /proc that can't be read, has none that we could name.
pub fn leftovers(data_dir: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    let Ok(proc) = Proc::open() else { return found };
    let data_dir = canonical(data_dir);
    let _unlistable = proc.each(|pid| {
        if proc.is_postgres_in(pid, data_dir.as_os_str().as_bytes()) {
            found.push(pid);
        }
    });
    found
}

/// Kills every process of the instance in `data_dir` until none is left, for at most `deadline`.
/// It is what remains to do when the guard itself was killed: its postmaster dies with it, but a busy
/// backend goes on, and commits, until it next looks at its parent.
///
/// # Errors
/// `StillAlive` when a process can't be killed in time (it hangs on a disk); nothing is proven then.
pub fn kill_leftovers(data_dir: &Path, deadline: Duration) -> Result<(), GuardError> {
    let proc = Proc::open().map_err(|errno| GuardError::Proc(errno.into()))?;
    let data_dir = canonical(data_dir);
    let began = Instant::now();
    let mut quiet_looks = 0;
    loop {
        let left = strike(&proc, data_dir.as_os_str().as_bytes())
            .map_err(|errno| GuardError::Proc(errno.into()))?;
        quiet_looks = if left == 0 { quiet_looks + 1 } else { 0 };
        // One look can miss a process that was forked behind it by one that then died; two can't, because
        // whatever the first look found was killed.
        if quiet_looks == 2 {
            return Ok(());
        }
        if left > 0 {
            if began.elapsed() >= deadline {
                return Err(GuardError::StillAlive {
                    left,
                    waited: began.elapsed(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One look: kills what it sees, and says how many that were. Allocates nothing: the guard uses it too.
pub(crate) fn strike(proc: &Proc, data_dir: &[u8]) -> Result<usize, rustix::io::Errno> {
    let mut alive = 0;
    proc.each(|pid| {
        if !proc.is_postgres_in(pid, data_dir) {
            return;
        }
        let Ok(handle) = process::handle(pid) else {
            return;
        };
        // Looked at again behind the handle: the number may have been given away in between.
        if proc.is_postgres_in(pid, data_dir) && !process::has_ended(handle.as_fd()) {
            alive += 1;
            process::kill(handle.as_fd());
        }
    })?;
    Ok(alive)
}

/// The path as /proc shows it. One that is gone is taken by its name.
fn canonical(data_dir: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(data_dir)
        .or_else(|_| std::path::absolute(data_dir))
        .unwrap_or_else(|_| data_dir.to_owned())
}
