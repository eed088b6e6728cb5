//! How many labs may stand at the same time on this machine: two cores bear two, not ten.
//! Counted by locked files, so that it holds across test processes too.

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::time::Duration;

/// Held while a lab stands; the kernel lets go of it even if we are killed.
#[derive(Debug)]
pub(crate) struct Slot(#[allow(dead_code, reason = "the lock lives as long as the file")] File);

impl Slot {
    /// Waits for one of `STANDFAST_E2E_LABS` (2) slots.
    pub(crate) fn take() -> Result<Self> {
        let labs = std::env::var("STANDFAST_E2E_LABS")
            .ok()
            .and_then(|text| text.parse().ok());
        let labs: u32 = labs.unwrap_or(2);
        // Another user's file in a sticky directory can't be opened, not even by root.
        let user = rustix::process::geteuid().as_raw();
        loop {
            for number in 0..labs {
                let path = std::env::temp_dir().join(format!("standfast-e2e-{user}-{number}.lock"));
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .with_context(|| format!("open {}", path.display()))?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(Self(file));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
