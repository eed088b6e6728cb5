//! Settings over nodes that are numbers, and which changes between them are one and the same under renaming.
//!
//! Node 0 is `a`, node 1 is `b`, and so on. A set of nodes is a mask.

use ha::NodeName;
use ha::quorum::Setting;
use std::collections::{BTreeMap, BTreeSet};

/// [`Setting`], small enough to be compared a million times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Compact {
    pub leader: usize,
    pub standbys: u8,
    pub needed: u8,
}

impl Compact {
    pub fn setting(&self) -> Setting {
        let standbys = names(self.standbys);
        Setting::quorum(name(self.leader), standbys, usize::from(self.needed))
    }

    pub fn has(&self, node: usize) -> bool {
        self.standbys >> node & 1 == 1
    }
}

pub(super) fn name(node: usize) -> NodeName {
    NodeName::new(["a", "b", "c", "d", "e"][node]).expect("a letter is a node name")
}

pub(super) fn names(mask: u8) -> BTreeSet<NodeName> {
    (0..8)
        .filter(|node| mask >> node & 1 == 1)
        .map(name)
        .collect()
}

/// Every setting of `leader` among `nodes` nodes: alone, and each k of each set of the others.
pub fn all_settings(leader: usize, nodes: usize) -> Vec<Compact> {
    let others = (0..1_u8 << nodes).filter(|mask| mask >> leader & 1 == 0);
    let settings = others.flat_map(|standbys| {
        let most = standbys.count_ones() as u8;
        (most.min(1)..=most).map(move |needed| Compact {
            leader,
            standbys,
            needed,
        })
    });
    settings.collect()
}

/// A change that stands for `weight` changes which differ only in the names of the standbys.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub from: Compact,
    pub to: Compact,
    pub weight: usize,
}

/// Every change between two settings of node 0 with `standbys` standbys, one for each kind.
pub fn pairs(standbys: usize) -> Vec<Pair> {
    let settings = all_settings(0, standbys + 1);
    let mut kinds: BTreeMap<[u32; 5], Pair> = BTreeMap::new();
    for from in &settings {
        for to in settings.iter().filter(|to| *to != from) {
            let kind = [
                (from.standbys & to.standbys).count_ones(),
                (from.standbys & !to.standbys).count_ones(),
                (to.standbys & !from.standbys).count_ones(),
                u32::from(from.needed),
                u32::from(to.needed),
            ];
            let first = Pair {
                from: *from,
                to: *to,
                weight: 0,
            };
            kinds.entry(kind).or_insert(first).weight += 1;
        }
    }
    kinds.into_values().collect()
}

/// Every three different settings of node 0, of which the first is in force; one for each kind.
/// The order of the other two does not matter: either may be wanted first.
pub fn triples(standbys: usize) -> Vec<[Compact; 3]> {
    let settings = all_settings(0, standbys + 1);
    let mut kinds: BTreeMap<[u32; 10], [Compact; 3]> = BTreeMap::new();
    for first in &settings {
        for (index, second) in settings
            .iter()
            .enumerate()
            .filter(|(_, other)| *other != first)
        {
            for third in settings[index + 1..].iter().filter(|other| *other != first) {
                let triple = [*first, *second, *third];
                let mut kind = [0; 10];
                for node in 1..=standbys {
                    let region = triple.map(|setting| usize::from(setting.has(node)));
                    kind[region[0] + 2 * region[1] + 4 * region[2]] += 1;
                }
                kind[0] = u32::from(first.needed);
                kind[8] = u32::from(second.needed);
                kind[9] = u32::from(third.needed);
                kinds.entry(kind).or_insert(triple);
            }
        }
    }
    kinds.into_values().collect()
}
