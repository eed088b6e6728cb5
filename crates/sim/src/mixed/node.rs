//! A node: its directory, its Postgres, and which program looks after it.

use crate::wal::{Record, lsn};
use ha::quorum::Applied;
use ha::{Epoch, Instant, Lineage, NodeName, Timeline};
use std::collections::BTreeSet;

use super::store::Store;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Patroni,
    Ours,
}

/// By which name a standby streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    Plain,
    OfEpoch(Epoch),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pg {
    Down,
    Standby { upstream: Option<(usize, Stream)> },
    Primary { open: bool },
}

/// Whom commits wait for, as Postgres has it: `needed` of `names`.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    pub needed: usize,
    pub names: BTreeSet<(NodeName, Stream)>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub name: NodeName,
    pub kind: Kind,
    /// The machine.
    pub up: bool,
    /// The agent does nothing, its Postgres goes on.
    pub frozen: bool,
    pub pg: Pg,
    pub wal: Vec<Record>,
    /// Postgres was last started by Patroni.
    pub patronis: bool,
    pub note: Option<Lineage>,
    pub lease: Option<Epoch>,
    pub promised: Option<(Epoch, Instant)>,
    pub applied: Option<Applied>,
    pub clean_stop: bool,
    pub waits: Waits,
    /// Which promotion made it primary, counted over all nodes.
    pub promotion: u64,
    /// Commits that nobody was told of yet: their place in the WAL.
    pub pending: Vec<usize>,
    /// The store as this agent last saw it.
    pub seen: Store,
}

impl Node {
    pub(super) fn new(name: NodeName) -> Self {
        Self {
            name,
            kind: Kind::Patroni,
            up: true,
            frozen: false,
            pg: Pg::Down,
            wal: Vec::new(),
            patronis: true,
            note: None,
            lease: None,
            promised: None,
            applied: None,
            clean_stop: false,
            waits: Waits::default(),
            promotion: 0,
            pending: Vec::new(),
            seen: Store::default(),
        }
    }

    pub(super) fn timeline(&self) -> Timeline {
        self.wal.last().map_or(Timeline(1), |last| last.timeline)
    }

    pub(super) fn position(&self) -> ha::Lsn {
        lsn(self.wal.len())
    }

    pub(super) fn is_primary(&self) -> bool {
        self.up && matches!(self.pg, Pg::Primary { .. })
    }

    pub(super) fn stop(&mut self) {
        self.pg = Pg::Down;
        self.pending.clear();
        self.waits = Waits::default();
        self.applied = None;
    }

    pub(super) fn upstream(&self) -> Option<(usize, Stream)> {
        match self.pg {
            Pg::Standby { upstream } if self.up => upstream,
            _ => None,
        }
    }
}
