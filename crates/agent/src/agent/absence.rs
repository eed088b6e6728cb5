//! For how long members have been away, and whose slots are kept no longer for that (`member_slots_ttl`).
//!
//! **Invariant:** without the setting a node's slot stays as long as the node belongs to the cluster.
//! A new agent counts anew.

use ha::{Cluster, Instant, NodeName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Absence {
    since: BTreeMap<NodeName, Instant>,
}

impl Absence {
    /// Those that have been away for longer than `limit`.
    pub(super) fn look(
        &mut self,
        cluster: &Cluster,
        limit: Option<Duration>,
        at: Instant,
    ) -> BTreeSet<NodeName> {
        let away = |name: &NodeName| !cluster.members.contains_key(name);
        self.since.retain(|name, _| away(name));
        for name in cluster.nodes.keys().filter(|name| away(name)) {
            self.since.entry(name.clone()).or_insert(at);
        }
        let Some(limit) = limit else {
            return BTreeSet::new();
        };
        let long = self
            .since
            .iter()
            .filter(|(_, since)| at.since(**since) > limit);
        long.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::NodeRecord;

    /// Patroni: Configuration | `member_slots_ttl` | works where it is set; without it a node's slot stays as long as the
    ///   node belongs to the cluster, and keeps no more than `max_slot_wal_keep_size`
    #[test]
    fn a_slot_goes_when_its_member_has_been_away_for_too_long() {
        let b = NodeName::new("b").expect("a plain name");
        let mut cluster = Cluster::default();
        cluster.nodes.insert(b.clone(), NodeRecord::default());
        let at = |seconds| Instant::default().plus(Duration::from_secs(seconds));
        let limit = Some(Duration::from_secs(30));
        let mut absence = Absence::default();
        assert!(absence.look(&cluster, limit, at(10)).is_empty());
        assert!(absence.look(&cluster, limit, at(40)).is_empty());
        assert!(absence.look(&cluster, None, at(41)).is_empty());
        assert_eq!(absence.look(&cluster, limit, at(41)), [b.clone()].into());
        let giving = crate::shell::Giving::Office(ha::Epoch(3));
        let me = NodeName::new("a").expect("a plain name");
        let kept = |absent: &BTreeSet<NodeName>| {
            let slots = crate::shell::slots(&me, &cluster, giving, absent, BTreeMap::new());
            slots.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(kept(&BTreeSet::new()), ["b", "b_e3"]);
        assert!(kept(&[b].into()).is_empty());
        cluster.nodes.clear();
        assert!(absence.look(&cluster, limit, at(99)).len() < 2);
    }
}
