//! The control file of a data directory, as pg_controldata prints it.
//!
//! It is read with `LC_ALL=C`: the labels are translated otherwise.

use crate::binaries::Binaries;
use crate::error::PostgresError;
use ha::{Lsn, SystemId, Timeline};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What the control file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    ShutDown,
    ShutDownInRecovery,
    /// Running, or it crashed as a primary.
    InProduction,
    /// Running, or it crashed as a standby.
    InArchiveRecovery,
    InCrashRecovery,
    /// Any other, such as `starting up` and `shutting down`.
    Other,
}

impl ControlState {
    /// The last stop was a clean one.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// The parts of the control file that matter to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub system_id: SystemId,
    pub state: ControlState,
    /// Of the latest checkpoint; a standby's replay may be on a later one.
    pub timeline: Timeline,
    pub checkpoint: Lsn,
    /// Zero unless it was in recovery.
    pub min_recovery_end: Lsn,
    pub min_recovery_timeline: Timeline,
    /// It comes from a base backup and has not reached the point where that is consistent.
    pub in_backup: bool,
    pub checksums: bool,
    pub wal_log_hints: bool,
    pub wal_segment_size: u64,
    pub wal_block_size: u64,
    /// Settings that a standby must not go below, as named in `postgresql.conf`.
    pub floors: BTreeMap<&'static str, u64>,
}

impl Control {
    pub(crate) fn read(binaries: &Binaries, data_dir: &Path) -> Result<Self, PostgresError> {
        let program = binaries.program("pg_controldata");
        let output = Command::new(&program)
            .arg("-D")
            .arg(data_dir)
            .env_clear()
            .env("LC_ALL", "C")
            .envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)))
            .output()
            .map_err(|source| PostgresError::Spawn { program, source })?;
        if !output.status.success() {
            return Err(PostgresError::Program {
                program: "pg_controldata",
                status: output.status.to_string(),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| PostgresError::Answer {
            doing: "read the control file",
            answer: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    }

    /// `None` when a line that we need is missing or reads otherwise than expected.
    pub fn parse(text: &str) -> Option<Self> {
        let lines: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(label, value)| (label.trim(), value.trim()))
            .collect();
        let value = |label: &str| lines.get(label).copied();
        let state = match value("Database cluster state")? {
            "shut down" => ControlState::ShutDown,
            "shut down in recovery" => ControlState::ShutDownInRecovery,
            "in production" => ControlState::InProduction,
            "in archive recovery" => ControlState::InArchiveRecovery,
            "in crash recovery" => ControlState::InCrashRecovery,
            _ => ControlState::Other,
        };
        let size = |label: &str| value(label)?.parse().ok().filter(|n| *n > 0);
        let backup: Lsn = value("Backup start location")?.parse().ok()?;
        let floors = [
            ("max_connections", "max_connections setting"),
            ("max_worker_processes", "max_worker_processes setting"),
            ("max_wal_senders", "max_wal_senders setting"),
            ("max_prepared_transactions", "max_prepared_xacts setting"),
            ("max_locks_per_transaction", "max_locks_per_xact setting"),
        ];
        Some(Self {
            system_id: SystemId(value("Database system identifier")?.parse().ok()?),
            state,
            timeline: Timeline(value("Latest checkpoint's TimeLineID")?.parse().ok()?),
            checkpoint: value("Latest checkpoint location")?.parse().ok()?,
            min_recovery_end: value("Minimum recovery ending location")?.parse().ok()?,
            min_recovery_timeline: Timeline(
                value("Min recovery ending loc's timeline")?.parse().ok()?,
            ),
            in_backup: backup != Lsn::ZERO || value("End-of-backup record required")? == "yes",
            checksums: value("Data page checksum version")? != "0",
            wal_log_hints: value("wal_log_hints setting")? == "on",
            wal_segment_size: size("Bytes per WAL segment")?,
            wal_block_size: size("WAL block size")?,
            floors: floors
                .into_iter()
                .filter_map(|(name, label)| Some((name, value(label)?.parse().ok()?)))
                .collect(),
        })
    }

    /// The timeline and the end of what is known to be on disk, of a directory that was cleanly stopped.
    pub fn end(&self) -> (Timeline, Lsn) {
        if self.min_recovery_end > self.checkpoint {
            (
                self.timeline.max(self.min_recovery_timeline),
                self.min_recovery_end,
            )
        } else {
            (self.timeline, self.checkpoint)
        }
    }

    /// Whether pg_rewind can work on it.
    pub fn can_rewind(&self) -> bool {
        self.checksums || self.wal_log_hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pg_control version number:            1300
Database system identifier:           7710809766476697303
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/17414F8
Latest checkpoint's REDO WAL file:    000000010000000000000001
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/2000000
Min recovery ending loc's timeline:   3
Backup start location:                0/0
End-of-backup record required:        no
wal_log_hints setting:                off
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
Bytes per WAL segment:                16777216
WAL block size:                       8192
Data page checksum version:           1
";

    #[test]
    fn pg_controldata_is_read() {
        let control = Control::parse(TEXT).unwrap();
        assert_eq!(control.system_id, SystemId(7_710_809_766_476_697_303));
        assert_eq!(control.state, ControlState::ShutDownInRecovery);
        assert_eq!(control.end(), (Timeline(3), Lsn(0x200_0000)));
        assert!(control.can_rewind() && !control.wal_log_hints && !control.in_backup);
        assert_eq!(control.floors["max_connections"], 100);
    }

    #[test]
    fn a_missing_line_is_no_control_file() {
        assert_eq!(
            Control::parse(&TEXT.replace("Latest checkpoint location", "x")),
            None
        );
        assert_eq!(Control::parse(""), None);
    }
}
