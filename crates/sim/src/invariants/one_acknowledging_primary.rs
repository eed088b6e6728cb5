//! Nobody acknowledges a commit that began after a later epoch's primary acknowledged one.
//!
//! An answer on its way may be late: a commit that the new primary has, or that began before, is no second voice.
//! In asynchronous mode this rests on the lease alone; a machine that thaws has a moment before its guard runs.

use super::{Broken, Known};
use crate::time::ms;
use crate::world::World;

pub(super) fn at_acknowledgement(world: &World, known: &Known) -> Result<(), Broken> {
    let thawed = world.nodes[known.node].thawed;
    let thawing = thawed > 0 && world.now < thawed + ms(80);
    if !world.config.synchronous() && thawing {
        return Ok(());
    }
    let later = world
        .ledger
        .acknowledged
        .iter()
        .rev()
        .take(50)
        .find(|other| other.epoch > known.epoch && other.at < known.begun);
    match later {
        None => Ok(()),
        Some(other) => Err((
            "one_acknowledging_primary",
            format!(
                "{} acknowledges in epoch {}, after {} has in epoch {}",
                world.nodes[known.node].name,
                known.epoch,
                world.nodes[other.node].name,
                other.epoch
            ),
        )),
    }
}
