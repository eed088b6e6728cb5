//! WAL that a rewind is about to throw away: copied aside, with a summary of what was in it.
//!
//! **Invariant:** the copy is synced before pg_rewind begins.

use crate::error::PostgresError;
use crate::files;
use crate::program::Program;
use crate::timeline::{History, history_file, segment_file};
use ha::{Lsn, Timeline};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Copies kept, the oldest goes first.
const KEPT: usize = 5;
/// More than this is summarised, not copied.
const BYTES_MAX: u64 = 2 << 30;
/// And this much must stay free beside it.
const FREE_MIN: u64 = 256 << 20;

/// What a rewind discards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Discarded {
    /// Where the histories part.
    pub from: Lsn,
    /// The beginning of the last record that goes, if any goes.
    pub last_record: Option<Lsn>,
    pub timeline: Timeline,
    /// Committed transactions, and the times of the first and last of them as PostgreSQL prints them (UTC).
    pub transactions: u64,
    pub first_commit: Option<String>,
    pub last_commit: Option<String>,
    /// Where the WAL is kept; `None`: it was too much, or there was none.
    pub saved_in: Option<PathBuf>,
}

/// A stretch of the local WAL.
struct Stretch {
    timeline: Timeline,
    from: Lsn,
}

/// What of the local history lies behind the fork.
fn stretches(local: &History, fork_timeline: Timeline, fork: Lsn) -> Vec<Stretch> {
    let mut found = vec![Stretch {
        timeline: fork_timeline,
        from: fork,
    }];
    let mut begins = Lsn::ZERO;
    for switch in local
        .switches
        .iter()
        .skip_while(|s| s.timeline < fork_timeline)
    {
        begins = begins.max(switch.end);
        let next = local
            .switches
            .iter()
            .map(|s| s.timeline)
            .find(|t| *t > switch.timeline);
        found.push(Stretch {
            timeline: next.unwrap_or(local.timeline),
            from: begins,
        });
    }
    found
}

/// Reads what will be discarded. Changes nothing.
pub(crate) async fn summarize(
    waldump: PathBuf,
    data_dir: &Path,
    local: &History,
    fork_timeline: Timeline,
    fork: Lsn,
) -> Result<Discarded, PostgresError> {
    let mut found = Discarded {
        from: fork,
        timeline: local.timeline,
        ..Discarded::default()
    };
    for stretch in stretches(local, fork_timeline, fork) {
        let program = Program::new("pg_waldump", waldump.clone())
            .arg("-p")
            .arg(data_dir.join("pg_wal"))
            .args([
                format!("-t{}", stretch.timeline),
                format!("-s{}", stretch.from),
            ])
            .arg("--rmgr=Transaction");
        // It always fails at the end of the WAL; what it has printed until then is the answer.
        program.run_lines(|line| found.count(line)).await?;
    }
    Ok(found)
}

impl Discarded {
    /// `rmgr: Transaction len … tx: 735, lsn: 0/0154F0A8, prev …, desc: COMMIT 2024-01-01 12:00:00.1 UTC`
    fn count(&mut self, line: &str) {
        let Some(rest) = line.split("lsn: ").nth(1) else {
            return;
        };
        let lsn = rest
            .split(',')
            .next()
            .and_then(|text| text.trim().parse::<Lsn>().ok());
        self.last_record = lsn.max(self.last_record);
        let Some(rest) = line.split("desc: COMMIT").nth(1) else {
            return;
        };
        // After COMMIT_PREPARED stands the transaction first.
        let rest = rest.strip_prefix("_PREPARED").map_or(rest, |rest| {
            rest.split_once(':').map_or(rest, |(_, time)| time)
        });
        let time = rest.split(';').next().unwrap_or_default().trim().to_owned();
        self.transactions += 1;
        self.first_commit.get_or_insert_with(|| time.clone());
        self.last_commit = Some(time);
    }
}

/// Copies the WAL from the fork on into a directory of its own below `keep_in`.
pub(crate) fn save(
    found: &mut Discarded,
    data_dir: &Path,
    keep_in: &Path,
    fork_timeline: Timeline,
    segment_size: u64,
) -> Result<(), PostgresError> {
    let wal = data_dir.join("pg_wal");
    let first = segment_file(Timeline(0), found.from, segment_size).split_off(8);
    let entries = std::fs::read_dir(&wal).map_err(|e| PostgresError::file("list", &wal, e))?;
    let mut segments: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            is_segment_behind(&name, fork_timeline, found.timeline, &first)
                || name == history_file(found.timeline)
        })
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    files::private_dir(keep_in)?;
    let bytes = segments.len() as u64 * segment_size;
    let free = rustix::fs::statvfs(keep_in).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    if segments.is_empty() || bytes > BYTES_MAX || bytes.saturating_add(FREE_MIN) > free {
        return Ok(());
    }
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let from = found.from.to_string().replace('/', "-");
    let dir = keep_in.join(format!(
        "{seconds:010}-timeline-{}-from-{from}",
        found.timeline
    ));
    files::private_dir(&dir)?;
    for segment in &segments {
        let copy = dir.join(segment.file_name().unwrap_or_default());
        std::fs::copy(segment, &copy)
            .and_then(|_| std::fs::File::open(&copy)?.sync_all())
            .map_err(|e| PostgresError::file("copy WAL to", &copy, e))?;
    }
    found.saved_in = Some(dir.clone());
    let text = serde_json::to_vec_pretty(&found)
        .map_err(|e| PostgresError::file("write", &dir, std::io::Error::other(e)))?;
    files::write_atomic(&dir.join("summary.json"), &text)?;
    files::sync_dir(keep_in)?;
    forget_oldest(keep_in);
    Ok(())
}

/// A segment of one of the timelines, at or behind `first` (a name without its timeline).
fn is_segment_behind(name: &str, from: Timeline, to: Timeline, first: &str) -> bool {
    if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return false;
    }
    let (timeline, position) = name.split_at(8);
    let timeline = u32::from_str_radix(timeline, 16).map(Timeline);
    timeline.is_ok_and(|t| t >= from && t <= to) && position >= first
}

fn forget_oldest(keep_in: &Path) {
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(keep_in)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    dirs.sort();
    for dir in dirs.iter().take(dirs.len().saturating_sub(KEPT)) {
        if let Err(error) = std::fs::remove_dir_all(dir) {
            tracing::warn!(dir = %dir.display(), error = %error, "can't remove old discarded WAL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_with_their_times() {
        let mut found = Discarded::default();
        for line in [
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/030000A8, prev 0/03000060, desc: COMMIT 2026-11-22 02:00:01.5 UTC",
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        736, lsn: 0/030000D8, prev 0/030000A8, desc: ABORT 2026-11-22 02:00:02 UTC",
            "rmgr: Transaction len (rec/tot):     82/    82, tx:          0, lsn: 0/03000100, prev 0/030000D8, desc: COMMIT_PREPARED 737: 2026-11-22 02:00:03 UTC; inval msgs: x",
            "pg_waldump: fatal: error in WAL record at 0/3000100: invalid record length",
        ] {
            found.count(line);
        }
        assert_eq!(found.transactions, 2);
        assert_eq!(
            found.first_commit.as_deref(),
            Some("2026-11-22 02:00:01.5 UTC")
        );
        assert_eq!(
            found.last_commit.as_deref(),
            Some("2026-11-22 02:00:03 UTC")
        );
        assert_eq!(found.last_record, Some(Lsn(0x300_0100)));
    }

    #[test]
    fn segments_behind_the_fork_are_chosen() {
        let first = "0000000000000003";
        let chosen = |name: &str| is_segment_behind(name, Timeline(1), Timeline(2), first);
        assert!(chosen("000000010000000000000003") && chosen("000000020000000100000000"));
        assert!(!chosen("000000010000000000000002") && !chosen("000000030000000000000004"));
        assert!(!chosen("00000002.history") && !chosen("0000000100000000000000zz"));
    }
}
