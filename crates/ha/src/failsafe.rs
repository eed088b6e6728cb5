//! Staying in office without the store: the members hold still instead.
//!
//! Patroni's `failsafe_mode`, with the rule of our promises. A primary that can't renew its lease asks the members. A
//! member that says yes neither promises nor claims for a time to live from then on, so the primary may stay for a
//! little less than that, counted from when it asked.
//!
//! **Invariant:** while enough members hold, no claim can be proven; whoever has promised for this epoch, or may have,
//! does not hold.
//!
//! It asks nobody and knows no clock but the one it is given.

use crate::types::{Epoch, Instant, NodeName};
use crate::view::Cluster;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A member's word to the primary of `epoch`: no promise and no claim before `until`, by the member's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub epoch: Epoch,
    pub until: Instant,
}

impl Hold {
    /// Whether it binds, in a cluster whose newest epoch is `current`: a newer leadership has ended it.
    pub fn binds(&self, current: Epoch, now: Instant) -> bool {
        self.epoch >= current && now < self.until
    }
}

/// Whose word the primary needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holders {
    /// That of everybody who might lead: commits are asynchronous, or their setting is about to change.
    All(BTreeSet<NodeName>),
    /// That of `needed` of the synchronous standbys that stream: as many as every commit needs. The others are too few
    /// to prove that nothing was acknowledged without them.
    Of {
        needed: usize,
        standbys: BTreeSet<NodeName>,
    },
}

impl Holders {
    /// Who is asked.
    pub fn asked(&self) -> &BTreeSet<NodeName> {
        match self {
            Self::All(names)
            | Self::Of {
                standbys: names, ..
            } => names,
        }
    }

    /// Whether these are enough.
    pub fn met_by(&self, holding: &BTreeSet<NodeName>) -> bool {
        match self {
            Self::All(names) => names.is_subset(holding),
            Self::Of { needed, standbys } => standbys.intersection(holding).count() >= *needed,
        }
    }
}

/// Whose word `me`, the leader, needs while the store is silent; none where the mode is not on. `streaming` are the
/// standbys that its Postgres sees.
///
/// Nodes that `failsafe` does not list do not lead under asynchronous commits before one that it lists has promised,
/// so nobody is forgotten.
pub fn holders(
    cluster: &Cluster,
    me: &NodeName,
    streaming: &BTreeSet<NodeName>,
) -> Option<Holders> {
    let listed = cluster.failsafe.as_ref()?;
    let settled = cluster.sync.as_ref().filter(|record| {
        let newest = record.newest();
        record.is_settled() && newest.leader == *me && !newest.is_alone()
    });
    if let Some(record) = settled {
        let newest = record.newest();
        return Some(Holders::Of {
            needed: newest.needed,
            standbys: newest.standbys.intersection(streaming).cloned().collect(),
        });
    }
    let named = cluster.sync.iter().flat_map(|record| record.settings());
    let named = named.flat_map(|setting| setting.standbys.iter().chain([&setting.leader]));
    let everybody = listed.keys().chain(named).filter(|name| *name != me);
    Some(Holders::All(everybody.cloned().collect()))
}

/// Whose promises show that the last leader can't be in office by its members' word, where commits are asynchronous.
/// A node that it would have asked needs nobody's: its own word is missing. For any other one of those must have
/// promised, or the last leader itself. None: nobody has.
pub(crate) fn vouchers<'a>(
    cluster: &Cluster,
    name: &NodeName,
    promised: impl Iterator<Item = &'a NodeName>,
) -> Option<BTreeSet<NodeName>> {
    let Some(listed) = &cluster.failsafe else {
        return Some(BTreeSet::new());
    };
    if listed.contains_key(name) {
        return Some(BTreeSet::new());
    }
    let last = cluster.epoch.as_ref().map(|leadership| &leadership.leader);
    let vouches = |name: &&NodeName| listed.contains_key(*name) || last == Some(*name);
    let vouchers: BTreeSet<NodeName> = promised.filter(vouches).cloned().collect();
    (!vouchers.is_empty()).then_some(vouchers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::{Setting, SyncRecord};

    fn name(text: &str) -> NodeName {
        NodeName::new(text).expect("a plain name")
    }

    fn names(text: &str) -> BTreeSet<NodeName> {
        text.split_whitespace().map(name).collect()
    }

    fn cluster(listed: &str, settings: Vec<Setting>) -> Cluster {
        let url = |name| (name, String::new());
        Cluster {
            failsafe: Some(names(listed).into_iter().map(url).collect()),
            sync: SyncRecord::from_settings(settings),
            ..Cluster::default()
        }
    }

    fn quorum(leader: &str, standbys: &str, needed: usize) -> Setting {
        Setting::quorum(name(leader), names(standbys), needed)
    }

    /// Every set of members that is enough leaves too few for the proof of a claim.
    #[test]
    fn whoever_does_not_hold_can_prove_nothing() {
        let every = names("b c d e");
        for needed in 1..=4 {
            for settings in [
                vec![quorum("a", "b c d e", needed)],
                vec![
                    quorum("a", "b c d e", needed),
                    quorum("a", "b c", needed.min(2)),
                ],
                vec![quorum("d", "a b c", 1), quorum("a", "b c d e", needed)],
            ] {
                let cluster = cluster("a b c d", settings);
                let asked = holders(&cluster, &name("a"), &every).expect("the mode is on");
                for bits in 0..16_u32 {
                    let picked = every.iter().enumerate();
                    let (holding, free): (Vec<_>, Vec<_>) =
                        picked.partition(|(place, _)| bits & (1 << place) != 0);
                    let set = |them: Vec<(usize, &NodeName)>| -> BTreeSet<NodeName> {
                        them.into_iter().map(|(_, name)| name.clone()).collect()
                    };
                    let (holding, free) = (set(holding), set(free));
                    let record = cluster.sync.as_ref().expect("synchronous");
                    if asked.met_by(&holding) {
                        assert!(
                            record.accepts(&free).is_err(),
                            "{record:?}: {holding:?} hold"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn one_lost_standby_of_two_does_not_end_the_office() {
        let cluster = cluster("a b c", vec![quorum("a", "b c", 1)]);
        let asked = holders(&cluster, &name("a"), &names("b")).expect("the mode is on");
        assert!(asked.met_by(&names("b")));
        let alone = holders(&cluster, &name("a"), &names("")).expect("the mode is on");
        assert!(
            !alone.met_by(&names("b c")),
            "a standby that does not stream acknowledges nothing"
        );
    }

    #[test]
    fn asynchronous_commits_need_everybody() {
        let cluster = cluster("a b c", Vec::new());
        let asked = holders(&cluster, &name("a"), &names("b c")).expect("the mode is on");
        assert!(asked.met_by(&names("b c")));
        assert!(!asked.met_by(&names("b")));
        assert_eq!(
            holders(&Cluster::default(), &name("a"), &names("b c")),
            None
        );
    }

    #[test]
    fn a_newer_leadership_ends_a_hold() {
        let hold = Hold {
            epoch: Epoch(3),
            until: Instant(10),
        };
        assert!(hold.binds(Epoch(3), Instant(9)));
        assert!(!hold.binds(Epoch(3), Instant(10)));
        assert!(!hold.binds(Epoch(4), Instant(9)));
    }
}
