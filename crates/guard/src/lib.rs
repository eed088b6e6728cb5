//! The process above Postgres: it outlives the agent and knows when the lease ends.
//!
//! One guard per instance, single-threaded, the parent of the postmaster and the subreaper of everything
//! that the postmaster starts. The agent tells it the lease's deadline through a shared mapping; when the
//! deadline passes, whatever state the agent is in, the guard kills *every process* of the instance.
//! A dead postmaster is not a dead Postgres: busy backends commit for seconds after it. So the guard says
//! [`Phase::Empty`] only when it has seen that nothing is left, and only then may leadership be released.
//!
//! **Invariant:** while the guard lives, no process of the instance outlives the armed deadline by more than
//! the time the kernel takes to kill it, and `Empty` is never said while one of them lives.
//!
//! What it can't do: a guard that is itself killed (SIGKILL) takes the postmaster along (PR_SET_PDEATHSIG),
//! but busy backends may live on; the agent sees [`Phase::Lost`] and calls [`kill_leftovers`]. A machine that
//! is frozen as a whole freezes the guard too; the synchronous quorum and the proxy's epoch gate answer that.
//!
//! It knows nothing of leadership, stores or SQL. Time is CLOCK_BOOTTIME, in nanoseconds.

mod error;
mod handle;
mod launch;

mod leftovers;
mod shared;
mod state_file;

mod cgroup;
mod dog;
mod family;
mod journal;
mod stage;
mod start;
mod watch;
mod zombie;

mod process;
mod sys;
mod text;

pub use dog::{Watchdog, WatchdogState};
pub use error::GuardError;
pub use handle::{Armed, Exit, Guard, Status};
pub use launch::Launch;
pub use leftovers::{kill_leftovers, leftovers};
pub use rustix::process::Pid;
pub use shared::Phase;
pub use stage::Cause;
pub use start::main;

/// Now on CLOCK_BOOTTIME, in nanoseconds since boot: the clock of every deadline here.
pub fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
