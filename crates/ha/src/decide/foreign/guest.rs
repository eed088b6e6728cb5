//! Under a leader of Patroni's: an epoch for its leadership, then a standby like its others.
//!
//! **Invariant:** nobody of ours takes WAL of such a leader before the store holds an epoch of this very leadership, with
//! the lineage that its history shows; while its key stands, nobody suspects it and nobody claims.
//! It does not know what Patroni's agents do.

use super::super::follow;
use crate::decision::{Action, Decision};
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, NodeView};

pub(in crate::decide) fn accompany(
    cluster: &Cluster,
    me: &NodeView,
    leader: &NodeName,
    now: Instant,
) -> Decision {
    if cluster.foreign.recorded {
        return follow::come_along(cluster, me, leader, now);
    }
    let epoch = cluster.current_epoch().next();
    let reason = format!(
        "{leader} leads without an epoch, its agent is Patroni's: recording epoch {epoch} on its behalf"
    );
    let leader = leader.clone();
    Decision::act("recognize", Action::Recognize { leader, epoch }, reason)
}
