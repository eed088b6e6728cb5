//! Which replication slots a node holds.

use ha::{Cluster, Epoch, Lsn, Member, NodeName, NodeState};
use std::collections::{BTreeMap, BTreeSet};
use store::Snapshot;
use store::layout::{ConfigRecord, Keys, StatusRecord};

/// Whom a node gives WAL to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Giving {
    Nobody,
    /// The leader of this epoch: every standby.
    Office(Epoch),
    /// A standby of this epoch's leader: those whose tags name it.
    Onward(Epoch),
}

/// The slots that a node holds: for every other node one that keeps the WAL which that node still lacks, wherever it
/// will stream from next, for whom it gives WAL to the one that is streamed by in this epoch, and the permanent ones. A
/// node of Patroni's streams by the first. For those that are `absent` for too long nothing is kept.
pub(crate) fn slots(
    me: &NodeName,
    cluster: &Cluster,
    giving: Giving,
    absent: &BTreeSet<NodeName>,
    permanent: BTreeMap<String, Option<Lsn>>,
) -> BTreeMap<String, Option<Lsn>> {
    // A member's slot of the same name is the member's.
    let mut slots = permanent;
    for (name, _) in cluster
        .nodes
        .iter()
        .filter(|(name, node)| *name != me && !node.dropped && !absent.contains(*name))
    {
        let position = cluster.members.get(name).map(|member| member.position);
        slots.insert(name.slot(), position.filter(|lsn| *lsn > Lsn::ZERO));
        let source = cluster.members.get(name);
        if source.is_some_and(fed_by_archive) {
            slots.remove(&name.slot());
            continue;
        }
        let source = source.and_then(|member| member.ties.source.as_ref());
        match giving {
            // Where it streams from another, what it needs here when that is gone moves on with it.
            Giving::Office(epoch) => {
                let round = source.and(position);
                slots.insert(name.slot_of_epoch(epoch), round);
            }
            Giving::Onward(epoch) if source == Some(me) => {
                slots.insert(name.slot_of_epoch(epoch), None);
            }
            Giving::Onward(_) | Giving::Nobody => {}
        }
    }
    for name in cluster.foreign.members.iter().filter(|name| *name != me) {
        let position = cluster.members.get(name).map(|member| member.position);
        slots.insert(name.slot(), position.filter(|lsn| *lsn > Lsn::ZERO));
    }
    slots
}

/// One that has its data and takes all else from the archive needs no WAL kept.
fn fed_by_archive(member: &Member) -> bool {
    let open = matches!(member.state, NodeState::Standby | NodeState::CatchingUp);
    member.ties.nostream && open
}

/// The permanent slots of the cluster's configuration. On a standby each follows the leader's, so that whoever is
/// promoted has what its reader lacks; the leader's own moves as its reader does.
pub(crate) fn permanent(
    keys: &Keys,
    snapshot: &Snapshot,
    leads: bool,
) -> BTreeMap<String, Option<Lsn>> {
    let config = snapshot.value(&keys.config());
    let config = config.and_then(|text| serde_json::from_str::<ConfigRecord>(text).ok());
    let physical = config.map_or_else(Default::default, |config| config.permanent_slots().physical);
    if physical.is_empty() {
        return BTreeMap::new();
    }
    let status = snapshot.value(&keys.status());
    let status = status.and_then(|text| serde_json::from_str::<StatusRecord>(text).ok());
    let positions = status.unwrap_or_default().slots;
    let at = |name: &String| positions.get(name).copied().filter(|_| !leads);
    physical
        .into_iter()
        .map(|name| (name.clone(), at(&name)))
        .collect()
}
