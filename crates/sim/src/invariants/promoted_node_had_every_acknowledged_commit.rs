//! A node that is promoted in the newest epoch has every commit that was acknowledged up to then.

use super::{Broken, Promotion};
use crate::world::World;

pub(super) fn at_promotion(world: &World, promotion: &Promotion) -> Result<(), Broken> {
    let outrun = world
        .ledger
        .promotions
        .iter()
        .any(|other| other.epoch > promotion.epoch);
    if !world.config.synchronous() || outrun {
        return Ok(());
    }
    let lost = world
        .ledger
        .acknowledged
        .iter()
        .find(|known| !world.holds(promotion.node, known));
    match lost {
        None => Ok(()),
        Some(known) => Err((
            "promoted_node_had_every_acknowledged_commit",
            format!(
                "{}, promoted in epoch {}, lacks record {}, acknowledged by {} in epoch {} at {} ms",
                world.nodes[promotion.node].name,
                promotion.epoch,
                known.index,
                world.nodes[known.node].name,
                known.epoch,
                known.at / 1000
            ),
        )),
    }
}
