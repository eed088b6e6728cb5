//! A node whose promise stands in the store takes no WAL in, and does not open as primary of that epoch.

use super::Broken;
use crate::node::NodeId;
use crate::world::World;

const NAME: &str = "promised_nodes_receive_nothing";

pub(super) fn at_arrival(world: &World, id: &NodeId) -> Result<(), Broken> {
    let name = &world.nodes[*id].name;
    match world.store.current.cluster.promises.get(name) {
        None => Ok(()),
        Some(promise) => Err((
            NAME,
            format!(
                "{name} receives WAL while its promise of epoch {} stands",
                promise.epoch
            ),
        )),
    }
}

pub(super) fn at_opening(world: &World, id: &NodeId) -> Result<(), Broken> {
    let node = &world.nodes[*id];
    let epoch = node.primary().map(|side| side.epoch);
    let promise = world.store.current.cluster.promises.get(&node.name);
    match promise.filter(|promise| Some(promise.epoch) == epoch) {
        None => Ok(()),
        Some(promise) => {
            let (name, epoch) = (&node.name, promise.epoch);
            Err((
                NAME,
                format!("{name} opens in epoch {epoch}, in which it has promised"),
            ))
        }
    }
}
