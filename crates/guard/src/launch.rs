//! Starting an instance under a guard of its own.
//!
//! **Invariant:** it starts nothing beside an instance that is alive already, and when it fails, nothing that
//! it started is left. The guard gets the mapping as stdin, the answer pipe as stdout and the log as stderr,
//! so nothing has to be inherited by number.
//! It does not know whether Postgres becomes ready.

use crate::dog::Watchdog;
use crate::handle::Guard;
use crate::leftovers::leftovers;
use crate::shared::{FILE_SIZE, MAGIC, VERSION};
use crate::{GuardError, process, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// What to start, and where. Paths should be absolute: the guard works in `/`.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program that calls [`crate::main`], and what it wants to see before our own arguments.
    pub guard_exe: PathBuf,
    pub guard_args: Vec<OsString>,
    /// An existing directory outside the data directory, one per instance.
    pub state_dir: PathBuf,
    /// The postmaster's program, arguments and complete environment. Both guard and postmaster run in it,
    /// except for NOTIFY_SOCKET, which the postmaster doesn't get.
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub data_dir: PathBuf,
    /// Takes the output of guard and postmaster, appended.
    pub log_file: PathBuf,
    /// A version 2 control group in which we may create others. Where that turns out not to work,
    /// descendants are walked instead, and the status says so.
    pub cgroup: Option<PathBuf>,
    /// The machine's watchdog device, fed while a deadline is armed; see [`Guard::count_to`].
    pub watchdog: Option<Watchdog>,
}

/// The guard's words when the postmaster exists, and when another guard holds the state directory.
pub(crate) const ANSWER_RUNNING: &[u8] = b"running";
pub(crate) const ANSWER_GUARDED: &[u8] = b"guarded";

/// What a watchdog device follows, and a pipe in its place.
pub(crate) const DEVICE: &str = "--watchdog";
pub(crate) const PLAIN: &str = "--watchdog-pipe";

/// A guard that says nothing for so long has a disk that hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

impl Launch {
    /// Starts the guard, which starts the postmaster; returns when that process exists.
    ///
    /// # Errors
    /// `InstanceAlive` and `AlreadyGuarded` when there is something to attach to or to kill first.
    pub fn spawn(&self) -> Result<Guard, GuardError> {
        let data_dir =
            std::fs::canonicalize(&self.data_dir).map_err(|source| GuardError::DataDir {
                path: self.data_dir.clone(),
                source,
            })?;
        let alive = leftovers(&data_dir).len();
        if alive > 0 {
            return Err(GuardError::InstanceAlive {
                data_dir,
                processes: alive,
            });
        }
        let mapping = new_mapping().map_err(GuardError::mapping)?;
        let shared = sys::map(mapping.as_fd()).map_err(GuardError::mapping)?;
        shared.version.store(VERSION, SeqCst);
        shared.magic.store(MAGIC, SeqCst);

        let (answer, answering) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(GuardError::mapping)?;
        let mut child = self.start(&data_dir, mapping, answering)?;
        let pid = Pid::from_child(&child);
        let pidfd = process::handle(pid).map_err(GuardError::mapping);
        match (pidfd, hear(&answer)) {
            (Ok(pidfd), Ok(heard)) if heard == ANSWER_RUNNING => Ok(Guard::new(shared, pid, pidfd)),
            (Ok(_), Ok(heard)) => {
                let _ended = child.wait();
                Err(if heard == ANSWER_GUARDED {
                    GuardError::AlreadyGuarded {
                        state_dir: self.state_dir.clone(),
                    }
                } else if heard.is_empty() {
                    GuardError::Refused("it died without a word".to_owned())
                } else {
                    GuardError::Refused(String::from_utf8_lossy(&heard).into_owned())
                })
            }
            (Err(error), _) | (_, Err(error)) => {
                // The postmaster, if there is one, dies with it.
                let _ended_already = child.kill();
                Err(error)
            }
        }
    }

    fn start(
        &self,
        data_dir: &Path,
        mapping: OwnedFd,
        answering: OwnedFd,
    ) -> Result<Child, GuardError> {
        let log = self.open_log()?;
        let mut command = Command::new(&self.guard_exe);
        command
            .args(&self.guard_args)
            .args([OsString::from("--state-dir"), self.state_dir.clone().into()])
            .args([OsString::from("--data-dir"), data_dir.into()]);
        if let Some(cgroup) = &self.cgroup {
            command.args([OsString::from("--cgroup"), cgroup.into()]);
        }
        if let Some(watchdog) = &self.watchdog {
            let flag = if watchdog.plain { PLAIN } else { DEVICE };
            command.args([OsString::from(flag), watchdog.device.clone().into()]);
        }
        command
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(mapping))
            .stdout(Stdio::from(answering))
            .stderr(Stdio::from(log));
        // `command` is dropped on return and with it our end of the answer pipe: a guard that dies is heard.
        command.spawn().map_err(|source| GuardError::Exec {
            exe: self.guard_exe.clone(),
            source,
        })
    }

    fn open_log(&self) -> Result<File, GuardError> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log_file)
            .map_err(|source| GuardError::LogFile {
                path: self.log_file.clone(),
                source,
            })
    }
}

fn new_mapping() -> Result<OwnedFd, Errno> {
    // In memory, never on a disk that could hang; sealed, so that it can't be cut short under a reader.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mapping = rustix::fs::memfd_create("standfast-guard", flags)?;
    rustix::fs::ftruncate(&mapping, FILE_SIZE)?;
    rustix::fs::fcntl_add_seals(
        &mapping,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(mapping)
}

/// Everything that the guard says until it closes its end.
fn hear(answer: &OwnedFd) -> Result<Vec<u8>, GuardError> {
    let began = Instant::now();
    let mut heard = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let limit = Timespec::try_from(ANSWER_LIMIT.saturating_sub(began.elapsed()))
            .map_err(|_| GuardError::Silent(ANSWER_LIMIT))?;
        let mut fds = [PollFd::new(answer, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => return Err(GuardError::Silent(ANSWER_LIMIT)),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(GuardError::mapping(errno)),
        }
        match rustix::io::read(answer, &mut buffer) {
            Ok(0) => return Ok(heard),
            Ok(length) => heard.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(GuardError::mapping(errno)),
        }
    }
}
