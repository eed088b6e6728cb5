//! Under a leader of Patroni's: an epoch for its leadership, then a standby like its others.
//!
//! **Invariant:** nobody of ours takes WAL of such a leader before the store holds an epoch of this very leadership, with
//! a lineage that names older epochs only for WAL that was found to be the same in the leader's; while its key stands,
//! nobody suspects it and nobody claims.
//! It does not know what Patroni's agents do.

use super::super::follow;
use crate::decision::{Action, Decision};
use crate::lineage::Lineage;
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, NodeView};

pub(in crate::decide) fn accompany(
    cluster: &Cluster,
    me: &NodeView,
    leader: &NodeName,
    now: Instant,
) -> Decision {
    follow::come_along(cluster, me, leader, now)
}

/// Whether no agent of Patroni's is here, leads or has led last.
pub(in crate::decide) fn are_none(cluster: &Cluster) -> bool {
    let foreign = &cluster.foreign;
    !foreign.leads && !foreign.recorded && foreign.members.is_empty()
}

/// Whether no epoch stands for the leadership yet.
pub(in crate::decide) fn is_unknown(cluster: &Cluster) -> bool {
    cluster.foreign.leads && !cluster.foreign.recorded
}

/// The lineage of the leader that there is. What the store has of an epoch before is another's.
pub(in crate::decide) fn known_lineage(cluster: &Cluster) -> Option<&Lineage> {
    cluster.published_lineage().filter(|_| !is_unknown(cluster))
}

/// By a node whose own WAL is at rest: it is compared with the leader's.
pub(in crate::decide) fn recognize(cluster: &Cluster, leader: &NodeName) -> Decision {
    let epoch = cluster.current_epoch().next();
    let reason = format!(
        "{leader} leads without an epoch, its agent is Patroni's: recording epoch {epoch} on its behalf"
    );
    let leader = leader.clone();
    Decision::act("recognize", Action::Recognize { leader, epoch }, reason)
}
