//! Clients that insert wherever they find a primary that lets them in, and remember what was acknowledged.

use crate::node::{Health, Life, NodeId, Role, Waiter};
use crate::time::ms;
use crate::wal::Record;
use crate::world::{Era, Event, Target, World};

/// More commits than this do not wait on one node.
const WAITING_MAX: usize = 6;

impl World {
    pub(crate) fn on_client(&mut self, client: usize) {
        let pause = self.rng.between(ms(4), ms(50));
        self.after(pause, Target::World, Event::Client(client));
        if self.era == Era::Settling {
            return;
        }
        let accepting: Vec<NodeId> = (0..self.nodes.len())
            .filter(|id| self.accepts_commits(*id))
            .collect();
        if !accepting.is_empty() {
            let id = accepting[self.rng.index(accepting.len())];
            self.commit(id);
        }
    }

    fn accepts_commits(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        let Role::Primary(side) = &node.pg.role else {
            return false;
        };
        node.up
            && !node.frozen
            && node.pg.stopped.is_none()
            && matches!(node.pg.life, Life::Up | Life::Orphaned)
            && side.open
            && !side.draining
            && side.waiting.len() < WAITING_MAX
            && node.disk.health != Health::Hung
    }

    fn commit(&mut self, id: NodeId) {
        let uid = self.new_uid();
        let begun = self.now;
        let node = &mut self.nodes[id];
        let index = node.disk.wal.len();
        let Role::Primary(side) = &mut node.pg.role else {
            return;
        };
        let record = Record {
            uid,
            timeline: side.timeline,
            epoch: side.epoch,
            commit: true,
        };
        side.waiting.push(Waiter { index, uid, begun });
        node.disk.wal.push(record);
        self.flush_soon(id);
    }
}
