//! A node that shall not lead (priority 0, maintenance, dropped) claims only where no other that has promised as much
//! could, or where a person has named it.

use super::Broken;
use crate::node::NodeId;
use crate::world::World;
use ha::{Cluster, NodeName};

pub(super) fn at_claim(world: &World, id: &NodeId) -> Result<(), Broken> {
    let node = &world.nodes[*id];
    let seen = &node.agent.snapshot.cluster;
    let named = seen
        .switchover
        .as_ref()
        .is_some_and(|order| order.accept_loss && order.to.as_ref() == Some(&node.name));
    let promises = seen.live_promises();
    let Some(mine) = promises.get(&node.name).filter(|_| !named) else {
        return Ok(());
    };
    if wanted(seen, &node.name) {
        return Ok(());
    }
    let better = promises.iter().find(|(name, promise)| {
        wanted(seen, name)
            && promise.unfit.is_none()
            && seen.members.contains_key(**name)
            && promise.position.rank() >= mine.position.rank()
    });
    match better {
        None => Ok(()),
        Some((name, _)) => Err((
            "unwanted_nodes_lead_last",
            format!("{} claims, and {name} has as much and may lead", node.name),
        )),
    }
}

fn wanted(cluster: &Cluster, name: &NodeName) -> bool {
    let node = cluster.node(name);
    node.priority > 0 && !node.maintenance && !node.dropped
}
