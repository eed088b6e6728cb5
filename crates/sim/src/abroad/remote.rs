//! The remote: a list of records, and failovers that cut it off anywhere.
//!
//! **Invariant:** a promoted server takes the number after the newest timeline that it has: one that it never saw is used
//! again.

use crate::rng::Rng;
use crate::wal::{Record, lsn};
use ha::{Epoch, Lsn, Timeline};

/// A record, and the one before it: WAL that was put together of two histories shows by it. For the checks only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub record: Record,
    pub after: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub wal: Vec<Written>,
    pub timeline: Timeline,
    /// How often it has failed over: a stream is of one primary.
    pub generation: u64,
    pub up: bool,
}

/// Appends a record.
pub(super) fn write(wal: &mut Vec<Written>, uid: u64, timeline: Timeline, epoch: Epoch) {
    let after = wal.last().map_or(0, |last| last.record.uid);
    let record = Record {
        uid,
        timeline,
        epoch,
        commit: true,
    };
    wal.push(Written { record, after });
}

impl Remote {
    pub(super) fn fail_over(&mut self, rng: &mut Rng) {
        let lost = rng.index(4).min(self.wal.len().saturating_sub(1));
        self.wal.truncate(self.wal.len() - lost);
        let newest = self.wal.last().map_or(1, |last| last.record.timeline.0);
        self.timeline = Timeline(newest + 1);
        self.generation += 1;
    }

    /// Where each of its earlier timelines ended.
    pub(super) fn ended(&self) -> Vec<(Timeline, Lsn)> {
        ended(&self.wal, self.timeline)
    }
}

/// As the history file of `timeline` has it.
pub(super) fn ended(wal: &[Written], timeline: Timeline) -> Vec<(Timeline, Lsn)> {
    let mut found: Vec<(Timeline, Lsn)> = Vec::new();
    for (index, it) in wal.iter().enumerate() {
        let number = it.record.timeline;
        match found.last_mut() {
            Some((last, end)) if *last == number => *end = lsn(index + 1),
            _ => found.push((number, lsn(index + 1))),
        }
    }
    found.retain(|(number, _)| *number < timeline);
    found
}

/// The length of the common beginning, by identity.
pub(super) fn common(left: &[Written], right: &[Written]) -> usize {
    let pairs = left.iter().zip(right);
    pairs
        .take_while(|(a, b)| a.record.uid == b.record.uid)
        .count()
}

/// Whether PostgreSQL lets the standby stream, by numbers and places alone.
pub(super) fn may_stream(standby: &[Written], source: &[Written], timeline: Timeline) -> bool {
    let Some(last) = standby.last() else {
        return true;
    };
    let number = last.record.timeline;
    let end = lsn(standby.len());
    match number == timeline {
        true => standby.len() <= source.len(),
        false => ended(source, timeline)
            .iter()
            .any(|(it, ends)| *it == number && end <= *ends),
    }
}
