//! How leaderships change: promises, claims, and nodes that turn to the new leader.

use super::records::RecordId;
use super::rules::Break;
use super::state::{NODES, Reign, SettingId, State};
use super::trace::Action;
use super::world::{Events, World, forget_processes};

impl World {
    pub fn claims(&mut self, state: &State, events: &mut Events) {
        for claimant in 0..self.bounds.nodes {
            let rivals = self.not_more_advanced(state, claimant);
            let smallest = |world: &Self, promised: u8| {
                let without = (0..world.bounds.nodes)
                    .filter(|node| *node != claimant && promised >> node & 1 == 1)
                    .map(|node| promised & !(1 << node));
                world.accepts(state.record, promised)
                    && without
                        .into_iter()
                        .all(|fewer| !world.accepts(state.record, fewer))
            };
            for promised in 0..1_u8 << self.bounds.nodes {
                let fits = promised >> claimant & 1 == 1 && promised & !rivals == 0;
                if fits && smallest(self, promised) {
                    self.claim(state, claimant, promised, events);
                }
            }
        }
    }

    fn claim(&mut self, state: &State, claimant: usize, promised: u8, events: &mut Events) {
        for index in 0..self.settings.len() {
            if self.settings[index].leader != claimant {
                continue;
            }
            let setting = SettingId(index as u8);
            let mut after = *state;
            after.reign_mut(state.epoch).told = self.records.newest(state.record);
            for node in (0..self.bounds.nodes).filter(|node| promised >> node & 1 == 1) {
                stop(&mut after, node);
            }
            after.epoch += 1;
            after.reigns[usize::from(after.epoch) - 1] = Reign {
                leader: claimant as u8,
                running: true,
                fork: state.wal[claimant],
                acked: 0,
                file: setting,
                told: setting,
                reads: [setting; NODES],
                seen: [0; NODES],
            };
            after.follows[claimant] = after.epoch;
            after.record = if self.rules.broken(Break::ClaimReplacesTheRecord) {
                self.records.of(setting)
            } else {
                self.records.joined(state.record, setting)
            };
            after.wanted = setting;
            after.applied = None;
            after.applying = None;
            after.changes_left = self.bounds.changes[usize::from(after.epoch) - 1];
            events.push((Action::Claim { claimant, promised }, after));
        }
    }

    /// A node turns to the current leader; what it has beyond the fork is removed. A zombie is stopped first.
    pub fn follows(&self, state: &State, events: &mut Events) {
        let reign = state.current();
        let leader = usize::from(reign.leader);
        for node in (0..self.bounds.nodes).filter(|node| *node != leader) {
            if state.follows[node] == state.epoch {
                continue;
            }
            let mut after = *state;
            stop(&mut after, node);
            after.wal[node] = state.common(state.wal[node], state.wal[leader]);
            after.follows[node] = state.epoch;
            let lsn = after.wal[node].lsn;
            let current = after.reign_mut(state.epoch);
            current.seen[node] = lsn;
            current.reads[node] = reign.file;
            events.push((Action::Follow { node }, after));
        }
    }

    pub fn accepts(&self, record: RecordId, promised: u8) -> bool {
        if self.rules.broken(Break::EachSettingByItself) {
            self.records.each_accepts(record, promised)
        } else {
            self.records.accepts(record, promised)
        }
    }

    /// The nodes whose promises leave `claimant` the most advanced.
    pub fn not_more_advanced(&self, state: &State, claimant: usize) -> u8 {
        let any = self.rules.broken(Break::ClaimantNotTheMostAdvanced);
        let mut mask = 0;
        for node in 0..self.bounds.nodes {
            mask |= u8::from(any || state.wal[node] <= state.wal[claimant]) << node;
        }
        mask
    }
}

/// The node neither streams nor leads any more. Of a primary that is gone only what it acknowledged remains.
fn stop(state: &mut State, node: usize) {
    state.follows[node] = 0;
    for reign in &mut state.reigns {
        if reign.running && usize::from(reign.leader) == node {
            reign.running = false;
            forget_processes(reign);
        }
    }
}
