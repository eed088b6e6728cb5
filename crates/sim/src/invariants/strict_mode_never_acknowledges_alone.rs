//! In strict mode commits rather wait than be acknowledged by the primary alone, once a standby has joined.

use super::{Broken, Known};
use crate::world::World;

pub(super) fn at_acknowledgement(world: &World, known: &Known) -> Result<(), Broken> {
    let cluster = &world.store.current.cluster;
    let me = &world.nodes[known.node].name;
    let others = cluster
        .nodes
        .iter()
        .any(|(name, node)| name != me && !node.dropped);
    let strict = world.config.settings.sync_strict && world.ledger.protected && others;
    let record = world.store.current.cluster.sync.as_ref();
    let alone = record.is_some_and(|record| record.is_settled() && record.newest().is_alone());
    if strict && alone {
        let text = format!(
            "{} acknowledges alone in epoch {} in strict mode",
            world.nodes[known.node].name, known.epoch
        );
        return Err(("strict_mode_never_acknowledges_alone", text));
    }
    Ok(())
}
