//! Every acknowledged commit is in the WAL of the newest epoch's primary, and at the end in everybody's.

use super::{Broken, Known};
use crate::node::NodeId;
use crate::world::World;

const NAME: &str = "acknowledged_commits_survive";

pub(super) fn at_acknowledgement(world: &World, known: &Known) -> Result<(), Broken> {
    match world.newest_primary() {
        Some(newest) if newest.epoch > known.epoch && !world.holds(newest.node, known) => {
            let text = format!(
                "{} acknowledges record {} of epoch {}, which {}, primary of epoch {}, does not have",
                world.nodes[known.node].name,
                known.index,
                known.epoch,
                world.nodes[newest.node].name,
                newest.epoch
            );
            count_or_fail(world, text)
        }
        Some(_) | None => Ok(()),
    }
}

/// A primary that the next claim has overtaken may still open: it can acknowledge nothing.
pub(super) fn at_opening(world: &World, id: &NodeId) -> Result<(), Broken> {
    if world
        .newest_primary()
        .is_none_or(|newest| newest.node != *id)
    {
        return Ok(());
    }
    all_in(world, *id)
}

pub(super) fn at_end(world: &World, _: &()) -> Result<(), Broken> {
    (0..world.nodes.len()).try_for_each(|id| all_in(world, id))
}

fn all_in(world: &World, id: NodeId) -> Result<(), Broken> {
    let lost = world
        .ledger
        .acknowledged
        .iter()
        .find(|known| !world.holds(id, known));
    match lost {
        None => Ok(()),
        Some(known) => count_or_fail(
            world,
            format!(
                "{} does not have record {}, acknowledged by {} in epoch {} at {} ms",
                world.nodes[id].name,
                known.index,
                world.nodes[known.node].name,
                known.epoch,
                known.at / 1000
            ),
        ),
    }
}

/// Asynchronous commits may be lost; they are counted at the promotion that loses them.
fn count_or_fail(world: &World, text: String) -> Result<(), Broken> {
    if world.config.synchronous() {
        Err((NAME, text))
    } else {
        Ok(())
    }
}
