//! A node whose promise stands in the store takes no WAL in, and is not promoted in that epoch.

use super::{Broken, Promotion};
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

pub(super) fn at_promotion(world: &World, promotion: &Promotion) -> Result<(), Broken> {
    let name = &world.nodes[promotion.node].name;
    let promise = world.store.current.cluster.promises.get(name);
    if promise.is_some_and(|promise| promise.epoch == promotion.epoch) {
        let text = format!(
            "{name} is promoted in epoch {}, in which it has promised",
            promotion.epoch
        );
        return Err((NAME, text));
    }
    Ok(())
}
