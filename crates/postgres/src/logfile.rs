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

pub(crate) fn size(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |m| m.len())
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

/// Somebody else listens on the port, by TCP or by its socket.
pub(crate) fn port_is_taken(log: &str) -> bool {
    let last = last_lines(log);
    let taken = |line: &str| {
        let bind = line.contains("could not bind") && line.contains("Address already in use");
        let socket = line.contains("lock file") && line.contains(".s.PGSQL.");
        // That it could not be created is another matter.
        bind || (socket && line.contains("already exists"))
    };
    last.lines().any(taken)
}

/// Why a standby can't stream, as its own log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTrouble {
    /// The upstream no longer has the WAL: only a clone helps.
    WalRemoved,
    /// Our history is not the upstream's: rewind or clone.
    Diverged,
    /// The upstream belongs to another cluster.
    WrongSystem,
    /// The slot that we were told to use is not there.
    NoSlot,
    /// The upstream does not let us in.
    Refused,
}

/// A stream that does not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFailure {
    /// What is known to be wrong; `None` for anything else, such as an upstream that does not answer.
    pub trouble: Option<StreamTrouble>,
    /// Postgres's own words, for people.
    pub says: String,
}

/// The last trouble since streaming last began.
pub(crate) fn stream_failure(log: &str) -> Option<StreamFailure> {
    let telling = |line: &str| {
        let has = |text: &str| line.contains(text);
        if has("started streaming WAL") || has("restarted WAL streaming") {
            return Some(None);
        }
        let trouble = if has("requested WAL segment") && has("has already been removed") {
            Some(StreamTrouble::WalRemoved)
        } else if has("forked off current database system timeline")
            || has("is behind recovery timeline")
            || has("is not in this server's history")
            || has("is ahead of the WAL flush position of this server")
        {
            Some(StreamTrouble::Diverged)
        } else if has("database system identifier differs") {
            Some(StreamTrouble::WrongSystem)
        } else if has("replication slot") && has("does not exist") {
            Some(StreamTrouble::NoSlot)
        } else if has("password authentication failed") || has("no pg_hba.conf entry") {
            Some(StreamTrouble::Refused)
        } else if RECEIVER.iter().any(|text| has(text)) {
            None
        } else {
            return None;
        };
        let says = words(line).to_owned();
        Some(Some(StreamFailure { trouble, says }))
    };
    log.lines().rev().find_map(telling).flatten()
}

/// What the WAL receiver says of whatever keeps it from streaming.
const RECEIVER: [&str; 3] = [
    "could not connect to the primary server",
    "could not receive data from WAL stream",
    "could not start WAL streaming",
];

/// The cause in a line of the log: what the upstream or the network said, without what led to it.
fn words(line: &str) -> &str {
    let after = |text: &'_ str| line.rfind(text).map(|at| at + text.len());
    let begins = ["FATAL:  ", "ERROR:  ", "LOG:  "]
        .into_iter()
        .filter_map(after);
    let cause = line.get(begins.max().unwrap_or(0)..).unwrap_or(line).trim();
    RECEIVER
        .iter()
        .find_map(|text| cause.strip_prefix(text)?.strip_prefix(": "))
        .unwrap_or(cause)
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
    fn a_taken_port_is_recognised() {
        for log in [
            "LOG:  starting\nLOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\nHINT:  x\n\
             FATAL:  could not create any TCP/IP sockets\n",
            "FATAL:  lock file \"/tmp/.s.PGSQL.5432.lock\" already exists\nHINT:  x\n",
        ] {
            assert!(port_is_taken(log), "{log}");
        }
        for log in [
            "FATAL:  lock file \"postmaster.pid\" already exists\n",
            "FATAL:  could not create lock file \"/none/.s.PGSQL.5432.lock\": No such file or directory\n",
            "FATAL:  could not create lock file \"/none/.s.PGSQL.5432.lock\": Permission denied\n",
            "LOG:  could not bind IPv4 address \"192.0.2.1\": Cannot assign requested address\n",
        ] {
            assert!(!port_is_taken(log), "{log}");
        }
    }

    #[test]
    fn trouble_counts_from_the_last_stream_on() {
        let removed = "FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment 0001 has already been removed\n";
        let trouble = |log: &str| stream_failure(log).and_then(|failure| failure.trouble);
        assert_eq!(trouble(removed), Some(StreamTrouble::WalRemoved));
        let mended = format!(
            "{removed}LOG:  started streaming WAL from primary at 0/3000000 on timeline 1\n"
        );
        assert_eq!(stream_failure(&mended), None);
        let slot = format!(
            "{mended}FATAL:  could not start WAL streaming: ERROR:  replication slot \"b\" does not exist\nx\n"
        );
        assert_eq!(trouble(&slot), Some(StreamTrouble::NoSlot));
    }

    #[test]
    fn the_cause_is_told_without_what_led_to_it() {
        for (line, trouble, says) in [
            (
                "2026-01-01 [7] FATAL:  could not connect to the primary server: connection to server at \"127.0.0.1\", \
                 port 6000 failed: FATAL:  password authentication failed for user \"replicator\"",
                Some(StreamTrouble::Refused),
                "password authentication failed for user \"replicator\"",
            ),
            (
                "2026-01-01 [7] FATAL:  could not connect to the primary server: connection to server at \"127.0.0.1\", \
                 port 6000 failed: Connection refused\n\tIs the server running on that host?",
                None,
                "connection to server at \"127.0.0.1\", port 6000 failed: Connection refused",
            ),
            (
                "2026-01-01 [7] FATAL:  could not start WAL streaming: ERROR:  replication slot \"b\" does not exist",
                Some(StreamTrouble::NoSlot),
                "replication slot \"b\" does not exist",
            ),
        ] {
            let says = says.to_owned();
            assert_eq!(stream_failure(line), Some(StreamFailure { trouble, says }));
        }
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
