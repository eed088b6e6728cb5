//! A control group (version 2) of the instance's own: one write kills all that is in it.
//!
//! **Invariant:** its files are opened before Postgres starts; killing and counting touch no path.
//! It does not know what is inside.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const PREFIX: &str = "standfast-instance-";

/// The group, empty at first.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: std::ffi::CString,
    kill: OwnedFd,
    events: OwnedFd,
}

impl Cgroup {
    /// Makes a group below `parent`, and returns it with the file through which a process joins.
    pub(crate) fn create(parent: &Path, guard: Pid) -> io::Result<(Self, OwnedFd)> {
        sweep(parent);
        let path = parent.join(format!("{PREFIX}{guard}"));
        fs::create_dir(&path)?;
        Self::open(path.clone()).inspect_err(|_| drop(fs::remove_dir(&path)))
    }

    fn open(path: PathBuf) -> io::Result<(Self, OwnedFd)> {
        let open = |name: &str, rights: OFlags| {
            rustix::fs::open(path.join(name), rights | OFlags::CLOEXEC, Mode::empty())
        };
        let procs = open("cgroup.procs", OFlags::WRONLY)?;
        // Since Linux 5.14. Without it the group is of no use: descendants are walked anyway.
        let kill = open("cgroup.kill", OFlags::WRONLY)?;
        let events = open("cgroup.events", OFlags::RDONLY)?;
        let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes())?;
        Ok((Self { path, kill, events }, procs))
    }

    /// SIGKILL to every process inside, also to those that are being forked meanwhile.
    pub(crate) fn kill(&self) {
        let _tried_again_soon = rustix::io::pwrite(&self.kill, b"1", 0);
    }

    /// Whether a living process is inside. A file that can't be read proves nothing: yes.
    pub(crate) fn is_populated(&self) -> bool {
        let mut buffer = [0; 256];
        match rustix::io::pread(&self.events, &mut buffer, 0) {
            Ok(length) => !says_empty(&buffer[..length]),
            // The group itself was removed, which the kernel allows only when it is empty.
            Err(Errno::NODEV) => false,
            Err(_) => true,
        }
    }

    /// Removes the group, if it is empty.
    pub(crate) fn remove(&self) {
        let _swept_later = rustix::fs::rmdir(self.path.as_c_str());
    }
}

fn says_empty(events: &[u8]) -> bool {
    events
        .split(|&byte| byte == b'\n')
        .any(|line| line == b"populated 0")
}

/// Removes what guards that were killed have left; the kernel refuses for groups in use.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _in_use = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_is_a_proof() {
        assert!(says_empty(b"populated 0\nfrozen 0\n"));
        assert!(!says_empty(b"populated 1\nfrozen 0\n"));
        assert!(!says_empty(b""));
        assert!(!says_empty(b"populated 01\n"));
    }
}
