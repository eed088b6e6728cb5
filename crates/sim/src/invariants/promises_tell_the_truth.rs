//! A promise names the node's last record: its position, and the leadership that really wrote it.

use super::Broken;
use crate::node::id_of;
use crate::store::Snapshot;
use crate::wal::{lsn, received};
use crate::world::World;

pub(super) fn at_transaction(world: &World, before: &Snapshot) -> Result<(), Broken> {
    for (name, promise) in &world.store.current.cluster.promises {
        if before.cluster.promises.get(name) == Some(promise) {
            continue;
        }
        let node = &world.nodes[id_of(name)];
        // A promotion that a dead agent began may end meanwhile: closed, and fenced at once.
        let own = usize::from(node.primary().is_some_and(|side| !side.open));
        let wal = &node.disk.wal[..node.disk.wal.len().saturating_sub(own)];
        let Some(last) = wal.last() else { continue };
        let position = promise.position;
        let true_end = lsn(wal.len());
        // Half a record more may have come in.
        let ends = position.lsn == true_end || position.lsn == received(wal.len(), true);
        if !ends || position.epoch != last.epoch {
            return Err((
                "promises_tell_the_truth",
                format!(
                    "{name} promises at {position}, its last record ends at {true_end} and was written in epoch {}",
                    last.epoch
                ),
            ));
        }
    }
    Ok(())
}
