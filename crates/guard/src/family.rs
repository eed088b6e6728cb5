//! The guard's descendants: all reaped, or all killed.
//!
//! **Invariant:** the guard is a child subreaper, so "no child" means "no descendant": an orphan becomes our
//! child, and one that isn't an orphan has a living ancestor who is. A number is signalled directly only when
//! it can't have been recycled: our own children, which only we reap, and theirs right after they were killed
//! (see [`strike`]). All others through handles.
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

/// Kills every descendant of `own` that is seen. Call it again until [`reap`] says that no child is left.
pub(crate) fn strike(proc: &Proc, own: Pid) {
    proc.each_child(own, kill);
    // The backends, in one go: ninety busy ones leave us one time slice, and one call each fits into it.
    // Their parent has its SIGKILL, so it can at most end the system call that it is in and reap one child
    // with it; the kernel gives that number away only after it has been round all the others.
    proc.each_child(own, |child| proc.each_child(child, kill));
    // With care, whatever is deeper.
    proc.each_child(own, |child| strike_below(proc, own, child, None, DEPTH_MAX));
}

/// Children and their children that are not reaped yet: what is left of a family that was struck, since all
/// who were deeper have moved up by then.
pub(crate) fn count(proc: &Proc, own: Pid) -> u32 {
    let mut left = 0;
    proc.each_child(own, |child| {
        left += 1;
        proc.each_child(child, |_| left += 1);
    });
    left
}

fn kill(pid: Pid) {
    let _gone_already = rustix::process::kill_process(pid, Signal::KILL);
}

/// Kills what is below `parent`. `held` is the handle that proves that `parent` is still who it was;
/// our own children need none.
fn strike_below(proc: &Proc, own: Pid, parent: Pid, held: Option<BorrowedFd<'_>>, depth_left: u32) {
    if depth_left == 0 {
        return;
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
            process::kill(handle.as_fd());
            strike_below(proc, own, child, Some(handle.as_fd()), depth_left - 1);
        }
    });
}
