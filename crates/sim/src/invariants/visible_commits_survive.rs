//! What a client could read on an opened primary is not lost later, acknowledged or not.

use super::Broken;
use crate::node::NodeId;
use crate::world::World;

pub(super) fn at_opening(world: &World, id: &NodeId) -> Result<(), Broken> {
    if !world.config.synchronous() {
        return Ok(());
    }
    let lost = world
        .ledger
        .visible
        .iter()
        .find(|known| !world.holds(*id, known));
    match lost {
        None => Ok(()),
        Some(known) => Err((
            "visible_commits_survive",
            format!(
                "{} opens without record {}, which could be read on {} since {} ms",
                world.nodes[*id].name,
                known.index,
                world.nodes[known.node].name,
                known.at / 1000
            ),
        )),
    }
}

pub(super) fn at_end(world: &World, _: &()) -> Result<(), Broken> {
    (0..world.nodes.len()).try_for_each(|id| at_opening(world, &id))
}
