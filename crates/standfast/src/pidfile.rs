//! One agent per state directory, and how the command line finds it.
//!
//! **Invariant:** who holds the lock of the pid file is the agent; a pid in a file that nobody locks is nobody's, and
//! no signal is ever sent by a number alone.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: &str = "standfast.pid";
/// How long a process that has the lock may take to write its number.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Held for as long as the agent lives.
#[derive(Debug)]
pub(crate) struct PidFile {
    _locked: File,
}

/// Why this process can't be the agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    #[error("an agent with the state directory {dir} runs already, pid {pid}")]
    Taken { dir: String, pid: i32 },
    #[error("can't write the pid file in {dir}")]
    Io { dir: String, source: io::Error },
}

impl PidFile {
    /// Makes this process the one agent of the state directory.
    pub(crate) fn acquire(state_dir: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io {
            dir: state_dir.display().to_string(),
            source,
        };
        let dir = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir);
        dir.map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state_dir.join(NAME))
            .map_err(failed)?;
        if !lock(&file).map_err(failed)? {
            return Err(PidFileError::Taken {
                dir: state_dir.display().to_string(),
                pid: read_pid(&mut file),
            });
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _locked: file })
    }
}

/// The agent of a state directory, while it runs.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) pid: i32,
    process: OwnedFd,
    file: File,
}

/// The running agent, if there is one.
pub(crate) fn agent(state_dir: &Path) -> io::Result<Option<Agent>> {
    let deadline = Instant::now() + WRITE_LIMIT;
    loop {
        let file = match File::open(state_dir.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if is_free(&file)? {
            return Ok(None);
        }
        let found = holder(file)?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        // Locked by somebody who has not written its number yet, or has just died.
        std::thread::sleep(PAUSE);
    }
}

/// Who has locked the file, by the number in it.
fn holder(mut file: File) -> io::Result<Option<Agent>> {
    let number = read_pid(&mut file);
    let Some(pid) = Pid::from_raw(number).filter(|_| number > 0) else {
        return Ok(None);
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // Still locked now that the process is pinned: the number was its holder's all along.
    if is_free(&file)? {
        return Ok(None);
    }
    Ok(Some(Agent {
        pid: number,
        process,
        file,
    }))
}

impl Agent {
    /// One that is gone already needs none.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.process, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the agent is gone; false when it is still there after `limit`.
    pub(crate) fn wait_gone(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        while !is_free(&self.file)? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(true)
    }
}

/// `false`: an agent has it. Who only looks has it for a moment, too, but never keeps others from looking.
fn lock(file: &File) -> io::Result<bool> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if is_free(file)? => std::thread::yield_now(),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn is_free(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::Unlock)?;
            Ok(true)
        }
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// 0 when the file holds no number.
fn read_pid(file: &mut File) -> i32 {
    let mut text = String::new();
    let _ = file.rewind();
    let _ = file.take(32).read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn who_only_looks_keeps_nobody_from_starting() {
        // A child that another test starts has the file, too, until it has become its program: here nobody starts any.
        const ALONE: &str = "STANDFAST_TEST_IS_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let itself = "pidfile::tests::who_only_looks_keeps_nobody_from_starting";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let alone = alone
                .args(["--exact", itself, "--nocapture"])
                .env(ALONE, "");
            let said = alone.output().unwrap();
            assert!(
                said.status.success(),
                "{}",
                String::from_utf8_lossy(&said.stderr)
            );
            let said = String::from_utf8_lossy(&said.stdout);
            assert!(said.contains("1 passed"), "{said}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        drop(PidFile::acquire(dir.path()).unwrap());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    agent(dir.path()).unwrap();
                }
            });
            let started = (0..1_000).try_for_each(|_| PidFile::acquire(dir.path()).map(drop));
            is_over.store(true, Ordering::Relaxed);
            started.unwrap();
        });
    }

    #[test]
    fn an_agent_that_writes_its_number_just_now_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let held = PidFile::acquire(dir.path()).unwrap();
        let file = dir.path().join(NAME);
        std::fs::write(&file, "").unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| agent(dir.path()).unwrap());
            std::fs::write(&file, format!("{}\n", std::process::id())).unwrap();
            assert!(found.join().unwrap().is_some());
        });
        drop(held);
    }

    #[test]
    fn two_agents_can_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(agent(dir.path()).unwrap().is_none());
        let held = PidFile::acquire(dir.path()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let taken = PidFile::acquire(dir.path()).unwrap_err();
        assert!(
            matches!(taken, PidFileError::Taken { pid, .. } if pid == me),
            "{taken}"
        );
        assert_eq!(agent(dir.path()).unwrap().unwrap().pid, me);
        drop(held);
        // The number is left, the lock is not. A child that another test starts just now has the file, too, until it
        // has become its program.
        let deadline = Instant::now() + Duration::from_secs(60);
        while agent(dir.path()).unwrap().is_some() {
            assert!(Instant::now() < deadline, "the lock is left");
            std::thread::sleep(Duration::from_millis(1));
        }
        PidFile::acquire(dir.path()).unwrap();
    }
}
