//! One world: everything that can happen next, and what comes of it.
//!
//! Two liberties make the world smaller without hiding a loss:
//! - a commit is acknowledged in the very event that makes it possible, since nothing else depends on it;
//! - a promise is written in the very event of the claim that counts it, since to have stopped streaming earlier is
//!   the same as not to have streamed for a while.

use super::records::Records;
use super::rules::{Agent, Bounds, Rules};
use super::settings::Compact;
use super::state::{NODES, Reign, SettingId, State};
use super::trace::Action;

#[derive(Debug)]
pub struct World {
    pub rules: Rules,
    pub bounds: Bounds,
    pub settings: Vec<Compact>,
    pub records: Records,
    /// Nodes that no setting tells apart.
    classes: Vec<Vec<usize>>,
}

/// What can happen, and the state after it.
pub(super) type Events = Vec<(Action, State)>;

impl World {
    /// A world in which leaders choose among `settings`.
    pub fn new(rules: Rules, bounds: Bounds, settings: Vec<Compact>) -> Self {
        assert!(
            settings.len() <= 32,
            "a setting's number fits into five bits"
        );
        let records = Records::new(bounds.nodes, &settings);
        let mut world = Self {
            rules,
            bounds,
            settings,
            records,
            classes: Vec::new(),
        };
        world.classes = world.indistinct();
        world
    }

    /// The first leader's setting is the first; it wants the second, if it is not free to choose.
    pub fn start(&mut self, wanted: usize) -> State {
        let first = SettingId(0);
        let record = self.records.of(first);
        let mut state = State::founded(self.settings[0].leader, first, record);
        for node in self.bounds.nodes..NODES {
            state.follows[node] = 0;
        }
        state.wanted = SettingId(wanted as u8);
        state.changes_left = self.bounds.changes[0];
        self.settled(state)
    }

    /// The same world, which calls every node by its own name.
    pub fn tell_all_apart(&mut self) {
        self.classes.clear();
    }

    fn indistinct(&self) -> Vec<Vec<usize>> {
        let leads = |node| self.settings.iter().any(|setting| setting.leader == node);
        let alike = |one, other| {
            self.settings
                .iter()
                .all(|setting| setting.has(one) == setting.has(other))
        };
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for node in (0..self.bounds.nodes).filter(|node| !leads(*node)) {
            match classes.iter_mut().find(|class| alike(class[0], node)) {
                Some(class) => class.push(node),
                None => classes.push(vec![node]),
            }
        }
        classes.retain(|class| class.len() > 1);
        classes
    }

    /// Everything that can happen in `state`, and what comes of it.
    pub fn events(&mut self, state: &State, events: &mut Events) {
        events.clear();
        for epoch in 1..=state.epoch {
            if state.reign(epoch).running {
                self.postgres(state, epoch, events);
            }
        }
        self.streams(state, events);
        match self.rules.agent {
            Agent::Steps => self.steps(state, events),
            Agent::Naive(ops) => self.naive(state, ops, events),
        }
        if state.changes_left > 0 {
            self.changes(state, events);
        }
        if state.epoch < self.bounds.reigns {
            self.claims(state, events);
        }
        if state.epoch > 1 {
            self.follows(state, events);
        }
        for (_, after) in events.iter_mut() {
            *after = self.settled(*after);
        }
    }

    /// Acknowledges what can be; forgets what can't matter any more; nodes that nothing tells apart in one order.
    fn settled(&self, mut state: State) -> State {
        for epoch in 1..=state.epoch {
            if state.reign(epoch).running {
                let acked = self.released(&state, epoch);
                let reign = state.reign_mut(epoch);
                reign.acked = reign.acked.max(acked);
            }
            self.forget_what_is_over(&mut state, epoch);
        }
        for class in &self.classes {
            for end in 1..class.len() {
                let mut at = end;
                while at > 0 && state.node_key(class[at - 1]) > state.node_key(class[at]) {
                    state.swap(class[at - 1], class[at]);
                    at -= 1;
                }
            }
        }
        state
    }

    /// A superseded primary that has acknowledged all it can ever write: how it would count is of no consequence.
    fn forget_what_is_over(&self, state: &mut State, epoch: u8) {
        let reign = state.reign(epoch);
        let last = reign.fork.lsn + self.bounds.commits[usize::from(epoch) - 1];
        if epoch < state.epoch && reign.acked == last {
            forget_processes(state.reign_mut(epoch));
        }
    }
}

/// Nothing depends any more on what the processes of this primary have read.
pub(super) fn forget_processes(reign: &mut Reign) {
    reign.file = SettingId(0);
    reign.told = SettingId(0);
    reign.reads = [SettingId(0); NODES];
    reign.seen = [0; NODES];
}
