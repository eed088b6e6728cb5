//! One turn of an agent of Patroni's.
//!
//! It reads the store as it is: its own races with the store are not what is looked at here. Its leader adds a standby to
//! Postgres first and to `sync` then, and takes one away in the other order.

use super::Break;
use super::node::{Kind, Node, Pg, Stream, Waits};
use super::store::Sync;
use super::walk::World;
use crate::wal::{common, lsn};
use ha::{NodeName, Switchover, gives_way};
use std::collections::BTreeSet;

impl World {
    pub(super) fn patroni(&mut self, id: usize) {
        let name = self.nodes[id].name.clone();
        if self.nodes[id].pg == Pg::Down {
            self.nodes[id].pg = Pg::Standby { upstream: None };
            self.nodes[id].patronis = true;
        }
        match self.store.cluster.leader.clone() {
            Some(leader) if leader == name => self.patroni_leads(id, &name),
            Some(leader) => self.patroni_follows(id, &leader),
            None => self.patroni_races(id, &name),
        }
    }

    fn patroni_leads(&mut self, id: usize, name: &NodeName) {
        if !self.nodes[id].is_primary() {
            if self.synchronous {
                let alone = Sync {
                    leader: name.clone(),
                    standbys: BTreeSet::new(),
                    ours: None,
                };
                self.store.put_sync(Some(alone));
            }
            self.promote(id, Waits::default(), true);
            return;
        }
        let order = self.store.cluster.switchover.clone();
        if let Some(to) = order.filter(|it| it.from.as_ref() == Some(name)) {
            return self.patroni_hands_over(id, &to);
        }
        self.store.cluster.leader_position = self.nodes[id].position();
        if self.synchronous {
            self.patroni_keeps_sync(id, name);
        }
    }

    fn patroni_hands_over(&mut self, id: usize, order: &Switchover) {
        let to = order.to.as_ref().and_then(|to| self.id_of(to));
        let named = |to: usize| {
            let sync = self.store.sync.as_ref();
            !self.synchronous || sync.is_some_and(|it| it.standbys.contains(&self.nodes[to].name))
        };
        let able = to.filter(|to| self.streams_from(*to, id) && named(*to));
        if able.is_none() {
            self.store.cluster.switchover = None;
            return;
        }
        self.clean_stop(id);
        self.store.delete_leader();
    }

    /// One standby, as `synchronous_mode: on` has it, one step a turn.
    fn patroni_keeps_sync(&mut self, id: usize, name: &NodeName) {
        let Some(sync) = self.store.sync.clone().filter(|it| it.ours.is_none()) else {
            return;
        };
        let attached = |this: &Self, who: &NodeName| {
            this.id_of(who)
                .is_some_and(|who| this.streams_plainly(who, id))
        };
        let waits = self.nodes[id].waits.clone();
        let set = |standbys: BTreeSet<NodeName>| Sync {
            leader: name.clone(),
            standbys,
            ours: None,
        };
        if let Some(named) = sync.standbys.first() {
            if !attached(self, named) {
                self.store.put_sync(Some(set(BTreeSet::new())));
            }
            return;
        }
        match waits.names.first().cloned() {
            Some((named, _)) if attached(self, &named) => {
                // It counts in the store once it has what was there when it was added.
                let caught_up = self
                    .id_of(&named)
                    .is_some_and(|who| self.nodes[who].wal.len() == self.nodes[id].wal.len());
                if caught_up {
                    self.store.put_sync(Some(set([named].into())));
                }
            }
            Some(_) => self.nodes[id].waits = Waits::default(),
            None => {
                let names = (0..self.nodes.len()).filter(|who| self.streams_plainly(*who, id));
                let mut names: Vec<NodeName> =
                    names.map(|who| self.nodes[who].name.clone()).collect();
                let count = names.len();
                if count > 0 {
                    let named = names.swap_remove(self.rng.index(count));
                    self.nodes[id].waits = Waits {
                        needed: 1,
                        names: [(named, Stream::Plain)].into(),
                    };
                }
            }
        }
        self.acknowledge(id);
    }

    fn patroni_follows(&mut self, id: usize, leader: &NodeName) {
        if self.nodes[id].is_primary() {
            self.nodes[id].stop();
            self.nodes[id].pg = Pg::Standby { upstream: None };
        }
        let Some(leader) = self.id_of(leader).filter(|it| self.nodes[*it].is_primary()) else {
            return;
        };
        // A leader of ours lets in whoever asks once it has published.
        let office = self.store.cluster.lineage.as_ref().map(|it| it.epoch);
        if self.nodes[leader].kind == Kind::Ours && office != self.nodes[leader].lease {
            return;
        }
        if self.nodes[id].upstream() != Some((leader, Stream::Plain)) {
            let same = common(&self.nodes[id].wal, &self.nodes[leader].wal);
            self.nodes[id].wal.truncate(same);
            let upstream = Some((leader, Stream::Plain));
            self.nodes[id].pg = Pg::Standby { upstream };
        }
    }

    fn patroni_races(&mut self, id: usize, name: &NodeName) {
        if self.nodes[id].is_primary() {
            self.nodes[id].stop();
            self.nodes[id].pg = Pg::Standby { upstream: None };
            return;
        }
        let kept = self.broken == Some(Break::WayKept);
        let sync = self.store.sync.clone().filter(|_| self.synchronous);
        let named = |who: &NodeName| {
            let names = |it: &Sync| it.leader == *who || it.standbys.contains(who);
            sync.as_ref().is_none_or(names)
        };
        let order = self.store.cluster.switchover.clone().unwrap_or_default();
        let asked = order.to.as_ref() == Some(name);
        if !asked {
            if !named(name) {
                return;
            }
            let other = order.to.as_ref().and_then(|to| self.id_of(to));
            if other.is_some_and(|to| self.nodes[to].up && !self.nodes[to].frozen) {
                return;
            }
            let mine = self.nodes[id].wal.len();
            let reached = self
                .nodes
                .iter()
                .filter(|node| node.up && !node.frozen && node.name != *name && named(&node.name));
            let ahead = |node: &&Node| {
                let former = sync.as_ref().is_some_and(|it| it.leader == node.name);
                let may = node.pg != Pg::Down && (kept || !says_that_it_may_not(node));
                node.is_primary() || (node.wal.len() > mine && !former && may)
            };
            if reached.filter(ahead).count() > 0 {
                return;
            }
            let lag = self.store.cluster.leader_position.bytes_since(lsn(mine));
            if lag > self.store.cluster.settings.lag_bytes_max {
                return;
            }
        }
        if asked && !named(name) {
            return;
        }
        self.store.put_leader(name);
        self.store.cluster.switchover = None;
    }
}

/// A node of ours answers with the tag `nofailover` then.
fn says_that_it_may_not(node: &Node) -> bool {
    node.kind == Kind::Ours && gives_way(&node.seen.view(), node.note.as_ref())
}
