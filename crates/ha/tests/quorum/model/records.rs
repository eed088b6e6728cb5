//! The records that a search meets, each once, with what `ha` says about them remembered.
//!
//! **Invariant:** every answer given here was computed by `ha`'s public functions on real values.

use super::settings::{Compact, name, names};
use super::state::{SettingId, State};
use super::table::Table;
use ha::quorum::{Applied, Setting, Step, SyncRecord, next_step};
use ha::{Epoch, Lsn, NodeName};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId(pub u16);

/// [`Step`], small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Record(RecordId),
    Apply,
    Await,
    Settled,
}

#[derive(Debug)]
struct Known {
    record: SyncRecord,
    /// The settings it holds, as a mask.
    settings: u32,
    newest: SettingId,
    /// Bit m: the promises of the nodes in mask m are accepted; by the record, and by each of its settings alone.
    accepted: u32,
    accepted_each: u32,
}

#[derive(Debug)]
pub struct Records {
    nodes: usize,
    settings: Vec<Setting>,
    known: Vec<Known>,
    steps: Table<1>,
    answers: Vec<Next>,
    joins: Table<1>,
    joined: Vec<RecordId>,
}

impl Records {
    pub fn new(nodes: usize, settings: &[Compact]) -> Self {
        Self {
            nodes,
            settings: settings.iter().map(Compact::setting).collect(),
            known: Vec::new(),
            steps: Table::new(),
            answers: Vec::new(),
            joins: Table::new(),
            joined: Vec::new(),
        }
    }

    pub fn of(&mut self, setting: SettingId) -> RecordId {
        self.intern(SyncRecord::of(self.settings[setting.index()].clone()))
    }

    pub fn joined(&mut self, record: RecordId, setting: SettingId) -> RecordId {
        let (index, new) = self
            .joins
            .index(&[u64::from(record.0) << 5 | u64::from(setting.0)]);
        if new {
            let joined = self
                .record(record)
                .joined(self.settings[setting.index()].clone());
            let joined = self.intern(joined);
            self.joined.push(joined);
        }
        self.joined[index]
    }

    pub fn record(&self, id: RecordId) -> &SyncRecord {
        &self.known[usize::from(id.0)].record
    }

    pub fn newest(&self, id: RecordId) -> SettingId {
        self.known[usize::from(id.0)].newest
    }

    pub fn holds(&self, id: RecordId, setting: SettingId) -> bool {
        self.known[usize::from(id.0)].settings >> setting.0 & 1 == 1
    }

    pub fn is_settled(&self, id: RecordId) -> bool {
        self.known[usize::from(id.0)].settings.count_ones() == 1
    }

    pub fn accepts(&self, id: RecordId, promised: u8) -> bool {
        self.known[usize::from(id.0)].accepted >> promised & 1 == 1
    }

    /// As if the settings of the record were asked one by one.
    pub fn each_accepts(&self, id: RecordId, promised: u8) -> bool {
        self.known[usize::from(id.0)].accepted_each >> promised & 1 == 1
    }

    pub fn setting(&self, id: SettingId) -> &Setting {
        &self.settings[id.index()]
    }

    /// What the agent of the current leader does next.
    pub fn next(&mut self, state: &State) -> Next {
        let (index, new) = self.steps.index(&[self.question(state)]);
        if new {
            let answer = self.ask(state);
            self.answers.push(answer);
        }
        self.answers[index]
    }

    fn question(&self, state: &State) -> u64 {
        let reign = state.current();
        let mut key = u64::from(state.record.0) << 5 | u64::from(state.wanted.0);
        key = key << 1 | u64::from(state.applied.is_some());
        let (record, barrier) = state.applied.unwrap_or((RecordId(0), 0));
        key = (key << 12 | u64::from(record.0)) << 3 | u64::from(barrier);
        for node in 0..self.nodes {
            let connected = u64::from(state.is_connected(node));
            key = (key << 3 | u64::from(reign.seen[node])) << 1 | connected;
        }
        key
    }

    fn ask(&mut self, state: &State) -> Next {
        let reign = state.current();
        let applied = state.applied.map(|(record, barrier)| Applied {
            epoch: Epoch(u64::from(state.epoch)),
            record: self.record(record).clone(),
            barrier: Lsn(u64::from(barrier)),
        });
        let flushed: BTreeMap<NodeName, Lsn> = (0..self.nodes)
            .filter(|node| state.is_connected(*node))
            .map(|node| (name(node), Lsn(u64::from(reign.seen[node]))))
            .collect();
        let wanted = &self.settings[state.wanted.index()];
        match next_step(
            self.record(state.record),
            wanted,
            applied.as_ref(),
            &flushed,
        ) {
            Step::Record(record) => Next::Record(self.intern(record)),
            Step::Apply(record) => {
                assert_eq!(
                    &record,
                    self.record(state.record),
                    "applied from the record"
                );
                Next::Apply
            }
            Step::Await { .. } => Next::Await,
            Step::Settled => Next::Settled,
        }
    }

    fn intern(&mut self, record: SyncRecord) -> RecordId {
        let index = self.known.iter().position(|known| known.record == record);
        let index = index.unwrap_or_else(|| {
            self.known.push(self.learn(record));
            self.known.len() - 1
        });
        assert!(index < 4096, "a record's number fits into 12 bits");
        RecordId(index as u16)
    }

    fn learn(&self, record: SyncRecord) -> Known {
        let id = |setting: &Setting| {
            let index = self.settings.iter().position(|other| other == setting);
            index.expect("a record holds settings of the alphabet")
        };
        let masks = || 0..1_u8 << self.nodes;
        let bits = |accepts: &dyn Fn(u8) -> bool| {
            masks()
                .filter(|mask| accepts(*mask))
                .fold(0_u32, |bits, mask| bits | 1 << mask)
        };
        let each = |promised: u8| {
            let promised = names(promised);
            record
                .settings()
                .iter()
                .all(|setting| setting.accepts(&promised).is_ok())
        };
        Known {
            settings: record
                .settings()
                .iter()
                .fold(0, |mask, setting| mask | 1 << id(setting)),
            newest: SettingId(id(record.newest()) as u8),
            accepted: bits(&|promised| record.accepts(&names(promised)).is_ok()),
            accepted_each: bits(&each),
            record,
        }
    }
}
