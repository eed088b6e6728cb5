//! A leadership is handed over only after a clean stop: a crash under a pending order is a crash.

use super::Broken;
use crate::node::NodeId;
use crate::world::World;

pub(super) fn at_release(world: &World, (id, rule): &(NodeId, &'static str)) -> Result<(), Broken> {
    let node = &world.nodes[*id];
    let order = node.agent.snapshot.cluster.switchover.as_ref();
    let accepted = order.is_some_and(|order| order.accept_loss);
    let planned = matches!(*rule, "switchover" | "step aside");
    if !planned || accepted || node.disk.clean_stop {
        return Ok(());
    }
    let text = format!(
        "{} hands over by the rule {rule:?}, but its Postgres was not stopped cleanly",
        node.name
    );
    Err(("a_handover_is_a_clean_stop", text))
}
