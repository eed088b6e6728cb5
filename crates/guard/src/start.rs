//! The guard's first moments: from a bare process to one that watches.
//!
//! **Invariant:** everything that can fail, allocate or wait for a disk happens here, before the watch begins;
//! and the state file is written before the postmaster exists.
//! It does not know about deadlines.

use crate::cgroup::Cgroup;
use crate::dog::Dog;
use crate::launch::{ANSWER_GUARDED, ANSWER_RUNNING, DEVICE, PLAIN};
use crate::process::{self, Proc};
use crate::shared::{HAS_CGROUP, HAS_LOCKED_MEMORY, MAGIC, Phase, Shared};
use crate::state_file::{self, Record};
use crate::watch::Watch;
use crate::{journal, sys, zombie};
use rustix::fs::FlockOperation;
use rustix::mm::MlockAllFlags;
use rustix::process::Pid;
use rustix::time::{TimerfdClockId, TimerfdFlags};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering::SeqCst;

/// The whole life of a guard. `args` are those after the hidden subcommand; [`crate::Launch`] writes them.
/// Call it first thing in `main`: before threads, open files or a runtime exist.
pub fn main(args: Vec<OsString>) -> ExitCode {
    sys::close_inherited();
    match Setup::begin(args).and_then(Setup::start) {
        Ok(watch) => {
            watch.run();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let words = match failure {
                Failure::Guarded => ANSWER_GUARDED.to_vec(),
                Failure::Because(why) => why.into_bytes(),
            };
            // Standard output is still the answer pipe: it is replaced only once nothing can fail.
            let _agent_gone = rustix::io::write(rustix::stdio::stdout(), &words);
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
enum Failure {
    Guarded,
    Because(String),
}

/// Gives an error the words for what was being done.
fn during<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Because(format!("{what}: {error}"))
}

#[derive(Debug)]
struct Arguments {
    state_dir: PathBuf,
    data_dir: PathBuf,
    cgroup: Option<PathBuf>,
    watchdog: Option<PathBuf>,
    watchdog_pipe: Option<PathBuf>,
    program: OsString,
    args: Vec<OsString>,
}

impl Arguments {
    fn parse(args: Vec<OsString>) -> Result<Self, Failure> {
        let usage = || {
            Failure::Because(
                "expected --state-dir DIR --data-dir DIR [--cgroup DIR] [--watchdog DEVICE] -- PROGRAM [ARGUMENT]..., \
                 as the agent writes it"
                    .to_owned(),
            )
        };
        let (mut state_dir, mut data_dir, mut cgroup) = (None, None, None);
        let (mut watchdog, mut watchdog_pipe) = (None, None);
        let mut args = args.into_iter();
        loop {
            let flag = args.next().ok_or_else(usage)?;
            let place = match flag.to_str() {
                Some("--state-dir") => &mut state_dir,
                Some("--data-dir") => &mut data_dir,
                Some("--cgroup") => &mut cgroup,
                Some(DEVICE) => &mut watchdog,
                Some(PLAIN) => &mut watchdog_pipe,
                Some("--") => break,
                _ => return Err(usage()),
            };
            *place = Some(PathBuf::from(args.next().ok_or_else(usage)?));
        }
        Ok(Self {
            state_dir: state_dir.ok_or_else(usage)?,
            data_dir: data_dir.ok_or_else(usage)?,
            cgroup,
            watchdog,
            watchdog_pipe,
            program: args.next().ok_or_else(usage)?,
            args: args.collect(),
        })
    }
}

/// All that a watch needs, before there is a postmaster.
#[derive(Debug)]
struct Setup {
    arguments: Arguments,
    own: Pid,
    mapping: OwnedFd,
    shared: &'static Shared,
    signals: OwnedFd,
    timer: OwnedFd,
    proc: Proc,
    lock: File,
}

impl Setup {
    fn begin(args: Vec<OsString>) -> Result<Self, Failure> {
        let arguments = Arguments::parse(args)?;
        let own = rustix::process::getpid();
        let mapping = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
            .map_err(during("keeping the mapping"))?;
        let shared = sys::map(mapping.as_fd()).map_err(during("mapping standard input"))?;
        if shared.magic.load(SeqCst) != MAGIC {
            return Err(Failure::Because(
                "standard input is not a guard's mapping".to_owned(),
            ));
        }
        // A leader of a process group already (started by hand) can't and needn't be one again.
        let _leader_already = rustix::process::setsid();
        rustix::process::chdir("/").map_err(during("leaving the directory"))?;
        rustix::process::set_child_subreaper(Some(own)).map_err(during("becoming subreaper"))?;
        let _cosmetic = rustix::thread::set_name(c"standfast-guard");
        let signals = sys::take_signals().map_err(during("taking signals"))?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(during("making a timer"))?;
        let proc = Proc::open().map_err(during("opening /proc"))?;
        let lock = take_lock(&arguments)?;
        Ok(Self {
            arguments,
            own,
            mapping,
            shared,
            signals,
            timer,
            proc,
            lock,
        })
    }

    /// Starts the postmaster; nothing fails after that.
    fn start(self) -> Result<Watch, Failure> {
        let Self {
            arguments,
            own,
            mapping,
            shared,
            signals,
            timer,
            proc,
            lock,
        } = self;
        let (cgroup, joining) = match &arguments.cgroup {
            None => (None, None),
            Some(parent) => match Cgroup::create(parent, own) {
                Ok((cgroup, joining)) => (Some(cgroup), Some(joining)),
                Err(error) => {
                    journal::say(format_args!("no control group below {parent:?}: {error}"));
                    (None, None)
                }
            },
        };
        let pipe = arguments.watchdog_pipe.as_deref().map(|at| (at, true));
        let device = arguments.watchdog.as_deref().map(|at| (at, false));
        let device = device.or(pipe);
        let dog = device.map(|(at, plain)| Dog::find(at, plain));
        let answering = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
            .map_err(during("keeping the answer pipe"))?;
        record(&arguments, own, &mapping, &proc)?;
        shared.guard_pid.store(own.as_raw_nonzero().get(), SeqCst);

        let nothing = File::open("/dev/null").map_err(during("opening /dev/null"))?;
        let log = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
            .map_err(during("keeping the log"))?;
        rustix::stdio::dup2_stdin(&nothing).map_err(during("leaving standard input"))?;

        let mut command = Command::new(&arguments.program);
        command
            .args(&arguments.args)
            .env_remove("NOTIFY_SOCKET")
            .current_dir(&arguments.data_dir)
            .stdout(log);
        if let Some(zombie) = zombie::in_lock_file(&proc, &arguments.data_dir) {
            journal::say(format_args!("postmaster {zombie} is dead but not reaped"));
            command.env(zombie::GRANDPARENT, zombie.to_string());
        }
        sys::bind_child(&mut command, own, joining);
        let child = command.spawn().map_err(|error| {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            Failure::Because(format!("starting {:?}: {error}", arguments.program))
        })?;
        let postmaster = Pid::from_child(&child);
        // Not yet reaped, so the number is still its own even if it has ended.
        let start = proc.stat(postmaster).map_or(0, |stat| stat.start);
        shared.postmaster_start.store(start, SeqCst);
        shared
            .postmaster_pid
            .store(postmaster.as_raw_nonzero().get(), SeqCst);
        shared.phase.store(Phase::Running.code(), SeqCst);

        let cgroup = cgroup.filter(|cgroup| {
            let joined = cgroup.is_populated();
            if !joined {
                cgroup.remove();
            }
            joined
        });
        let traits = if cgroup.is_some() { HAS_CGROUP } else { 0 } | harden();
        shared.traits.store(traits, SeqCst);
        journal::say(format_args!(
            "started postmaster {postmaster}; control group {}, memory {}",
            if cgroup.is_some() { "yes" } else { "no" },
            if traits & HAS_LOCKED_MEMORY != 0 {
                "locked"
            } else {
                "not locked"
            },
        ));
        let _agent_gone = rustix::io::write(&answering, ANSWER_RUNNING);
        let _kept = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
        let data_dir = arguments.data_dir.into_os_string().into_vec();
        Ok(Watch {
            shared,
            proc,
            signals,
            timer,
            own,
            postmaster,
            data_dir,
            cgroup,
            dog,
            lock,
            _mapping: mapping,
        })
    }
}

/// One guard for each state directory.
fn take_lock(arguments: &Arguments) -> Result<File, Failure> {
    let lock = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(state_file::lock_path(&arguments.state_dir))
        .map_err(during("opening the lock"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::Guarded),
        Err(errno) => Err(during("taking the lock")(errno)),
    }
}

fn record(arguments: &Arguments, own: Pid, mapping: &OwnedFd, proc: &Proc) -> Result<(), Failure> {
    let unreadable = || Failure::Because("reading /proc about ourselves".to_owned());
    let record = Record {
        pid: own,
        start: proc.stat(own).ok_or_else(unreadable)?.start,
        mapping_fd: mapping.as_raw_fd(),
        boot: process::boot_id().ok_or_else(unreadable)?,
    };
    record
        .write(&arguments.state_dir)
        .map_err(during("writing the state file"))
}

/// Stays in memory, first in line for the processor and last for the OOM killer, where that is permitted
/// (LimitMEMLOCK and LimitNICE of a systemd unit). At equal priority ninety busy backends on two cores can
/// keep us off the processor for 80 ms in the middle of a strike. All of it after the postmaster was started,
/// which must not inherit it.
fn harden() -> u32 {
    let _not_permitted = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _not_permitted = rustix::process::setpriority_process(None, -20);
    match rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        Ok(()) => HAS_LOCKED_MEMORY,
        Err(_) => 0,
    }
}
