//! Every state of a world, nearest first, and the shortest way to a loss.

use super::rules::Agent;
use super::state::State;
use super::table::Table;
use super::trace::{Action, describe};
use super::world::World;

/// What was found in a whole world.
#[derive(Debug)]
pub struct Verdict {
    pub states: usize,
    /// States in which the record holds the wanted setting only: the change comes to its end somewhere.
    pub ended: usize,
    /// The shortest way to a loss.
    pub lost: Option<String>,
}

/// What was found in many worlds, each of which stands for `weight` of its kind.
#[derive(Debug, Default)]
pub struct Sum {
    pub worlds: usize,
    pub lossy: usize,
    pub states: usize,
    /// The shortest of the ways to a loss.
    pub trace: String,
}

impl Sum {
    pub fn add(&mut self, weight: usize, verdict: Verdict) {
        self.worlds += weight;
        self.states += verdict.states;
        let Some(trace) = verdict.lost else {
            assert!(
                verdict.ended > 0,
                "no world is so small that nothing comes to its end"
            );
            return;
        };
        self.lossy += weight;
        // A leader that is alone loses by the shortest ways, but not by the most telling ones.
        let worth = |trace: &str| {
            (
                trace.is_empty(),
                trace.contains("alone"),
                trace.lines().count(),
            )
        };
        if worth(&trace) < worth(&self.trace) {
            self.trace = trace;
        }
    }

    pub fn assert_safe(&self) {
        assert_eq!(
            self.lossy, 0,
            "an acknowledged commit is lost:\n{}",
            self.trace
        );
    }
}

/// More states than this are a mistake in the bounds.
const STATES_MAX: usize = 40_000_000;

/// Visits every state that can be reached from `start`, or stops at the first loss.
pub fn explore(world: &mut World, start: State) -> Verdict {
    let verdict = search(world, start);
    if verdict.lost.is_none() {
        return verdict;
    }
    // Once more without renaming, so that the way can be read.
    world.tell_all_apart();
    search(world, start)
}

fn search(world: &mut World, start: State) -> Verdict {
    let mut seen = Table::new();
    seen.index(&start.key());
    let mut states = vec![start];
    let mut parents = vec![(0_u32, Action::Start)];
    let mut events = Vec::new();
    let mut ended = 0;
    let mut at = 0;
    while at < states.len() {
        let state = states[at];
        if let Some(loss) = loss(world, &state) {
            let trace = describe(world, &path(&states, &parents, at), &loss);
            return Verdict {
                states: states.len(),
                ended,
                lost: Some(trace),
            };
        }
        let settled = world.records.is_settled(state.record);
        ended += usize::from(settled && world.records.newest(state.record) == state.wanted);
        world.events(&state, &mut events);
        for (action, after) in &events {
            if seen.index(&after.key()).1 {
                states.push(*after);
                parents.push((at as u32, *action));
            }
        }
        at += 1;
        assert!(states.len() < STATES_MAX, "the world is bounded");
    }
    debug_assert_eq!(states.len(), seen.len());
    Verdict {
        states: states.len(),
        ended,
        lost: None,
    }
}

/// What is wrong with a state.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// These promises would be accepted, and this most advanced of them lacks a commit acknowledged in this epoch.
    Commit {
        promised: u8,
        claimant: usize,
        epoch: u8,
    },
    /// A process of the current leader counts by a setting that the record does not hold.
    Unrecorded { node: usize },
}

fn loss(world: &World, state: &State) -> Option<Loss> {
    for epoch in 1..=state.epoch {
        for claimant in 0..world.bounds.nodes {
            if state.keeps(state.wal[claimant], epoch) {
                continue;
            }
            let promised = world.not_more_advanced(state, claimant);
            if world.accepts(state.record, promised) {
                return Some(Loss::Commit {
                    promised,
                    claimant,
                    epoch,
                });
            }
        }
    }
    if world.rules.agent != Agent::Steps || world.rules.broken.is_some() {
        return None;
    }
    let reads = &state.current().reads[..world.bounds.nodes];
    let node = reads
        .iter()
        .position(|read| !world.records.holds(state.record, *read))?;
    Some(Loss::Unrecorded { node })
}

fn path(states: &[State], parents: &[(u32, Action)], last: usize) -> Vec<(Action, State)> {
    let mut path = Vec::new();
    let mut at = last;
    loop {
        path.push((parents[at].1, states[at]));
        if parents[at].1 == Action::Start {
            path.reverse();
            return path;
        }
        at = parents[at].0 as usize;
    }
}
