//! Finding the processes of a host in `/proc`, and signalling them without ever hitting another.
//!
//! **Invariant:** a signal goes through a pidfd of a process that was seen to belong to the
//! selection after the pidfd was opened; a recycled pid is never signalled.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Which processes are meant.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those inside a network namespace, named by its inode.
    NetworkNamespace(u64),
    /// Those that work in a directory or name it on their command line.
    Directory(PathBuf),
}

/// One process of the selection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: i32,
    pub command: String,
    pub state: char,
}

impl Selection {
    /// Every live process of the selection; zombies are dead.
    pub fn processes(&self) -> Vec<Process> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| self.contains(*pid))
            .filter_map(look)
            .collect()
    }

    fn contains(&self, pid: i32) -> bool {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        if pid == own {
            return false;
        }
        match self {
            Self::NetworkNamespace(inode) => {
                fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == *inode)
            }
            Self::Directory(directory) => works_in(pid, directory) || names(pid, directory),
        }
    }

    /// Sends `signal` to every process of the selection, again until no new one appears:
    /// a process may fork between the look and the signal.
    pub fn signal_all(&self, signal: Signal) -> Result<usize> {
        let mut reached = BTreeSet::new();
        for _ in 0..50 {
            let fresh: Vec<i32> = self
                .processes()
                .into_iter()
                .map(|process| process.pid)
                .filter(|pid| !reached.contains(pid))
                .collect();
            if fresh.is_empty() {
                return Ok(reached.len());
            }
            for pid in fresh {
                self.signal(pid, signal)?;
                reached.insert(pid);
            }
        }
        bail!("processes kept appearing while {signal:?} was sent to {self:?}")
    }

    fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        signal_if(pid, signal, || self.contains(pid))
    }

    /// SIGKILL until nothing of the selection is left. A process in uninterruptible sleep
    /// (a frozen file system) is waited for until `deadline`.
    pub fn kill_all(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        let mut killed = BTreeSet::new();
        loop {
            let left = self.processes();
            if left.is_empty() {
                wait_until_reaped(&killed);
                return Ok(());
            }
            killed.extend(left.iter().map(|process| process.pid));
            if Instant::now() > end {
                bail!("not dead after {deadline:?}: {left:?}");
            }
            for process in left {
                self.signal(process.pid, Signal::KILL)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// After a power cut there are no zombies. Those of our own children stay until they are waited
/// for, and whoever reaps the others may take its time: so this waits a little, not for ever.
fn wait_until_reaped(killed: &BTreeSet<i32>) {
    let own = std::process::id().to_string();
    let foreign = |pid: &&i32| parent(**pid).is_some_and(|parent| parent != own);
    let end = Instant::now() + Duration::from_secs(2);
    while killed.iter().filter(foreign).count() > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn parent(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?
        .1
        .split(' ')
        .nth(1)
        .map(str::to_owned)
}

/// Sends a signal to `pid` if it still is the one that `still_meant` knows.
pub(crate) fn signal_if(
    pid: i32,
    signal: Signal,
    still_meant: impl FnOnce() -> bool,
) -> Result<()> {
    let known = Pid::from_raw(pid).with_context(|| format!("{pid} is no pid"))?;
    let fd = match pidfd_open(known, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error).context(format!("open a pidfd of {pid}")),
    };
    if !still_meant() {
        return Ok(());
    }
    match pidfd_send_signal(&fd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context(format!("send {signal:?} to process {pid}")),
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    look(pid).is_some()
}

fn look(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&raw)
        .replace('\0', " ")
        .trim()
        .to_owned();
    (!matches!(state, 'Z' | 'X')).then_some(Process {
        pid,
        command,
        state,
    })
}

fn works_in(pid: i32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

fn names(pid: i32, directory: &Path) -> bool {
    let Ok(raw) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let wanted = directory.as_os_str().as_encoded_bytes();
    raw.split(|byte| *byte == 0).any(|argument| {
        argument
            .windows(wanted.len())
            .enumerate()
            .any(|(at, part)| {
                part == wanted && matches!(argument.get(at + wanted.len()), None | Some(b'/'))
            })
    })
}
