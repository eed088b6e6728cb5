//! What the current leader's agent does: by `ha::quorum`, or by a naive order.

use super::records::{Next, RecordId};
use super::rules::{Break, Op};
use super::state::{SettingId, State};
use super::trace::Action;
use super::world::{Events, World};

impl World {
    /// The current leader's agent, with a job that applies settings beside it. Either may be cut off at any time.
    pub fn steps(&mut self, state: &State, events: &mut Events) {
        let next = self.records.next(state);
        match next {
            Next::Record(record) => events.push((Action::Store, stored(state, record))),
            Next::Apply if state.applying.is_none() => {
                let mut after = *state;
                after.applying = Some(state.record);
                after.reign_mut(state.epoch).file = self.records.newest(state.record);
                if !self.rules.broken(Break::AppliedKeptWhileApplying) {
                    after.applied = None;
                }
                events.push((Action::File { epoch: state.epoch }, after));
            }
            Next::Await if self.rules.broken(Break::BarrierNotAwaited) => {
                let record = self.records.of(state.wanted);
                events.push((Action::Store, stored(state, record)));
            }
            Next::Apply | Next::Await | Next::Settled => {}
        }
        if let Some(record) = state.applying {
            if self.all_have_read(state, self.records.newest(record)) {
                let mut after = *state;
                after.applied = Some((record, flushed(state)));
                after.applying = None;
                events.push((Action::Applied, after));
            }
            let mut after = *state;
            after.applying = None;
            events.push((Action::Abandon, after));
        }
        if state.applied.is_some() {
            let mut after = *state;
            after.applied = None;
            after.applying = None;
            events.push((Action::Forget, after));
        }
    }

    fn all_have_read(&self, state: &State, setting: SettingId) -> bool {
        let reign = state.current();
        let overlooked = self.rules.broken(Break::CheckpointerOverlooked);
        (0..self.bounds.nodes).all(|node| {
            let checkpointer = node == usize::from(reign.leader);
            reign.reads[node] == setting || checkpointer && overlooked
        })
    }

    pub fn naive(&mut self, state: &State, ops: &[Op], events: &mut Events) {
        let Some(op) = ops.get(usize::from(state.done)) else {
            return;
        };
        let mut after = State {
            done: state.done + 1,
            ..*state
        };
        let action = match op {
            Op::StoreJoint => {
                after.record = self.records.joined(state.record, state.wanted);
                Action::Store
            }
            Op::StoreNew => {
                after.record = self.records.of(state.wanted);
                Action::Store
            }
            Op::Postgres => {
                after.reign_mut(state.epoch).file = state.wanted;
                Action::File { epoch: state.epoch }
            }
            Op::AwaitReaders if !self.all_have_read(state, state.wanted) => return,
            Op::AwaitReaders => Action::AllHaveRead,
            Op::TakeBarrier => {
                after.applied = Some((state.record, flushed(state)));
                Action::Applied
            }
            Op::AwaitBarrier => {
                let barrier = state.applied.map_or(0, |(_, barrier)| barrier);
                let setting = self.settings[state.wanted.index()];
                let seen = &state.current().seen;
                let past = |node: &usize| setting.has(*node) && seen[*node] >= barrier;
                if (0..self.bounds.nodes).filter(past).count() < usize::from(setting.needed) {
                    return;
                }
                Action::BarrierPassed
            }
        };
        events.push((action, after));
    }

    /// The leader wants something else.
    pub fn changes(&self, state: &State, events: &mut Events) {
        let leader = usize::from(state.current().leader);
        for (index, setting) in self.settings.iter().enumerate() {
            let id = SettingId(index as u8);
            if setting.leader == leader && id != state.wanted {
                let changes_left = state.changes_left - 1;
                events.push((
                    Action::Want,
                    State {
                        wanted: id,
                        changes_left,
                        ..*state
                    },
                ));
            }
        }
    }
}

fn stored(state: &State, record: RecordId) -> State {
    State { record, ..*state }
}

/// The flush position of the current leader.
fn flushed(state: &State) -> u8 {
    state.wal[usize::from(state.current().leader)].lsn
}
