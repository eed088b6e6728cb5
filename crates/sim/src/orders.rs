//! What a person orders, straight into the store.

use crate::node::{NodeId, name_of};
use crate::store::{Put, Request, Txn};
use crate::world::World;
use ha::Switchover;
use std::rc::Rc;

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

    pub(crate) fn set_maintenance(&mut self, id: NodeId, on: bool) {
        let name = name_of(id);
        let mut record = self.store.current.cluster.node(&name);
        if record.maintenance != on {
            record.maintenance = on;
            self.order(Put::Node(name, Some(record)));
        }
    }
}
