//! Which replication slots a node holds.

use ha::{Cluster, Epoch, Lsn, NodeName};
use std::collections::BTreeMap;

/// The slots that a node holds: for every other node one that keeps the WAL which that node still lacks, wherever it
/// will stream from next, and on the leader the one that it streams by in this epoch.
pub(crate) fn slots(
    me: &NodeName,
    cluster: &Cluster,
    in_office: Option<Epoch>,
) -> BTreeMap<String, Option<Lsn>> {
    let mut slots = BTreeMap::new();
    for (name, _) in cluster
        .nodes
        .iter()
        .filter(|(name, node)| *name != me && !node.dropped)
    {
        let position = cluster.members.get(name).map(|member| member.position);
        slots.insert(name.slot(), position.filter(|lsn| *lsn > Lsn::ZERO));
        if let Some(epoch) = in_office {
            slots.insert(name.slot_of_epoch(epoch), None);
        }
    }
    slots
}
