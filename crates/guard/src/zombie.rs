//! A postmaster that is dead but not reaped, whose number still stands in `postmaster.pid`.
//!
//! It appears when a guard was killed and the process that inherits its children doesn't reap them, as many a
//! container's PID 1. PostgreSQL takes a zombie for a running postmaster and refuses to start, for ever.
//!
//! **Invariant:** the file is left alone, so PostgreSQL's own check of the shared memory stays in force: the
//! zombie is only named to it as its grandparent, which it knows can't be another postmaster.

use crate::process::Proc;
use rustix::process::Pid;
use std::path::Path;

/// The variable in which `pg_ctl` passes the number of its own parent.
pub(crate) const GRANDPARENT: &str = "PG_GRANDPARENT_PID";

/// The zombie that `postmaster.pid` names, if it names one.
pub(crate) fn in_lock_file(proc: &Proc, data_dir: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = named(&text)?;
    proc.stat(pid)?.zombie.then_some(pid)
}

/// The first line; a single-user Postgres writes its number with a minus.
fn named(text: &str) -> Option<Pid> {
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    Pid::from_raw(number.checked_abs()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_zombie_counts() {
        let dir = tempfile::tempdir().unwrap();
        let proc = Proc::open().unwrap();
        let found = || in_lock_file(&proc, dir.path());
        assert_eq!(found(), None, "no file");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let write = |text: String| std::fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        write(format!("{}\n/data\n", child.id()));
        assert_eq!(found(), None, "it lives");
        child.kill().unwrap();
        let began = std::time::Instant::now();
        while found().is_none() {
            assert!(began.elapsed().as_secs() < 10);
        }
        assert_eq!(found(), Some(Pid::from_child(&child)));
        write(format!("-{}\n", child.id()));
        assert_eq!(found(), Some(Pid::from_child(&child)), "single-user");
        child.wait().unwrap();
        assert_eq!(found(), None, "reaped");
        write("torn".to_owned());
        assert_eq!(found(), None);
    }
}
