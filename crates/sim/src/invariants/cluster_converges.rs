//! A healed world becomes one healthy cluster within a bound; the world's watch asks here.

use crate::node::{Life, Role, id_of};
use crate::world::World;

impl World {
    /// Whether the cluster is one again: an open primary, everybody else streaming from it, nothing left over.
    pub(crate) fn healthy(&self) -> Result<(), String> {
        let cluster = &self.store.current.cluster;
        let leader = cluster.leader.as_ref().ok_or("there is no leader")?;
        let id = id_of(leader);
        let epoch = cluster.current_epoch();
        let side = self.nodes[id]
            .primary()
            .ok_or_else(|| format!("{leader} is no primary"))?;
        if side.epoch != epoch || !side.open {
            return Err(format!("{leader} is not open in epoch {epoch}"));
        }
        for (other, node) in self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != id)
        {
            let streams = match &node.pg.role {
                Role::Standby(side) => side.receiver.is_some_and(|receiver| receiver.from == id),
                Role::Primary(_) => false,
            };
            if !streams || node.pg.life != Life::Up || !side.senders.contains_key(&other) {
                return Err(format!("{} does not stream from {leader}", node.name));
            }
            if node.disk.note.as_ref() != cluster.published_lineage() {
                return Err(format!("{} has another lineage noted", node.name));
            }
            if cluster.promises.contains_key(&node.name) {
                return Err(format!("{} has a promise left", node.name));
            }
        }
        if cluster.settings.paused {
            return Err("the cluster is paused".to_owned());
        }
        if let Some(name) = self.nodes.iter().map(|node| &node.name).find(|name| {
            let record = cluster.nodes.get(*name);
            record.is_none_or(|record| record.dropped || record.maintenance)
        }) {
            return Err(format!("{name} is no full member"));
        }
        if cluster.switchover.is_some() {
            return Err("a switchover is pending".to_owned());
        }
        self.protected()
    }

    fn protected(&self) -> Result<(), String> {
        if !self.config.synchronous() {
            return Ok(());
        }
        let cluster = &self.store.current.cluster;
        let record = cluster.sync.as_ref().ok_or("there is no sync record")?;
        let newest = record.newest();
        let able = cluster
            .nodes
            .iter()
            .filter(|(name, node)| Some(*name) != cluster.leader.as_ref() && node.priority > 0);
        let count = self.config.settings.sync_node_count.min(able.count());
        let enough = newest.needed >= count;
        if record.is_settled() && enough {
            return Ok(());
        }
        Err(format!(
            "commits need {newest}, settled: {}",
            record.is_settled()
        ))
    }
}
