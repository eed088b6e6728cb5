//! Under a leader of ours: Patroni's nodes stream from it, count for no commit, and may be handed the leadership.
//!
//! **Invariant:** a leader of ours hands over to a node of Patroni's only in asynchronous mode: in synchronous mode
//! Patroni lets nobody lead whom the record does not name, and ours names none of its nodes.

use super::super::handover::Unfit;
use crate::state::NodeState;
use crate::types::NodeName;
use crate::view::{Cluster, Primary};

/// Whether a node of Patroni's can be handed the leadership, by what its member record says.
pub(in crate::decide) fn guest_fit(
    cluster: &Cluster,
    primary: &Primary,
    name: &NodeName,
) -> Result<(), Unfit> {
    if cluster.sync.is_some() {
        return Err(Unfit::lasting(format!(
            "{name}: its agent is Patroni's, and commits are synchronous: switch synchronous_mode off first"
        )));
    }
    if cluster.foreign.unwilling.contains(name) {
        return Err(Unfit::lasting(format!("{name} has the tag nofailover")));
    }
    let Some(member) = cluster.members.get(name) else {
        return Err(Unfit::lasting(format!("{name} is not alive")));
    };
    if member.state != NodeState::Standby || member.timeline != primary.timeline {
        return Err(Unfit::passing(format!(
            "{name} is not streaming from the primary"
        )));
    }
    let lag = primary.flushed.bytes_since(member.position);
    if lag > cluster.settings.lag_bytes_max {
        return Err(Unfit::passing(format!("{name} lags {lag} bytes behind")));
    }
    Ok(())
}
