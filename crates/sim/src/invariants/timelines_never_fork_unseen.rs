//! A standby streams only where everything that it has is, record by record, what its upstream has.

use super::Broken;
use crate::node::NodeId;
use crate::wal::common;
use crate::world::World;

pub(super) fn at_connection(
    world: &World,
    (standby, primary, start): &(NodeId, NodeId, usize),
) -> Result<(), Broken> {
    let (one, other) = (&world.nodes[*standby], &world.nodes[*primary]);
    let same = common(&one.disk.wal[..*start], &other.disk.wal);
    if same == *start {
        return Ok(());
    }
    Err((
        "timelines_never_fork_unseen",
        format!(
            "{} streams from {} at record {start}, but their WAL differs from record {same} on",
            one.name, other.name
        ),
    ))
}
