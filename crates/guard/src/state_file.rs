//! `<state_dir>/guard`: where an agent that restarted finds the guard.
//!
//! **Invariant:** it is written before the postmaster exists, so no instance runs under a guard that nobody
//! can find. It is a hint, not a truth: boot, pid and start time are checked against the living process.
//! It is never removed: unlinking can hang with the disk, and a stale one is harmless.

use rustix::process::Pid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) pid: Pid,
    pub(crate) start: u64,
    pub(crate) mapping_fd: i32,
    pub(crate) boot: String,
}

pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("guard")
}

/// The lock that a guard holds while it may have processes.
pub(crate) fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("guard.lock")
}

impl Record {
    /// Writes the file; a reader sees the old or the new one, never half of it.
    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let fresh = state_dir.join("guard.new");
        fs::write(&fresh, self.to_text())?;
        fs::rename(fresh, path(state_dir))
    }

    /// `None` without a file, or with one that is no record (torn by a power loss, after which the guard
    /// it spoke of is gone as well).
    pub(crate) fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path(state_dir)) {
            Ok(text) => Ok(Self::from_text(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn to_text(&self) -> String {
        let Self {
            pid,
            start,
            mapping_fd,
            boot,
        } = self;
        format!("pid {pid}\nstart {start}\nmapping_fd {mapping_fd}\nboot {boot}\nend\n")
    }

    fn from_text(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        text.ends_with("end\n").then_some(())?;
        Some(Self {
            pid: Pid::from_raw(field("pid")?.parse().ok()?)?,
            start: field("start")?.parse().ok()?,
            mapping_fd: field("mapping_fd")?.parse().ok()?,
            boot: field("boot")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let record = Record {
            pid: Pid::from_raw(77).unwrap(),
            start: 123_456,
            mapping_fd: 3,
            boot: "7c0f".to_owned(),
        };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record.clone()));
        let text = record.to_text();
        for length in 0..text.len() {
            assert_eq!(Record::from_text(&text[..length]), None, "{length}");
        }
    }
}
