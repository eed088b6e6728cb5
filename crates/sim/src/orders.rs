//! What a person orders, straight into the store.

use crate::node::{Disk, Life, NodeId, name_of};
use crate::store::{Put, Request, Txn};
use crate::world::World;
use ha::{Errand, NodeRecord, Postgres, Switchover};
use std::rc::Rc;
use std::time::Duration;

/// So long an errand may stand without being begun.
const BEGINS: Duration = Duration::from_secs(10);

impl World {
    fn order(&mut self, put: Put) {
        let txn = Txn {
            puts: vec![put],
            ..Txn::default()
        };
        if self.store.up {
            let before = Rc::clone(&self.store.current);
            self.store.apply(&Request::Commit(txn), self.now);
            self.check_store(&before);
            self.broadcast(false);
        }
    }

    pub(crate) fn order_switchover(&mut self) {
        let Some(leader) = self.store.current.cluster.leader.clone() else {
            return;
        };
        let to = self.rng.index(self.nodes.len());
        let order = Switchover {
            from: self.rng.chance(700).then_some(leader),
            to: self.rng.chance(500).then(|| name_of(to)),
            accept_loss: false,
        };
        if order.from.is_some() || order.to.is_some() {
            self.order(Put::Failover(Some(order)));
        }
    }

    /// The node's record with a change; nothing for one that has left.
    fn edit_node(&mut self, id: NodeId, edit: impl FnOnce(&mut NodeRecord)) {
        let name = name_of(id);
        let Some(old) = self.store.current.cluster.nodes.get(&name) else {
            return;
        };
        let mut record = old.clone();
        edit(&mut record);
        if record != *old {
            self.order(Put::Node(name, Some(record)));
        }
    }

    pub(crate) fn set_maintenance(&mut self, id: NodeId, on: bool) {
        self.edit_node(id, |record| record.maintenance = on);
    }

    pub(crate) fn set_paused(&mut self, on: bool) {
        let mut settings = self.store.current.cluster.settings.clone();
        if settings.paused != on {
            settings.paused = on;
            self.order(Put::Settings(Box::new(settings)));
        }
    }

    /// Somebody must be able to lead: the last one that can is left as it is.
    pub(crate) fn set_priority(&mut self, id: NodeId) {
        let priority = [0, 0, 50, 100][self.rng.index(4)];
        let me = name_of(id);
        let nodes = &self.store.current.cluster.nodes;
        let others = nodes
            .iter()
            .any(|(name, node)| *name != me && node.priority > 0 && !node.dropped);
        if priority > 0 || others {
            self.edit_node(id, |record| record.priority = priority);
        }
    }

    /// Two others that can lead stay.
    pub(crate) fn drop_node(&mut self, id: NodeId) {
        let me = name_of(id);
        let nodes = &self.store.current.cluster.nodes;
        let stay = nodes
            .iter()
            .filter(|(name, node)| **name != me && node.priority > 0 && !node.dropped);
        if stay.count() >= 2 {
            self.edit_node(id, |record| record.dropped = true);
        }
    }

    /// A node that has left comes back as a new one, with an empty directory or with its old one.
    pub(crate) fn rejoin(&mut self, id: NodeId) {
        let name = name_of(id);
        if !self.nodes[id].up
            || !self.store.up
            || self.store.current.cluster.nodes.contains_key(&name)
        {
            return;
        }
        self.kill_agent(id);
        if self.nodes[id].pg.life != Life::Down {
            self.kill(id);
        } else if self.rng.chance(500) {
            self.nodes[id].disk = Disk::empty();
        }
        let record = NodeRecord {
            id: id as u64 + 1,
            ..NodeRecord::default()
        };
        self.order(Put::Node(name, Some(record)));
        self.start_agent(id);
    }

    /// Whoever has left by now.
    pub(crate) fn rejoin_all(&mut self) {
        for id in 0..self.nodes.len() {
            self.rejoin(id);
        }
    }

    /// Asked of the node's own agent, which forgets it when it dies.
    pub(crate) fn ask(&mut self, id: NodeId, errand: Errand) {
        let local = self.local(id);
        let agent = &mut self.nodes[id].agent;
        if agent.alive && agent.errand.is_none() {
            agent.errand = Some((errand, local));
            self.wake(id);
        }
    }

    /// What is left of the errand, by what was found.
    pub(crate) fn errand(&mut self, id: NodeId, postgres: &Postgres) -> Option<Errand> {
        let local = self.local(id);
        let agent = &mut self.nodes[id].agent;
        let (errand, since) = agent.errand?;
        let left = errand.left(postgres);
        let over = match left {
            Some(Errand::Restarting) => agent.start_failures > 0,
            _ => local.since(since) > BEGINS,
        };
        agent.errand = left.filter(|_| !over).map(|left| (left, since));
        agent.errand.map(|(left, _)| left)
    }

    pub(crate) fn is_founded(&self) -> bool {
        matches!(
            self.store.current.cluster.initialize,
            ha::Initialize::Done(_)
        )
    }

    /// `perform failover --allow-data-loss`, which a person may only say where nobody leads.
    pub(crate) fn accept_loss(&mut self, to: NodeId) {
        let cluster = &self.store.current.cluster;
        // Whoever gives the word has made sure that no leader lives on without the store.
        let staying = self
            .nodes
            .iter()
            .any(|node| node.agent.by_members.is_some());
        if self.is_founded() && cluster.leader.is_none() && !staying {
            self.order(Put::Failover(Some(Switchover {
                from: None,
                to: Some(name_of(to)),
                accept_loss: true,
            })));
        }
    }
}
