//! Reading what Postgres logged.

use crate::error::PostgresError;
use crate::files;
use std::path::Path;

/// Larger than this at a start, our log becomes `.1`.
const SIZE_MAX: u64 = 64 << 20;
/// As much as is read of one start.
const READ_MAX: u64 = 256 << 10;
/// As much as goes into an error.
const LINES_KEPT: usize = 15;

/// Makes room in a log that has grown; returns where the next start's lines begin.
pub(crate) fn rotate(log: &Path) -> u64 {
    let size = std::fs::metadata(log).map_or(0, |m| m.len());
    if size <= SIZE_MAX {
        return size;
    }
    match std::fs::rename(log, log.with_extension("log.1")) {
        Ok(()) => 0,
        Err(_) => size,
    }
}

/// What was logged since `begins`, with the end of the file that the logging collector writes, if it does.
pub(crate) fn since(log: &Path, begins: u64, data_dir: &Path) -> String {
    let tail = |path: &Path, begins: u64| {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let begins = begins.max(size.saturating_sub(READ_MAX));
        let bytes = files::read_from(path, begins, READ_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut text = tail(log, begins);
    let current = std::fs::read_to_string(data_dir.join("current_logfiles")).unwrap_or_default();
    for line in current.lines() {
        if let Some(("stderr", file)) = line.split_once(' ') {
            // The collector's file spans starts; its last lines are of this one.
            text.push_str(&last_lines(&tail(&data_dir.join(file), 0)));
        }
    }
    text
}

pub(crate) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_KEPT)..].join("\n")
}

/// The storage's fault, as the last lines tell it.
pub(crate) fn storage_error(log: &str) -> Option<PostgresError> {
    let last = last_lines(log);
    let line = |needle: &str| last.lines().rev().find(|line| line.contains(needle));
    if let Some(line) = line("No space left on device").or_else(|| line("Disk quota exceeded")) {
        return Some(PostgresError::DiskFull {
            detail: line.trim().to_owned(),
        });
    }
    let line = line("Read-only file system").or_else(|| line("Input/output error"))?;
    Some(PostgresError::ReadOnly {
        detail: line.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised() {
        let log = "LOG:  starting\nFATAL:  could not write lock file \"postmaster.pid\": No space left on device\n";
        assert!(matches!(
            storage_error(log),
            Some(PostgresError::DiskFull { .. })
        ));
        let log = "PANIC:  could not open file \"x\": Read-only file system\n";
        assert!(matches!(
            storage_error(log),
            Some(PostgresError::ReadOnly { .. })
        ));
        assert!(storage_error("FATAL:  database files are incompatible with server\n").is_none());
    }

    #[test]
    fn an_error_holds_only_the_last_lines() {
        let log: String = (0..40).map(|n| format!("line {n}\n")).collect();
        let kept = last_lines(&log);
        assert!(
            kept.starts_with("line 25") && kept.ends_with("line 39"),
            "{kept}"
        );
    }
}
