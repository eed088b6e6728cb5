//! The guard's loop: look, decide, act, wait for an event.
//!
//! **Invariant:** it allocates nothing, touches no path outside /proc and the control group's open files, and
//! writes no log before nothing is left; so neither a full memory nor a hung disk can hold it up.
//! What is to be done it asks [`crate::stage`]; it does not know why.

use crate::boottime_ns;
use crate::cgroup::Cgroup;
use crate::dog::Dog;
use crate::handle::HAS_EXIT;
use crate::process::Proc;
use crate::shared::{Phase, Shared};
use crate::stage::{self, Cause, Postmaster, Seen, Stage};
use crate::{family, journal, leftovers, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, WaitStatus};
use rustix::time::{Itimerspec, TimerfdTimerFlags};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;

const MS: u64 = 1_000_000;
/// Strikes follow one another at once, then less and less often: what has survived hangs on something.
const STRIKE_PAUSE_FIRST_NS: u64 = MS;
const STRIKE_PAUSE_MAX_NS: u64 = 64 * MS;
/// How often a draining instance is looked at, beside the events.
const DRAIN_LOOK_NS: u64 = 5 * MS;

#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) shared: &'static Shared,
    pub(crate) proc: Proc,
    pub(crate) signals: OwnedFd,
    pub(crate) timer: OwnedFd,
    pub(crate) own: Pid,
    pub(crate) postmaster: Pid,
    pub(crate) data_dir: Vec<u8>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) dog: Option<Dog>,
    pub(crate) lock: File,
    /// Open so that an agent that restarted can reach the mapping through /proc.
    pub(crate) _mapping: OwnedFd,
}

/// What the loop remembers from look to look.
#[derive(Debug)]
struct Memory {
    postmaster: Postmaster,
    told: bool,
    next_strike_ns: u64,
    strike_pause_ns: u64,
}

impl Watch {
    /// Watches until nothing of the instance is left.
    pub(crate) fn run(mut self) {
        let mut dog = self.dog.take();
        let mut memory = Memory {
            postmaster: Postmaster::Alive,
            told: false,
            next_strike_ns: 0,
            strike_pause_ns: STRIKE_PAUSE_FIRST_NS,
        };
        let mut stage = Stage::Running { told: false };
        let cause = loop {
            let mut seen = self.look(stage, &mut memory);
            if let (Some(dog), Stage::Running { .. }) = (&mut dog, stage) {
                dog.mind(self.shared, self.shared.order(), seen.now_ns);
                seen.deadline_passed |= dog.must_end(seen.now_ns);
            }
            let next = stage::next(stage, &seen);
            if next != stage {
                self.publish(next);
            }
            stage = next;
            match stage {
                Stage::Running { .. } => {
                    self.set_timer();
                    let limit = dog.as_ref().and_then(|dog| dog.limit_ns(boottime_ns()));
                    self.wait(limit, &mut memory);
                }
                Stage::Draining { .. } => {
                    self.set_timer();
                    self.wait(Some(DRAIN_LOOK_NS), &mut memory);
                }
                Stage::Killing { .. } => {
                    self.strike(&mut memory);
                    let pause = memory.next_strike_ns.saturating_sub(boottime_ns());
                    self.wait(Some(pause), &mut memory);
                }
                Stage::Empty { cause } => break cause,
            }
        };
        if let Some(dog) = &mut dog {
            dog.rest(self.shared);
        }
        self.end(cause);
    }

    fn look(&self, stage: Stage, memory: &mut Memory) -> Seen {
        let has_children = family::reap(|pid, status| {
            if pid == self.postmaster {
                memory.postmaster = self.note_exit(status);
            }
        });
        let ending = matches!(stage, Stage::Draining { .. } | Stage::Killing { .. });
        let now_ns = boottime_ns();
        Seen {
            now_ns,
            deadline_passed: self.shared.order().has_passed(now_ns),
            fence_asked: self.shared.fence.load(SeqCst) != 0,
            told: memory.told,
            postmaster: memory.postmaster,
            nothing_left: ending && !has_children && self.nothing_else_left(),
        }
    }

    fn note_exit(&self, status: WaitStatus) -> Postmaster {
        let raw = u64::from(status.as_raw().cast_unsigned());
        self.shared.exit.store(HAS_EXIT | raw, SeqCst);
        if status.exited() {
            Postmaster::Exited
        } else {
            Postmaster::Killed
        }
    }

    /// What isn't our descendant and yet belongs to the instance: somebody who joined the control group, or
    /// a Postgres in the data directory that an earlier guard lost. It is killed on sight.
    fn nothing_else_left(&self) -> bool {
        if self.cgroup.as_ref().is_some_and(Cgroup::is_populated) {
            return false;
        }
        leftovers::strike(&self.proc, &self.data_dir) == Ok(0)
    }

    fn strike(&self, memory: &mut Memory) {
        let now_ns = boottime_ns();
        if now_ns < memory.next_strike_ns {
            return;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        family::strike(&self.proc, self.own);
        let left = family::count(&self.proc, self.own);
        self.shared.left.store(left, SeqCst);
        memory.next_strike_ns = boottime_ns() + memory.strike_pause_ns;
        memory.strike_pause_ns = (memory.strike_pause_ns * 2).min(STRIKE_PAUSE_MAX_NS);
    }

    /// Sets the timer to the deadline in force. The agent wakes us only when this timer would fire too late,
    /// so it must be published before the order is read for the last time.
    fn set_timer(&self) {
        loop {
            let order = self.shared.order();
            if self.shared.timer_ns.load(SeqCst) != order.deadline_ns {
                let at = Itimerspec {
                    it_interval: timespec(0),
                    it_value: timespec(order.deadline_ns),
                };
                // Fails only for values that no deadline can have.
                let _set =
                    rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &at);
                self.shared.timer_ns.store(order.deadline_ns, SeqCst);
            }
            if self.shared.order() == order {
                return;
            }
        }
    }

    /// Waits for a signal, the timer or `limit_ns`.
    fn wait(&self, limit_ns: Option<u64>, memory: &mut Memory) {
        let limit = limit_ns.map(timespec);
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
        ];
        let _looked_at_anyway = poll(&mut fds, limit.as_ref());
        let mut expirations = [0; 8];
        let _not_expired = rustix::io::read(&self.timer, &mut expirations);
        self.read_signals(memory);
    }

    /// SIGCHLD and SIGUSR1 need nothing but the look that follows. SIGTERM comes when the machine shuts down:
    /// Postgres gets its fast shutdown, and the deadline stays in force. All others are ignored.
    fn read_signals(&self, memory: &mut Memory) {
        // The size of the kernel's signalfd_siginfo, which begins with the number.
        let mut info = [0; 128];
        while rustix::io::read(&self.signals, &mut info) == Ok(info.len()) {
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            let is_term = number == Signal::TERM.as_raw().cast_unsigned();
            if is_term && memory.postmaster == Postmaster::Alive {
                memory.told = true;
                // Not reaped yet, so the number is its own.
                let _dying = rustix::process::kill_process(self.postmaster, Signal::INT);
            }
        }
    }

    fn publish(&self, stage: Stage) {
        let (phase, cause) = match stage {
            Stage::Running { told: false } => (Phase::Running, None),
            Stage::Running { told: true } => (Phase::Stopping, Some(Cause::GuardTold)),
            Stage::Draining { cause, .. } => (Phase::Stopping, Some(cause)),
            Stage::Killing { cause } => (Phase::Killing, Some(cause)),
            // Said in `end`, when the lock is free for the next guard.
            Stage::Empty { .. } => return,
        };
        let shared = self.shared;
        shared.cause.store(cause.map_or(0, Cause::code), SeqCst);
        if cause.is_some() && shared.ended_ns.load(SeqCst) == 0 {
            shared.ended_ns.store(boottime_ns(), SeqCst);
        }
        shared.phase.store(phase.code(), SeqCst);
    }

    fn end(&self, cause: Cause) {
        let shared = self.shared;
        shared.left.store(0, SeqCst);
        shared.empty_ns.store(boottime_ns(), SeqCst);
        shared.cause.store(cause.code(), SeqCst);
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        // Before `Empty` is said: whoever sees it may start the next guard at once. And before the fork,
        // which would share the lock.
        let _freed_by_exit = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
        shared.phase.store(Phase::Empty.code(), SeqCst);
        sys::in_child(|| {
            let ended_ns = shared.ended_ns.load(SeqCst);
            let micros = shared.empty_ns.load(SeqCst).saturating_sub(ended_ns) / 1_000;
            let order = shared.order();
            journal::say(format_args!(
                "{}; nothing of postmaster {} is left after {}.{:03} ms (epoch {}, {})",
                cause.words(),
                self.postmaster,
                micros / 1_000,
                micros % 1_000,
                order.epoch,
                if order.deadline_ns == 0 {
                    "not armed"
                } else {
                    "armed"
                },
            ));
        });
    }
}

fn timespec(ns: u64) -> Timespec {
    const SECOND: u64 = 1_000_000_000;
    Timespec {
        tv_sec: i64::try_from(ns / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ns % SECOND).unwrap_or(0),
    }
}
