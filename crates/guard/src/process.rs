//! Processes as /proc shows them, read without allocating.
//!
//! **Invariant:** a process that ends while it is looked at is simply absent; nothing here fails because of it.
//! Only names in /proc are read, never a path inside the data directory: its disk may hang.
//! It does not know which processes matter; [`crate::family`] and [`crate::leftovers`] do.

use crate::text::Text;
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// /proc, held open.
#[derive(Debug)]
pub(crate) struct Proc {
    root: OwnedFd,
}

/// The part of `/proc/<pid>/stat` that we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) zombie: bool,
    pub(crate) parent: i32,
    /// Clock ticks since boot; with the pid it names a process for good.
    pub(crate) start: u64,
}

/// Longest path that `/proc` links can show.
const PATH_MAX: usize = 4096;

impl Proc {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open("/proc", flags, Mode::empty())?,
        })
    }

    pub(crate) fn stat(&self, pid: Pid) -> Option<Stat> {
        let mut buffer = [0; 1024];
        let line = self.read(&Text::<32>::of(format_args!("{pid}/stat")), &mut buffer)?;
        parse_stat(line)
    }

    /// Calls `visit` with every process of the machine that we may see.
    pub(crate) fn each(&self, mut visit: impl FnMut(Pid)) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(&self.root, ".", flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(listing, &mut buffer);
        while let Some(entry) = entries.next() {
            if let Some(pid) = parse_pid(entry?.file_name().to_bytes()) {
                visit(pid);
            }
        }
        Ok(())
    }

    /// Calls `visit` with the children of `parent`. The kernel may skip some while others exit: ask again.
    pub(crate) fn each_child(&self, parent: Pid, mut visit: impl FnMut(Pid)) {
        let path = Text::<48>::of(format_args!("{parent}/task/{parent}/children"));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.root, path.as_str(), flags, Mode::empty()) {
            Ok(list) => each_pid_in(&list, visit),
            // Either the parent is gone or the kernel has no such list (CONFIG_PROC_CHILDREN).
            Err(_) if self.stat(parent).is_some() => {
                let _unlistable = self.each(|pid| {
                    if self
                        .stat(pid)
                        .is_some_and(|s| s.parent == parent.as_raw_nonzero().get())
                    {
                        visit(pid);
                    }
                });
            }
            Err(_) => {}
        }
    }

    /// Whether `pid` is a living process of the instance in `data_dir`: it works in that directory and is
    /// a Postgres. A shell that stands there is not.
    pub(crate) fn is_postgres_in(&self, pid: Pid, data_dir: &[u8]) -> bool {
        let mut buffer = [0; PATH_MAX];
        let here = self
            .link(&Text::<32>::of(format_args!("{pid}/cwd")), &mut buffer)
            .is_some_and(|cwd| without_deleted(cwd) == data_dir);
        here && (self.command_is_postgres(pid) || self.program_is_postgres(pid))
    }

    fn command_is_postgres(&self, pid: Pid) -> bool {
        let mut buffer = [0; 64];
        self.read(&Text::<32>::of(format_args!("{pid}/comm")), &mut buffer)
            .is_some_and(|comm| is_postgres(comm.trim_ascii_end()))
    }

    fn program_is_postgres(&self, pid: Pid) -> bool {
        let mut buffer = [0; PATH_MAX];
        self.link(&Text::<32>::of(format_args!("{pid}/exe")), &mut buffer)
            .and_then(|exe| without_deleted(exe).rsplit(|&byte| byte == b'/').next())
            .is_some_and(is_postgres)
    }

    fn read<'a>(&self, path: &Text<32>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, path.as_str(), flags, Mode::empty()).ok()?;
        let length = rustix::io::read(&file, &mut *buffer).ok()?;
        Some(&buffer[..length])
    }

    fn link<'a>(&self, path: &Text<32>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let length = rustix::fs::readlinkat_raw(&self.root, path.as_str(), &mut *buffer).ok()?;
        Some(&buffer[..length])
    }
}

/// A handle on a process that stays right when its number is given to another.
pub(crate) fn handle(pid: Pid) -> Result<OwnedFd, Errno> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Whether the process behind a handle has ended (a zombie has).
pub(crate) fn has_ended(handle: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(handle, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
}

/// SIGKILL through a handle.
pub(crate) fn kill(handle: BorrowedFd<'_>) {
    let _gone_already = rustix::process::pidfd_send_signal(handle, Signal::KILL);
}

/// This boot of the machine, as the kernel names it.
pub(crate) fn boot_id() -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(CWD, "/proc/sys/kernel/random/boot_id", flags, Mode::empty()).ok()?;
    let mut buffer = [0; 64];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    Some(
        std::str::from_utf8(&buffer[..length])
            .ok()?
            .trim()
            .to_owned(),
    )
}

fn is_postgres(name: &[u8]) -> bool {
    matches!(name, b"postgres" | b"postmaster" | b"edb-postgres")
}

/// /proc marks links to what was deleted since, such as the program of a Postgres that was upgraded.
fn without_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

fn parse_pid(name: &[u8]) -> Option<Pid> {
    Pid::from_raw(std::str::from_utf8(name).ok()?.parse().ok()?)
}

fn parse_stat(line: &[u8]) -> Option<Stat> {
    // The name in parentheses may itself hold parentheses and blanks; the last one ends it.
    let end = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(line.get(end + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        zombie: matches!(state, "Z" | "X"),
        parent,
        start,
    })
}

fn each_pid_in(list: &OwnedFd, mut visit: impl FnMut(Pid)) {
    let mut number: i32 = 0;
    // A thousand children in one read: the kernel's list is steady within a read only.
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = rustix::io::read(list, &mut buffer) {
        for &byte in &buffer[..length] {
            if byte.is_ascii_digit() {
                number = number
                    .saturating_mul(10)
                    .saturating_add(i32::from(byte - b'0'));
            } else if let Some(pid) = Pid::from_raw(std::mem::take(&mut number)) {
                visit(pid);
            }
        }
    }
    if let Some(pid) = Pid::from_raw(number) {
        visit(pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) b (c) S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 31337 99 0\n";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                zombie: false,
                parent: 7,
                start: 31337
            })
        );
        assert_eq!(parse_stat(b"42 (a) Z"), None);
    }

    #[test]
    fn our_own_child_is_listed_by_both_ways() {
        let proc = Proc::open().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        // Children are listed under the thread that forked them, so the scan is what a test thread can use.
        let mut all = Vec::new();
        proc.each(|pid| all.push(pid)).unwrap();
        assert!(all.contains(&pid));
        let stat = proc.stat(pid).unwrap();
        assert_eq!(
            stat.parent,
            rustix::process::getpid().as_raw_nonzero().get()
        );
        let pidfd = handle(pid).unwrap();
        use std::os::fd::AsFd;
        assert!(!has_ended(pidfd.as_fd()));
        kill(pidfd.as_fd());
        child.wait().unwrap();
        assert!(has_ended(pidfd.as_fd()));
    }
}
