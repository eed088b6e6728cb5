//! Whether the WAL at the end of a standby is the upstream's, by its bytes.
//!
//! Timelines are compared by their numbers first, but two timelines may carry one number. Bytes tell them apart: a record
//! holds the checksum of what it says and where the one before it begins, so from the first different record on two
//! histories have nothing alike.
//!
//! **Invariant:** "the same" is said only of bytes that were read on both sides, up to the last one replayed here.

use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::options::Upstream;
use crate::program::Program;
use crate::sql::Link;
use crate::timeline::{History, segment_file};
use crate::upstream;
use ha::{Lsn, Timeline};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// So many bytes before the end are compared, within one segment.
const BYTES: u64 = 256 * 1024;

/// How long an archive may take to hand out one file.
const FETCH: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Everything here is the upstream's.
    Same { end: Lsn },
    /// Up to here it is; what comes after is not in the upstream's history.
    Parted { fork: Lsn },
    /// It is not, or it can't be said.
    Unknown { why: String },
}

impl Compared {
    /// Up to where it is the upstream's.
    pub fn same(&self) -> Option<Lsn> {
        match self {
            Self::Same { end: upto } | Self::Parted { fork: upto } => Some(*upto),
            Self::Unknown { .. } => None,
        }
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { end } => write!(f, "the WAL before {end} is the leader's, byte by byte"),
            Self::Parted { fork } => {
                write!(f, "the WAL up to {fork} is the leader's, the rest is not")
            }
            Self::Unknown { why } => write!(f, "the WAL can't be taken for the leader's: {why}"),
        }
    }
}

impl Instance {
    /// Compares the end of a standby whose WAL is all replayed with `upstream`.
    pub async fn compare_wal(
        &self,
        upstream: &Upstream,
        limit: Duration,
    ) -> Result<Compared, PostgresError> {
        let probe = self.probe(limit).await?;
        let end = probe.replayed.unwrap_or_default();
        let link = self.connect_upstream(upstream, limit).await?;
        let source = upstream::info(&link, upstream.timeline, limit).await?;
        let unknown = |why: &str| {
            let why = why.to_owned();
            Ok(Compared::Unknown { why })
        };
        let Some(local) = self.timeline_history(probe.timeline)? else {
            return unknown("our own timeline history is missing");
        };
        let common = match local.fork(&source.history) {
            None => return unknown("the timeline histories have nothing in common"),
            Some((_, None)) => source.position,
            Some((_, Some(fork))) => fork,
        };
        let upto = end.min(common);
        let size = self.control()?.wal_segment_size;
        let Some((begins, length)) = range(upto, size) else {
            return unknown("there is no WAL yet");
        };
        let Some(here) = self.local_wal(&local, upto, size, begins, length)? else {
            return unknown("our own WAL file is not there any more");
        };
        let there = remote_wal(&link, &source.history, upto, size, begins, length, limit).await?;
        let archive = upstream.remote.as_ref();
        let there = match archive.and_then(|remote| remote.restore_command.as_deref()) {
            Some(command) if there.is_none() => {
                let names = names(&source.history, upto, size);
                self.archived_wal(command, &names, begins, length).await?
            }
            _ => there,
        };
        let Some(there) = there else {
            return unknown("the leader no longer has the WAL file");
        };
        if here != there {
            return unknown(&format!("the bytes before {upto} differ"));
        }
        match upto < end {
            true if probe.timeline == source.timeline => unknown("it has more than the leader"),
            true => Ok(Compared::Parted { fork: upto }),
            false => Ok(Compared::Same { end }),
        }
    }

    /// What is noted of a stopped instance from here on is noted of what Patroni has left: only PostgreSQL's own note of
    /// who started it goes, and comes back with the next start.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn taken_over(&self) -> Result<(), PostgresError> {
        self.nothing_runs()?;
        files::remove_durably(&self.opts())
    }

    fn opts(&self) -> PathBuf {
        self.options().data_dir.join("postmaster.opts")
    }

    fn control(&self) -> Result<crate::Control, PostgresError> {
        crate::Control::read(&self.inner.binaries, &self.options().data_dir)
    }

    fn local_wal(
        &self,
        history: &History,
        upto: Lsn,
        size: u64,
        begins: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, PostgresError> {
        let wal = self.options().data_dir.join("pg_wal");
        for name in names(history, upto, size) {
            let path = wal.join(name);
            let failed = |e| PostgresError::file("read", &path, e);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, begins).map_err(failed)?;
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    /// The same of the archive, where what the upstream has removed may lie.
    async fn archived_wal(
        &self,
        command: &str,
        names: &[String],
        begins: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, PostgresError> {
        let paths = &self.inner.paths;
        let to = paths.state_dir.join("compared.wal");
        let mut found = None;
        for name in names {
            files::remove(&to)?;
            let program = Program::new("restore_command", PathBuf::from("/bin/sh"))
                .arg("-c")
                .arg("cd \"$0\" && eval \"$1\"")
                .arg(&self.options().data_dir)
                .arg(expanded(command, name, &to.display().to_string()));
            let ended = tokio::time::timeout(FETCH, program.run(|_| {}, |_| {})).await;
            let Ok(ended) = ended else {
                tracing::warn!(name, "the archive has not answered in time");
                break;
            };
            let mut bytes = vec![0; length];
            if ended?.status.success()
                && let Ok(file) = File::open(&to)
                && file.read_exact_at(&mut bytes, begins).is_ok()
            {
                found = Some(bytes);
                break;
            }
        }
        files::remove(&to)?;
        Ok(found)
    }

    /// Whether Patroni was the last to start this directory's Postgres: it alone says the cluster's name that way.
    pub fn was_patronis(&self) -> bool {
        std::fs::read_to_string(self.opts()).is_ok_and(|text| text.contains("--cluster_name="))
    }
}

/// A `restore_command` as PostgreSQL expands it. Of restart points it is told that there is none: nothing may be removed
/// from the archive.
fn expanded(command: &str, name: &str, to: &str) -> String {
    let mut text = String::new();
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        let meant = (c == '%').then(|| rest.clone().next()).flatten();
        match meant {
            Some('f') => text.push_str(name),
            Some('p') => text.push_str(to),
            Some('r') => text.push_str("000000000000000000000000"),
            Some('%') => text.push('%'),
            _ => {
                text.push(c);
                continue;
            }
        }
        rest.next();
    }
    text
}

/// What to compare before a position: where in its segment it begins, and how long it is.
fn range(upto: Lsn, size: u64) -> Option<(u64, usize)> {
    let last = upto.0.checked_sub(1)?;
    let end = last % size + 1;
    let begins = end.saturating_sub(BYTES);
    Some((begins, usize::try_from(end - begins).ok()?))
}

/// The files that may hold the WAL before `upto`, of the newest timeline first: a promotion copies the segment that it
/// leaves.
fn names(history: &History, upto: Lsn, size: u64) -> Vec<String> {
    let before = Lsn(upto.0.saturating_sub(1));
    let older = history.switches.iter().rev().map(|it| it.timeline);
    let timelines = std::iter::once(history.timeline).chain(older);
    timelines
        .map(|timeline: Timeline| segment_file(timeline, before, size))
        .collect()
}

async fn remote_wal(
    link: &Link,
    history: &History,
    upto: Lsn,
    size: u64,
    begins: u64,
    length: usize,
    limit: Duration,
) -> Result<Option<Vec<u8>>, PostgresError> {
    let doing = "read the upstream's WAL";
    let failed = |e| PostgresError::sql(doing, e);
    let (begins, wanted) = (begins.cast_signed(), i64::try_from(length).unwrap_or(0));
    let sql = "SELECT pg_read_binary_file($1, $2, $3, true)";
    for name in names(history, upto, size) {
        let path = format!("pg_wal/{name}");
        let rows = link
            .rows(doing, sql, &[&path, &begins, &wanted], limit)
            .await?;
        let bytes: Option<Vec<u8>> = match rows.first() {
            Some(row) => row.try_get(0).map_err(failed)?,
            None => None,
        };
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() == length) {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Switch;

    #[test]
    fn the_last_bytes_of_one_segment_are_compared() {
        let size = 16 << 20;
        assert_eq!(range(Lsn::ZERO, size), None);
        assert_eq!(range(Lsn(size + 10), size), Some((0, 10)));
        assert_eq!(range(Lsn(2 * size), size), Some((size - BYTES, 256 * 1024)));
    }

    #[test]
    fn a_command_of_the_archive_is_told_what_and_where_to() {
        assert_eq!(
            expanded("fetch --keep %r %f '%p' 5%% %x%", "0001", "/to/it"),
            "fetch --keep 000000000000000000000000 0001 '/to/it' 5% %x%"
        );
    }

    #[test]
    fn a_segment_may_lie_under_the_number_of_any_timeline() {
        let history = History {
            timeline: Timeline(3),
            switches: vec![Switch {
                timeline: Timeline(2),
                end: Lsn(100),
                reason: String::new(),
            }],
        };
        let found = names(&history, Lsn(16 << 20), 16 << 20);
        assert_eq!(
            found,
            ["000000030000000000000000", "000000020000000000000000"]
        );
    }
}
