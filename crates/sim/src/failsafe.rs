//! A leader that has lost the store asks the members; a member that holds still; the leader key taken again.
//!
//! **Invariant:** a node that says yes is bound before its answer leaves, and bound again when its agent restarts.

use crate::config::Break;
use crate::node::{Life, NodeId, Purpose, Role, name_of};
use crate::store::{Answer, Key, LeaseId, Put, Request, Txn};
use crate::world::World;
use ha::{Cluster, Epoch, Hold, Instant, NodeName, holders};
use std::collections::BTreeSet;

impl World {
    /// Whom a leader would ask, if that is to be written down anew.
    pub(crate) fn to_ask(&self, cluster: &Cluster) -> Option<BTreeSet<NodeName>> {
        let alive = cluster.members.keys();
        let known = cluster.failsafe.as_ref();
        let same = known.is_some_and(|known| known.keys().eq(alive.clone()));
        (self.config.settings.failsafe && !same).then(|| alive.cloned().collect())
    }

    pub(crate) fn ask_members(&mut self, id: NodeId) {
        let sent = self.local(id);
        let node = &self.nodes[id];
        let Some(lease) = node.agent.lease.filter(|lease| sent < lease.deadline) else {
            return;
        };
        let long = |heard| sent.since(heard) > self.config.settings.ttl / 4;
        let lost = node.agent.heard.is_none_or(long);
        let works = node.pg.life == Life::Up && node.pg.stopped.is_none();
        let mut cluster = node.agent.snapshot.cluster.clone();
        let (Role::Primary(side), true) =
            (&node.pg.role, lost && works && side_open(&node.pg.role))
        else {
            return;
        };
        if cluster.current_epoch() != lease.epoch {
            return;
        }
        // What may be on its way into the store counts as well.
        if let (Some(known), Some(wanted)) = (
            &mut cluster.failsafe,
            self.to_ask(&node.agent.snapshot.cluster),
        ) {
            known.extend(wanted.into_iter().map(|name| (name, String::new())));
        }
        let streaming = side.senders.keys().map(|id| name_of(*id)).collect();
        let Some(holders) = holders(&cluster, &name_of(id), &streaming) else {
            return;
        };
        let asked = 0..self.nodes.len();
        let asked: Vec<NodeId> = asked
            .filter(|id| holders.asked().contains(&name_of(*id)))
            .collect();
        let mut holding = BTreeSet::new();
        for other in asked {
            if self.net.both_ways(id, other) && self.hold(other, id, lease.epoch) {
                holding.insert(name_of(other));
            }
        }
        if holders.met_by(&holding) {
            self.note_of(id, || format!("  {holding:?} hold still"));
            self.extend_lease(id, lease.epoch, sent);
            let until = self.config.settings.deadline(sent);
            self.nodes[id].agent.by_members = Some(until);
        }
    }

    /// Whether `id` gives its word to the leader of `epoch`.
    fn hold(&mut self, id: NodeId, leader: NodeId, epoch: Epoch) -> bool {
        let local = self.local(id);
        let node = &self.nodes[id];
        let cluster = &node.agent.snapshot.cluster;
        let current = cluster.current_epoch();
        let led = cluster.epoch.as_ref().map(|leadership| &leadership.leader);
        let promised = cluster
            .promises
            .get(&node.name)
            .is_some_and(|mine| mine.epoch >= epoch);
        let spoken = promised || node.agent.spoken.is_some_and(|spoken| spoken >= epoch);
        let may = node.agent_runs()
            && node.agent.lease.is_none()
            && cluster.failsafe.is_some()
            && (current < epoch || (current == epoch && led == Some(&name_of(leader))))
            && node.agent.unsettled.is_none_or(|until| local >= until)
            && !spoken;
        if may {
            let until = local.plus(self.config.settings.ttl);
            let node = &mut self.nodes[id];
            node.agent.hold = Some(Hold { epoch, until });
            node.disk.hold = Some(epoch);
        }
        may
    }

    /// Whether a promise or a claim may be sent; from then on no leader of this epoch gets this node's word.
    pub(crate) fn speak(&mut self, id: NodeId) -> bool {
        let local = self.local(id);
        let broken = self.config.is_broken(Break::HoldForgotten);
        let agent = &mut self.nodes[id].agent;
        let current = agent.snapshot.cluster.current_epoch();
        if !broken && agent.hold.is_some_and(|hold| hold.binds(current, local)) {
            return false;
        }
        agent.spoken = agent.spoken.max(Some(current));
        true
    }

    /// The store says that the leader key is gone. Members that hold still have let nobody else take it.
    pub(crate) fn retake_or_drop(&mut self, id: NodeId, epoch: Option<Epoch>) {
        let local = self.local(id);
        let agent = &mut self.nodes[id].agent;
        let held = agent.by_members.is_some_and(|until| local < until);
        if held && agent.lease.is_some_and(|lease| Some(lease.epoch) == epoch) {
            agent.retaking = true;
        } else {
            self.drop_lease(id, epoch);
        }
    }

    pub(crate) fn retake(&mut self, id: NodeId, epoch: Epoch, lease: LeaseId) {
        let me = name_of(id);
        let txn = Txn {
            guards: vec![(Key::Leader, 0)],
            puts: vec![
                Put::Leader(Some(me.clone())),
                Put::Member(me, Some(self.member(id))),
            ],
            epoch: Some(epoch),
            lease: Some(lease),
            leads: None,
        };
        self.call(id, Request::Commit(txn), Purpose::Retake { epoch });
    }

    pub(crate) fn retake_answered(
        &mut self,
        id: NodeId,
        epoch: Epoch,
        sent: Instant,
        answer: Option<&Answer>,
    ) {
        match answer {
            Some(Answer::Committed(_)) => {
                self.nodes[id].agent.retaking = false;
                self.extend_lease(id, epoch, sent);
            }
            // Or this node has it, by a request that was not answered: then the next beat finds it so.
            Some(Answer::Refused) if self.nodes[id].agent.retaking => {
                self.nodes[id].agent.retaking = false;
                let agent = &self.nodes[id].agent;
                if agent.snapshot.cluster.leader.as_ref() != Some(&name_of(id)) {
                    self.drop_lease(id, Some(epoch));
                }
            }
            Some(Answer::LeaseEnded) => self.nodes[id].agent.lease_id = None,
            Some(Answer::Refused | Answer::Granted(_)) | None => {}
        }
    }
}

fn side_open(role: &Role) -> bool {
    matches!(role, Role::Primary(side) if side.open)
}
