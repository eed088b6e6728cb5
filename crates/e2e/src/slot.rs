//! How many labs may stand at the same time on this machine: two cores bear two, not ten.
//! Counted by locked files, so that it holds across test processes too.
//!
//! **Invariant:** who came first is first to get what it waits for, so that who wants the whole machine gets it while
//! others come and go.

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use std::fs::{File, OpenOptions};
use std::time::Duration;

/// Who may have a lab beside a story's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    Others,
    Nobody,
}

/// Held while a lab stands; the kernel lets go of it even if we are killed.
#[derive(Debug)]
pub(crate) struct Slot(#[allow(dead_code, reason = "a lock lives as long as its file")] Vec<File>);

impl Slot {
    /// Waits for one of `STANDFAST_E2E_LABS` (2) slots, or for all.
    pub(crate) fn take(company: Company) -> Result<Self> {
        let labs = std::env::var("STANDFAST_E2E_LABS")
            .ok()
            .and_then(|text| text.parse().ok());
        let labs: u32 = labs.unwrap_or(2);
        // One waits at a time, the others behind it at the door.
        let _door = locked("door")?;
        if company == Company::Nobody {
            let all = (0..labs).map(|number| locked(&number.to_string()));
            return Ok(Self(all.collect::<Result<_>>()?));
        }
        loop {
            for number in 0..labs {
                let file = open(&number.to_string())?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(Self(vec![file]));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Waits until nobody else has it.
fn locked(what: &str) -> Result<File> {
    let file = open(what)?;
    retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
        .with_context(|| format!("lock {what}"))?;
    Ok(file)
}

fn open(what: &str) -> Result<File> {
    // Another user's file in a sticky directory can't be opened, not even by root.
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("standfast-e2e-{user}-{what}.lock"));
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))
}
