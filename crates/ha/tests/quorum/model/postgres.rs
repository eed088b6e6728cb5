//! What primaries and standbys do: write, stream, read their configuration, acknowledge.

use super::rules::Counting;
use super::state::{Reign, State};
use super::trace::Action;
use super::world::{Events, World};

impl World {
    /// The primary of `epoch` writes; its processes read their configuration.
    pub fn postgres(&self, state: &State, epoch: u8, events: &mut Events) {
        let reign = state.reign(epoch);
        let leader = usize::from(reign.leader);
        if state.wal[leader].lsn < reign.fork.lsn + self.bounds.commits[usize::from(epoch) - 1] {
            let mut after = *state;
            after.wal[leader].epoch = epoch;
            after.wal[leader].lsn += 1;
            events.push((Action::Commit { epoch }, after));
        }
        for node in 0..self.bounds.nodes {
            if reign.reads[node] != reign.file {
                let mut after = *state;
                after.reign_mut(epoch).reads[node] = reign.file;
                events.push((Action::Read { epoch, node }, after));
            }
        }
        if epoch < state.epoch && reign.file != reign.told {
            let mut after = *state;
            after.reign_mut(epoch).file = reign.told;
            events.push((Action::File { epoch }, after));
        }
    }

    pub fn streams(&self, state: &State, events: &mut Events) {
        for node in 0..self.bounds.nodes {
            let epoch = state.follows[node];
            if epoch == 0 {
                continue;
            }
            let reign = state.reign(epoch);
            let leader = usize::from(reign.leader);
            let wal = state.wal[node];
            if node == leader || !reign.running || wal.lsn >= state.wal[leader].lsn {
                continue;
            }
            let mut after = *state;
            after.wal[node].lsn = wal.lsn + 1;
            after.wal[node].epoch = state.writer(state.wal[leader], wal.lsn + 1);
            after.reign_mut(epoch).seen[node] = wal.lsn + 1;
            events.push((Action::Flush { node }, after));
        }
    }

    /// Up to where the processes of this primary would tell clients that their commits are durable, if that is beyond
    /// what it inherited: nobody sees what a primary inherited before it has written a record of its own, since
    /// promotion itself writes the first.
    pub fn released(&self, state: &State, epoch: u8) -> u8 {
        let reign = state.reign(epoch);
        let leader = usize::from(reign.leader);
        let end = state.wal[leader].lsn;
        if end <= reign.acked || end <= reign.fork.lsn {
            return 0;
        }
        if self.settings[reign.reads[leader].index()].needed == 0 {
            return end;
        }
        let mut synchronous = 0_u8;
        let mut needed = u8::MAX;
        let mut best = 0;
        for node in 0..self.bounds.nodes {
            let setting = self.settings[reign.reads[node].index()];
            if node == leader || !setting.has(node) {
                continue;
            }
            synchronous |= 1 << node;
            needed = needed.min(setting.needed);
            if self.rules.counting == Counting::AsRead {
                best = best.max(self.flushed_by(reign, setting.standbys, setting.needed, end));
            }
        }
        match self.rules.counting {
            Counting::AsRead => best,
            Counting::AsPostgres if synchronous == 0 => 0,
            Counting::AsPostgres => self.flushed_by(reign, synchronous, needed, end),
        }
    }

    /// The highest position that `needed` of the standbys have reported.
    fn flushed_by(&self, reign: &Reign, standbys: u8, needed: u8, end: u8) -> u8 {
        let mut position = end;
        while position > reign.acked.max(reign.fork.lsn) {
            let mut have = 0;
            for node in 0..self.bounds.nodes {
                have += u8::from(standbys >> node & 1 == 1 && reign.seen[node] >= position);
            }
            if have >= needed {
                return position;
            }
            position -= 1;
        }
        0
    }
}
