//! The machine's watchdog device, which resets a machine that freezes.
//!
//! The guard feeds it, not the agent: where the agent hangs the guard ends Postgres, and no machine has to be reset for
//! that. What is left for the device is a machine on which the guard does not run either, and one on which processes
//! of the instance can't be killed.
//!
//! **Invariant:** it is fed only while a deadline is armed, has not passed, and nothing is being killed. It is told to
//! rest only when there is no deadline, or when nothing of the instance is left.
//! **Invariant:** with a timeout that allows it ([`TIED_S`]) the device fires before the deadline of the last renewal,
//! and the guard ends the instance before that.
//! It allocates nothing, and opens nothing but its own descriptor's entry in /proc.

use crate::shared::{Order, Shared};
use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

const SECOND: u64 = 1_000_000_000;
/// From here on a device that counts whole seconds can be fed by the renewals alone.
const TIED_S: u64 = 3;
/// How long before the device fires the instance is ended, if nothing else has ended it.
const KILL_NS: u64 = SECOND;

/// A device to feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    pub device: PathBuf,
    /// Only written to, never asked: a pipe in place of a device.
    pub plain: bool,
}

/// What has become of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogState {
    /// There is none, or no deadline is armed.
    Resting,
    /// It resets the machine unless it is fed within this many seconds.
    Armed { seconds: u32, can_rest: bool },
    /// It could not be armed, by the kernel's error number.
    Failed { errno: i32 },
}

impl WatchdogState {
    const RESTING: u32 = 0;
    const ARMED: u32 = 1;
    const FAILED: u32 = 2;
    /// Armed, and it goes on when it is closed.
    const STUBBORN: u32 = 3;

    /// Code and number, as the page has them.
    fn code(self) -> u64 {
        let (code, number) = match self {
            Self::Resting => (Self::RESTING, 0),
            Self::Armed {
                seconds,
                can_rest: true,
            } => (Self::ARMED, seconds),
            Self::Armed { seconds, .. } => (Self::STUBBORN, seconds),
            Self::Failed { errno } => (Self::FAILED, errno.unsigned_abs()),
        };
        u64::from(code) << 32 | u64::from(number)
    }

    pub(crate) fn of(packed: u64) -> Self {
        let number = u32::try_from(packed & u64::from(u32::MAX)).unwrap_or(0);
        match u32::try_from(packed >> 32).unwrap_or(Self::RESTING) {
            Self::ARMED => Self::Armed {
                seconds: number,
                can_rest: true,
            },
            Self::STUBBORN => Self::Armed {
                seconds: number,
                can_rest: false,
            },
            Self::FAILED => Self::Failed {
                errno: i32::try_from(number).unwrap_or(i32::MAX),
            },
            _ => Self::Resting,
        }
    }
}

/// The device, found before the watch begins.
#[derive(Debug)]
pub(crate) struct Dog {
    /// Its place, without opening it: to open it is to start it.
    _place: Option<OwnedFd>,
    path: CString,
    plain: bool,
    missing: Option<Errno>,
    state: State,
}

#[derive(Debug)]
enum State {
    Resting,
    Awake {
        device: OwnedFd,
        timeout_ns: u64,
        fed_ns: u64,
    },
    /// Until the deadline is disarmed.
    Failed,
}

impl Dog {
    pub(crate) fn find(device: &Path, plain: bool) -> Self {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let (place, missing) = match rustix::fs::open(device, flags, Mode::empty()) {
            Ok(place) => (Some(place), None),
            Err(errno) => (None, Some(errno)),
        };
        let number = place.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        Self {
            _place: place,
            path: CString::new(format!("/proc/self/fd/{number}")).unwrap_or_default(),
            plain,
            missing,
            state: State::Resting,
        }
    }

    /// While the instance runs.
    pub(crate) fn mind(&mut self, shared: &Shared, order: Order, now_ns: u64) {
        let wanted = shared.dog_seconds.load(SeqCst);
        if order.deadline_ns == 0 || wanted == 0 {
            return self.rest(shared);
        }
        if matches!(self.state, State::Resting) {
            self.wake(shared, wanted);
        }
        if let State::Awake {
            device,
            timeout_ns,
            fed_ns,
        } = &mut self.state
        {
            let tied = *timeout_ns >= TIED_S * SECOND;
            let fires_ns = now_ns.saturating_add(if tied { *timeout_ns } else { 0 });
            if fires_ns < order.deadline_ns && rustix::io::write(&*device, b"1").is_ok() {
                *fed_ns = now_ns;
            }
        }
    }

    /// Whether the instance must be ended before the device fires.
    pub(crate) fn must_end(&self, now_ns: u64) -> bool {
        self.end_ns().is_some_and(|end_ns| now_ns >= end_ns)
    }

    fn end_ns(&self) -> Option<u64> {
        match &self.state {
            State::Awake {
                timeout_ns, fed_ns, ..
            } if *timeout_ns >= TIED_S * SECOND => Some(fed_ns + timeout_ns - KILL_NS),
            State::Awake { .. } | State::Resting | State::Failed => None,
        }
    }

    /// How long the guard may wait for events.
    pub(crate) fn limit_ns(&self, now_ns: u64) -> Option<u64> {
        let State::Awake { timeout_ns, .. } = &self.state else {
            return None;
        };
        let often = (timeout_ns / 4).min(SECOND);
        let end = self.end_ns();
        Some(end.map_or(often, |end| end.saturating_sub(now_ns).min(often)))
    }

    /// It is told that its end is meant, and closed.
    pub(crate) fn rest(&mut self, shared: &Shared) {
        if let State::Awake { device, .. } = &self.state {
            let _gone = rustix::io::write(device, b"V");
        }
        if !matches!(self.state, State::Resting) {
            self.state = State::Resting;
            shared.dog.store(WatchdogState::Resting.code(), SeqCst);
        }
    }

    fn wake(&mut self, shared: &Shared, seconds: u32) {
        let (state, seen) = match self.open(seconds) {
            Ok((device, seconds, can_rest)) => (
                State::Awake {
                    device,
                    timeout_ns: u64::from(seconds) * SECOND,
                    fed_ns: crate::boottime_ns(),
                },
                WatchdogState::Armed { seconds, can_rest },
            ),
            Err(errno) => {
                let errno = errno.raw_os_error();
                (State::Failed, WatchdogState::Failed { errno })
            }
        };
        self.state = state;
        shared.dog.store(seen.code(), SeqCst);
    }

    /// A device that counts longer than asked for is no help, and is told to rest at once.
    fn open(&self, seconds: u32) -> Result<(OwnedFd, u32, bool), Errno> {
        if let Some(errno) = self.missing {
            return Err(errno);
        }
        // A pipe that nobody reads is an error at once instead of a wait.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open(self.path.as_c_str(), flags, Mode::empty())?;
        if self.plain {
            return Ok((device, seconds, true));
        }
        let counts = sys::watchdog_timeout(device.as_fd(), seconds);
        let counts = counts.and_then(|counts| match counts {
            (counted, can_rest) if counted <= seconds => Ok((counted.max(1), can_rest)),
            _ => Err(Errno::RANGE),
        });
        match counts {
            Ok((counted, can_rest)) => Ok((device, counted, can_rest)),
            Err(errno) => {
                let _gone = rustix::io::write(&device, b"V");
                Err(errno)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_is_written_is_read_back() {
        for state in [
            WatchdogState::Resting,
            WatchdogState::Armed {
                seconds: 25,
                can_rest: true,
            },
            WatchdogState::Armed {
                seconds: 1,
                can_rest: false,
            },
            WatchdogState::Failed { errno: 25 },
        ] {
            assert_eq!(WatchdogState::of(state.code()), state);
        }
        assert_eq!(WatchdogState::of(0), WatchdogState::Resting);
    }
}
