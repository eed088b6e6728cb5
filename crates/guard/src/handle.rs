//! The agent's handle on a guard: orders in, facts out.
//!
//! **Invariant:** no method waits. Arming moves a deadline only forward within an epoch, and an order of an older
//! epoch changes nothing. Orders of one process are given one at a time; that two agents don't serve one
//! state directory at once is for the agent to see to.
//! It does not know when to arm or why.

use crate::dog::WatchdogState;
use crate::process::{self, Proc};
use crate::shared::{HAS_CGROUP, HAS_LOCKED_MEMORY, MAGIC, Order, Phase, Shared, VERSION};
use crate::stage::Cause;
use crate::state_file::{self, Record};
use crate::{GuardError, sys};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError};

/// A running (or just ended) guard.
#[derive(Debug)]
pub struct Guard {
    shared: &'static Shared,
    pid: Pid,
    pidfd: OwnedFd,
    postmaster: Option<OwnedFd>,
    writer: Mutex<()>,
}

/// What the guard and its instance are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    pub guard: Pid,
    pub postmaster: Option<Pid>,
    /// The order in force; `None` when disarmed.
    pub armed: Option<Armed>,
    /// The time that the guard's own timer is set to, as the guard says. Never later than the deadline once
    /// it has seen the order; an agent that wants proof before it promotes waits for `Some` here.
    pub timer_ns: Option<u64>,
    /// Why the guard ended the instance; `None` while it runs.
    pub cause: Option<Cause>,
    /// How the postmaster ended.
    pub exit: Option<Exit>,
    /// Processes that were not gone yet at the last strike, while killing.
    pub left: u32,
    /// When the guard began to end the instance, and when it had proof that nothing was left (CLOCK_BOOTTIME).
    pub ended_ns: Option<u64>,
    pub empty_ns: Option<u64>,
    /// Whether the instance has a control group of its own.
    pub has_cgroup: bool,
    /// Whether the guard's memory is locked, so that a hung disk can't stall it.
    pub has_locked_memory: bool,
    pub watchdog: WatchdogState,
}

/// A deadline and the leadership it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    pub epoch: u64,
    pub deadline_ns: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Guard {
    /// The guard that an earlier agent started for `state_dir` and that still runs; `None` when there is none.
    ///
    /// # Errors
    /// When there may be one but it can't be read (permissions, another version of the mapping). It is alive
    /// and goes on guarding; don't take that for `None`.
    pub fn attach(state_dir: &Path) -> Result<Option<Self>, GuardError> {
        let record = Record::read(state_dir).map_err(|source| GuardError::StateFile {
            path: state_file::path(state_dir),
            source,
        })?;
        let Some(record) = record else {
            return Ok(None);
        };
        let proc = Proc::open().map_err(|errno| GuardError::Proc(errno.into()))?;
        let Some(pidfd) = living(&proc, &record) else {
            return Ok(None);
        };
        let pid = record.pid;
        let path = format!("/proc/{pid}/fd/{}", record.mapping_fd);
        let mapping = match rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(mapping) => mapping,
            Err(_) if process::has_ended(pidfd.as_fd()) => return Ok(None),
            Err(errno) => {
                return Err(GuardError::Unreachable {
                    pid: pid.as_raw_nonzero().get(),
                    source: errno.into(),
                });
            }
        };
        let shared = sys::map(mapping.as_fd()).map_err(|errno| GuardError::Unreachable {
            pid: pid.as_raw_nonzero().get(),
            source: errno.into(),
        })?;
        let found = shared.version.load(SeqCst);
        if shared.magic.load(SeqCst) != MAGIC || found > VERSION {
            return Err(GuardError::Version {
                pid: pid.as_raw_nonzero().get(),
                found,
                ours: VERSION,
            });
        }
        Ok(Some(Self::new(shared, pid, pidfd)))
    }

    pub(crate) fn new(shared: &'static Shared, pid: Pid, pidfd: OwnedFd) -> Self {
        let postmaster = postmaster_handle(shared);
        Self {
            shared,
            pid,
            pidfd,
            postmaster,
            writer: Mutex::new(()),
        }
    }

    /// Leader: every process of the instance is killed when CLOCK_BOOTTIME passes `deadline_boottime_ns`.
    /// Within an epoch a deadline only moves forward; a lower epoch is ignored. One that has passed kills now.
    pub fn arm(&self, epoch: u64, deadline_boottime_ns: u64) {
        let wanted = Order {
            epoch,
            deadline_ns: deadline_boottime_ns.max(1),
        };
        let wake = {
            let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            if !supersedes(wanted, self.shared.order()) {
                return;
            }
            self.shared.put(wanted);
            // A timer that fires no later than the deadline needs no wake-up: the guard reads again then.
            let timer = self.shared.timer_ns.load(SeqCst);
            timer == 0 || timer > wanted.deadline_ns
        };
        if wake {
            self.signal(Signal::USR1);
        }
    }

    /// The lease got a shorter time to live: the deadline of this epoch comes nearer, if it is armed and later.
    pub fn shorten(&self, epoch: u64, deadline_boottime_ns: u64) {
        let wanted = Order {
            epoch,
            deadline_ns: deadline_boottime_ns.max(1),
        };
        {
            let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.shared.order();
            if now.epoch != epoch || now.deadline_ns <= wanted.deadline_ns {
                return;
            }
            self.shared.put(wanted);
        }
        // Its timer may be set to the later one.
        self.signal(Signal::USR1);
    }

    /// Standby: no deadline. The epoch stays, so that a late order of an older one is still ignored.
    pub fn disarm(&self) {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.shared.order();
        if now.deadline_ns != 0 {
            self.shared.put(Order {
                deadline_ns: 0,
                ..now
            });
        }
    }

    /// The watchdog device, if there is one, is to reset the machine when it was not fed for so many seconds; 0: it is
    /// left alone. Counts from the next time that a deadline is armed.
    pub fn count_to(&self, seconds: u32) {
        self.shared.dog_seconds.store(seconds, SeqCst);
    }

    /// Kill everything now. Wait for [`Guard::pidfd`] and then ask [`Guard::status`] whether it is proven.
    pub fn fence(&self) {
        self.shared.fence.store(1, SeqCst);
        self.signal(Signal::USR1);
        // Somebody may have stopped the guard; a stopped one kills nobody.
        self.signal(Signal::CONT);
    }

    /// The state of things, from the shared mapping.
    pub fn status(&self) -> Status {
        // Asked before the phase is read: a guard that had ended has written its last phase.
        let ended = process::has_ended(self.pidfd.as_fd());
        let shared = self.shared;
        let phase = match Phase::of(shared.phase.load(SeqCst)) {
            Phase::Empty => Phase::Empty,
            _ if ended => Phase::Lost,
            phase => phase,
        };
        if ended {
            self.reap();
        }
        let order = shared.order();
        let traits = shared.traits.load(SeqCst);
        Status {
            phase,
            guard: self.pid,
            postmaster: Pid::from_raw(shared.postmaster_pid.load(SeqCst)),
            armed: (order.deadline_ns != 0).then_some(Armed {
                epoch: order.epoch,
                deadline_ns: order.deadline_ns,
            }),
            timer_ns: set(shared.timer_ns.load(SeqCst)),
            cause: Cause::of(shared.cause.load(SeqCst)),
            exit: exit_of(shared.exit.load(SeqCst)),
            left: shared.left.load(SeqCst),
            ended_ns: set(shared.ended_ns.load(SeqCst)),
            empty_ns: set(shared.empty_ns.load(SeqCst)),
            has_cgroup: traits & HAS_CGROUP != 0,
            has_locked_memory: traits & HAS_LOCKED_MEMORY != 0,
            watchdog: WatchdogState::of(shared.dog.load(SeqCst)),
        }
    }

    /// Readable when the guard has ended; `status().phase` is then `Empty` (proven) or `Lost` (not).
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Readable when the postmaster has ended, which does not mean that its backends have.
    /// `None` when it had ended already when this handle was made.
    pub fn postmaster_pidfd(&self) -> Option<&OwnedFd> {
        self.postmaster.as_ref()
    }

    fn signal(&self, signal: Signal) {
        // A guard that is gone has nothing to hear; `status` says so.
        let _gone = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// The guard is our child unless we attached to it: leave no zombie.
    fn reap(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _not_our_child = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.reap();
    }
}

fn supersedes(wanted: Order, now: Order) -> bool {
    wanted.epoch > now.epoch || (wanted.epoch == now.epoch && wanted.deadline_ns > now.deadline_ns)
}

/// The recorded guard, if it is the process that now has its number. The handle comes first: had that number
/// been given away since, the start time read after it would differ.
fn living(proc: &Proc, record: &Record) -> Option<OwnedFd> {
    if process::boot_id()? != record.boot {
        return None;
    }
    let pidfd = process::handle(record.pid).ok()?;
    let stat = proc.stat(record.pid)?;
    (stat.start == record.start && !stat.zombie).then_some(pidfd)
}

fn postmaster_handle(shared: &Shared) -> Option<OwnedFd> {
    let pid = Pid::from_raw(shared.postmaster_pid.load(SeqCst))?;
    let handle = process::handle(pid).ok()?;
    let stat = Proc::open().ok()?.stat(pid)?;
    (stat.start == shared.postmaster_start.load(SeqCst)).then_some(handle)
}

fn set(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

/// The guard writes a wait status with a bit above it that says that there is one.
pub(crate) const HAS_EXIT: u64 = 1 << 32;

fn exit_of(packed: u64) -> Option<Exit> {
    if packed & HAS_EXIT == 0 {
        return None;
    }
    let low = |shift: u32, mask: u64| i32::try_from((packed >> shift) & mask).unwrap_or(0);
    Some(match low(0, 0x7f) {
        0 => Exit::Code(low(8, 0xff)),
        signal => Exit::Signal(signal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_forward_within_an_epoch_and_epochs_never_go_back() {
        let order = |epoch, deadline_ns| Order { epoch, deadline_ns };
        let now = order(5, 100);
        assert!(supersedes(order(5, 101), now));
        assert!(!supersedes(order(5, 100), now));
        assert!(!supersedes(order(5, 99), now));
        assert!(!supersedes(order(4, 1_000), now));
        assert!(
            supersedes(order(6, 50), now),
            "a new leadership has its own deadline"
        );
        assert!(
            supersedes(order(5, 1), order(5, 0)),
            "armed again after disarming"
        );
        assert!(!supersedes(order(4, 1), order(5, 0)));
    }

    #[test]
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(exit_of(0), None);
        assert_eq!(exit_of(HAS_EXIT), Some(Exit::Code(0)));
        assert_eq!(exit_of(HAS_EXIT | 1 << 8), Some(Exit::Code(1)));
        assert_eq!(exit_of(HAS_EXIT | 9), Some(Exit::Signal(9)));
        assert_eq!(
            exit_of(HAS_EXIT | 0x80 | 6),
            Some(Exit::Signal(6)),
            "with a core dump"
        );
    }
}
