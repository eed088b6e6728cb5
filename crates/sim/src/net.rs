//! Who reaches whom, and how fast. The store is one more place, after the nodes.

use crate::rng::Rng;
use crate::time::{Micros, ms};

/// Directed links between places.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    places: usize,
    cut: Vec<bool>,
    /// Nodes whose messages to and from the store are slow.
    slow: Vec<bool>,
    /// Whether slow nodes' requests are slow as well, not only the answers.
    pub both_slow: bool,
    /// Nodes whose watch of the store lags.
    lagging: Vec<bool>,
    /// Of a thousand messages to and from the store, lost.
    pub store_loss: u64,
}

impl Network {
    pub(crate) fn new(nodes: usize, store_loss: u64) -> Self {
        let places = nodes + 1;
        Self {
            places,
            cut: vec![false; places * places],
            slow: vec![false; nodes],
            lagging: vec![false; nodes],
            both_slow: false,
            store_loss,
        }
    }

    pub(crate) fn store(&self) -> usize {
        self.places - 1
    }

    pub(crate) fn set(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.places + to] = cut;
    }

    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cut[from * self.places + to]
    }

    pub(crate) fn both_ways(&self, one: usize, other: usize) -> bool {
        self.is_open(one, other) && self.is_open(other, one)
    }

    pub(crate) fn heal(&mut self) {
        self.cut.fill(false);
        self.slow.fill(false);
        self.lagging.fill(false);
        self.store_loss = 0;
    }

    pub(crate) fn set_slow(&mut self, node: usize, slow: bool) {
        self.slow[node] = slow;
    }

    pub(crate) fn set_lagging(&mut self, node: usize, lagging: bool) {
        self.lagging[node] = lagging;
    }

    /// How long a change of the store takes to be seen; none if the watch loses it.
    pub(crate) fn view_delay(&self, rng: &mut Rng, node: usize, lag: Micros) -> Option<Micros> {
        let late = if self.lagging[node] {
            rng.below(lag)
        } else {
            0
        };
        self.store_delay(rng, node, true).map(|delay| delay + late)
    }

    /// How long a message between nodes takes.
    pub(crate) fn delay(rng: &mut Rng) -> Micros {
        if rng.chance(10) {
            rng.between(ms(2), ms(40))
        } else {
            rng.between(100, 900)
        }
    }

    /// How long a message to or from the store takes; none if it is lost.
    pub(crate) fn store_delay(&self, rng: &mut Rng, node: usize, answer: bool) -> Option<Micros> {
        if rng.chance(self.store_loss) {
            return None;
        }
        if self.slow[node] && (answer || self.both_slow) {
            return Some(rng.between(ms(20), ms(900)));
        }
        Some(if rng.chance(20) {
            rng.between(ms(3), ms(120))
        } else {
            rng.between(200, 3000)
        })
    }
}
