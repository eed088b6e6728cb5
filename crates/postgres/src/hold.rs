//! Who looks after the data directory: one agent, whatever the state directories of others are called.
//!
//! The lock is on the directory itself. So no other path leads around it, no file of ours lies in it, and it ends with
//! its process, however that ends.
//!
//! **Invariant:** once told to hold it, an instance starts, stops, copies and rewinds nothing in a directory that another
//! process holds.
//!
//! It knows nothing of Postgres: a postmaster and its guard outlive their agent, and hold nothing.

use crate::error::PostgresError;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, major, minor};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Hold(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Whoever opened the instance only looks.
    #[default]
    Unwanted,
    /// The directory may not be there yet.
    Wanted(Option<File>),
}

impl Hold {
    /// Takes the directory now, or as soon as there is one.
    pub(crate) fn take(&self, data_dir: &Path) -> Result<(), PostgresError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unwanted) {
            *state = State::Wanted(None);
        }
        keep(&mut state, data_dir)
    }

    /// Makes sure that what is there now is held, if that was ever wanted.
    pub(crate) fn check(&self, data_dir: &Path) -> Result<(), PostgresError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut state, data_dir)
    }
}

fn keep(state: &mut State, data_dir: &Path) -> Result<(), PostgresError> {
    let State::Wanted(held) = state else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(found) = rustix::fs::open(data_dir, flags, Mode::empty()) else {
        // Why it can't be used is found out, and said, by those who need it.
        return Ok(());
    };
    let found = File::from(found);
    let identity = |file: &File| file.metadata().map(|it| (it.dev(), it.ino()));
    let looked = |source| PostgresError::file("look at", data_dir, source);
    let place = identity(&found).map_err(looked)?;
    // A program that made a copy may have put another directory in its place.
    if let Some(held) = held
        && identity(held).map_err(looked)? == place
    {
        return Ok(());
    }
    match flock(&found, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let metadata = found.metadata().map_err(looked)?;
            return Err(PostgresError::Held {
                data_dir: data_dir.to_owned(),
                by: holder(&metadata).map_or_else(String::new, |pid| format!(", pid {pid}")),
            });
        }
        Err(errno) => {
            let why = std::io::Error::from(errno);
            tracing::warn!(%why, "the data directory's file system knows no locks: a second agent would not be noticed");
        }
    }
    *held = Some(found);
    Ok(())
}

/// The process with the lock, if the kernel tells.
fn holder(directory: &Metadata) -> Option<i32> {
    let device = directory.dev();
    let place = format!(
        "{:02x}:{:02x}:{}",
        major(device),
        minor(device),
        directory.ino()
    );
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// A child that another test starts just then has the lock, too, until it has become its program.
    fn soon(held: impl Fn() -> Result<(), PostgresError>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = held() {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_directory_is_one_agents_by_whatever_path() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("link"));
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let (first, second, onlooker) = (Hold::default(), Hold::default(), Hold::default());
        first.take(&data).unwrap();
        second.take(&link).unwrap();
        // Nobody has one that is not there; the first to look when it is gets it.
        std::fs::create_dir(&data).unwrap();
        onlooker.check(&data).unwrap();
        first.check(&data).unwrap();
        first.check(&data).unwrap();
        let refused = second.check(&link).unwrap_err().to_string();
        assert!(refused.contains("another agent"), "{refused}");
        drop(first);
        soon(|| second.check(&link));
    }

    #[test]
    fn another_directory_in_its_place_is_held_too() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let (first, second) = (Hold::default(), Hold::default());
        first.take(&data).unwrap();
        std::fs::rename(&data, dir.path().join("old")).unwrap();
        std::fs::create_dir(&data).unwrap();
        first.check(&data).unwrap();
        assert!(second.take(&data).is_err());
        soon(|| second.take(&dir.path().join("old")));
    }
}
