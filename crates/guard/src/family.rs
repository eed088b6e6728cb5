//! The guard's descendants: all reaped, or all killed.
//!
//! **Invariant:** the guard is a child subreaper, so "no child" means "no descendant": an orphan becomes our
//! child, and one that isn't an orphan has a living ancestor who is. A number is signalled directly only when
//! it is our own unreaped child, which can't be recycled; all others through handles.
//! It does not know why they are to die.

use crate::process::{self, Proc};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::os::fd::{AsFd, BorrowedFd};

/// Processes nest this deep at most: postmaster, archiver, shell, script and what it runs.
/// Whatever is deeper becomes ours when its parents die, and is killed in a later strike.
const DEPTH_MAX: u32 = 8;

/// Reaps every child that has ended, telling `ended` of each. Whether children are left.
pub(crate) fn reap(mut ended: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended(pid, status),
            Ok(None) => return true,
            Err(Errno::CHILD) => return false,
            Err(Errno::INTR) => {}
            // Nothing else is documented; claiming that children are left is the safe answer.
            Err(_) => return true,
        }
    }
}

/// Kills every descendant of `own` that is seen; how many that were.
/// Call it again until [`reap`] says that no child is left.
pub(crate) fn strike(proc: &Proc, own: Pid) -> u32 {
    let mut struck = 0;
    // All children first, and only then their children: the postmaster stops forking at once.
    proc.each_child(own, |child| {
        if rustix::process::kill_process(child, Signal::KILL).is_ok() {
            struck += 1;
        }
    });
    proc.each_child(own, |child| {
        struck += strike_below(proc, own, child, None, DEPTH_MAX)
    });
    struck
}

/// Kills what is below `parent`. `held` is the handle that proves that `parent` is still who it was;
/// our own children need none.
fn strike_below(
    proc: &Proc,
    own: Pid,
    parent: Pid,
    held: Option<BorrowedFd<'_>>,
    depth_left: u32,
) -> u32 {
    let mut struck = 0;
    if depth_left == 0 {
        return struck;
    }
    proc.each_child(parent, |child| {
        let Ok(handle) = process::handle(child) else {
            return;
        };
        let Some(stat) = proc.stat(child) else { return };
        let is_ours = stat.parent == own.as_raw_nonzero().get();
        let is_theirs = stat.parent == parent.as_raw_nonzero().get()
            && held.is_none_or(|parent| !process::has_ended(parent));
        if is_ours || is_theirs {
            if process::kill(handle.as_fd()) {
                struck += 1;
            }
            struck += strike_below(proc, own, child, Some(handle.as_fd()), depth_left - 1);
        }
    });
    struck
}
