//! Who knows that the cluster is paused, claims only if it was the last leader, or if a change was ordered.

use super::Broken;
use crate::node::NodeId;
use crate::world::World;

pub(super) fn at_claim(world: &World, id: &NodeId) -> Result<(), Broken> {
    let node = &world.nodes[*id];
    let seen = &node.agent.snapshot.cluster;
    let led = seen
        .epoch
        .as_ref()
        .is_some_and(|last| last.leader == node.name);
    if !seen.settings.paused || seen.switchover.is_some() || led {
        return Ok(());
    }
    let text = format!(
        "{} claims after epoch {}, and the cluster is paused",
        node.name,
        seen.current_epoch()
    );
    Err(("a_paused_cluster_keeps_its_leader", text))
}
