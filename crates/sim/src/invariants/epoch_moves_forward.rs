//! The epoch rises by one with each claim and never goes back; in one epoch one node is promoted, once.
//!
//! A claimant that was slow may be promoted after the next one: it can acknowledge nothing any more.

use super::{Broken, Promotion};
use crate::store::Snapshot;
use crate::world::World;

const NAME: &str = "epoch_moves_forward";

pub(super) fn at_transaction(world: &World, before: &Snapshot) -> Result<(), Broken> {
    let (old, new) = (
        before.cluster.current_epoch(),
        world.store.current.cluster.current_epoch(),
    );
    if new == old || new == old.next() {
        return Ok(());
    }
    Err((NAME, format!("the epoch went from {old} to {new}")))
}

pub(super) fn at_promotion(world: &World, promotion: &Promotion) -> Result<(), Broken> {
    let same = world
        .ledger
        .promotions
        .iter()
        .find(|other| other.epoch == promotion.epoch);
    match same {
        None => Ok(()),
        Some(other) => Err((
            NAME,
            format!(
                "{} is promoted in epoch {}, and so was {}",
                world.nodes[promotion.node].name, promotion.epoch, world.nodes[other.node].name,
            ),
        )),
    }
}
