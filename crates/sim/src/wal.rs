//! WAL as a list of records, each with an identity that PostgreSQL does not have: only the checks may look at it.

use ha::{Epoch, Lsn, SystemId, Timeline};

/// What one record adds to an LSN: a mebibyte, so that limits in bytes mean a handful of records.
const RECORD_BYTES: u64 = 1 << 20;

/// One WAL record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Unlike an LSN, never the same for two records. For the checks only.
    pub uid: u64,
    pub timeline: Timeline,
    /// Whose leadership wrote it. For the checks only.
    pub epoch: Epoch,
    pub commit: bool,
}

/// The LSN after `count` records.
pub(crate) fn lsn(count: usize) -> Lsn {
    Lsn(count as u64 * RECORD_BYTES)
}

/// The LSN after `count` records and the first half of one more.
pub(crate) fn received(count: usize, half: bool) -> Lsn {
    Lsn(lsn(count).0 + u64::from(half) * RECORD_BYTES / 2)
}

/// The timelines as PostgreSQL's history files tell them: number, and index of the first record.
pub(crate) fn branches(wal: &[Record]) -> Vec<(Timeline, usize)> {
    let mut found: Vec<(Timeline, usize)> = Vec::new();
    for (index, record) in wal.iter().enumerate() {
        if found
            .last()
            .is_none_or(|(timeline, _)| *timeline != record.timeline)
        {
            found.push((record.timeline, index));
        }
    }
    found
}

/// The length of the common beginning, by identity.
pub(crate) fn common(left: &[Record], right: &[Record]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(a, b)| a.uid == b.uid)
        .count()
}

/// Why a walsender refuses a standby, judged by timeline numbers alone, as PostgreSQL does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Diverged,
    WalRemoved,
}

/// PostgreSQL's check of START_REPLICATION: the standby asks for `standby.len()` on its last record's timeline.
pub(crate) fn may_stream(
    standby: &[Record],
    primary: &[Record],
    flushed: usize,
) -> Result<(), Refusal> {
    let Some(last) = standby.last() else {
        return Ok(());
    };
    let history = branches(&primary[..flushed.min(primary.len())]);
    let Some(index) = history
        .iter()
        .position(|(timeline, _)| *timeline == last.timeline)
    else {
        return Err(Refusal::Diverged);
    };
    let end = history
        .get(index + 1)
        .map_or(flushed, |(_, begins)| *begins);
    if standby.len() > end {
        Err(Refusal::Diverged)
    } else {
        Ok(())
    }
}

/// The one cluster's system identifier.
pub(crate) const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
