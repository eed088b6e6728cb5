//! The numbers of a promotion: the timeline that PostgreSQL is going to choose, and where it really switched.
//!
//! PostgreSQL takes the first number after its present timeline for which it finds no history file. The note must name
//! it before it exists, and is set right by the history file afterwards.

use crate::shell::ShellError;
use ha::{Lsn, Timeline};
use postgres::{Instance, Probe};
use std::path::Path;
use std::time::Duration;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) timeline: Timeline,
    pub(crate) begins: Lsn,
}

/// Reads the numbers of a standby whose WAL is all replayed.
pub(crate) async fn plan(instance: &Instance, limit: Duration) -> Result<Plan, ShellError> {
    let probe = instance.probe(limit).await?;
    if !probe.in_recovery {
        return Err(ShellError::NotNow("Postgres is primary already".to_owned()));
    }
    let wal = instance.options().data_dir.join("pg_wal");
    let newest = newest_history(&wal).max(probe.timeline);
    Ok(Plan {
        timeline: Timeline(newest.0 + 1),
        begins: probe.replayed.unwrap_or_default(),
    })
}

/// Where the new primary's timeline really began.
pub(crate) async fn outcome(instance: &Instance, limit: Duration) -> Result<Plan, ShellError> {
    let probe: Probe = instance.probe(limit).await?;
    let history = instance.timeline_history(probe.timeline)?;
    let switch = history.and_then(|history| history.switches.last().map(|last| last.end));
    let begins = switch.ok_or_else(|| {
        ShellError::NotNow(format!(
            "timeline {} has no history file yet",
            probe.timeline
        ))
    })?;
    Ok(Plan {
        timeline: probe.timeline,
        begins,
    })
}

/// The highest number for which there is a history file.
fn newest_history(wal: &Path) -> Timeline {
    let Ok(files) = std::fs::read_dir(wal) else {
        return Timeline(0);
    };
    let number = |name: &str| {
        let hex = name.strip_suffix(".history")?;
        (hex.len() == 8)
            .then(|| u32::from_str_radix(hex, 16).ok())
            .flatten()
    };
    let names = files
        .flatten()
        .filter_map(|file| number(file.file_name().to_str()?));
    Timeline(names.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_timeline_comes_after_the_newest_history_file() {
        let dir = std::env::temp_dir().join(format!("standfast-history-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in [
            "00000002.history",
            "0000000B.history",
            "000000020000000000000003",
            "x.history",
        ] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        assert_eq!(newest_history(&dir), Timeline(11));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(newest_history(&dir), Timeline(0));
    }
}
