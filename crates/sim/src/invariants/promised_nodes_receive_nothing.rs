//! A node whose promise stands in the store takes no WAL in.

use super::Broken;
use crate::node::NodeId;
use crate::world::World;

pub(super) fn at_arrival(world: &World, id: &NodeId) -> Result<(), Broken> {
    let name = &world.nodes[*id].name;
    match world.store.current.cluster.promises.get(name) {
        None => Ok(()),
        Some(promise) => Err((
            "promised_nodes_receive_nothing",
            format!(
                "{name} receives WAL while its promise of epoch {} stands",
                promise.epoch
            ),
        )),
    }
}
