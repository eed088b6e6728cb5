//! What must hold, a file each, looked at whenever something happens that could break it.
//!
//! The checks see everything: true time, the identity of records, every node at once.

mod a_handover_is_a_clean_stop;
mod a_paused_cluster_keeps_its_leader;
mod acknowledged_commits_survive;
mod cluster_converges;
mod epoch_moves_forward;
mod one_acknowledging_primary;
mod promised_nodes_receive_nothing;
mod promises_tell_the_truth;
mod promoted_node_had_every_acknowledged_commit;
mod strict_mode_never_acknowledges_alone;
mod timelines_never_fork_unseen;
mod unwanted_nodes_lead_last;
mod visible_commits_survive;

use crate::node::{NodeId, Waiter, id_of};
use crate::store::Snapshot;
use crate::time::Micros;
use crate::world::World;
use ha::{Claim, Epoch};
use std::collections::BTreeSet;

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub text: String,
    pub at_ms: u64,
}

/// A commit that somebody was told of, or could read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub index: usize,
    pub uid: u64,
    pub epoch: Epoch,
    pub node: NodeId,
    pub begun: Micros,
    pub at: Micros,
}

/// A node that left recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promotion {
    pub epoch: Epoch,
    pub node: NodeId,
    pub run: u64,
    pub opened: bool,
}

/// All that the checks remember.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub acknowledged: Vec<Known>,
    /// What could be read on an open primary without having been acknowledged.
    pub visible: Vec<Known>,
    pub promotions: Vec<Promotion>,
    /// The first standby has joined: commits have been protected since.
    pub protected: bool,
    /// Acknowledged in asynchronous mode and gone.
    pub lost: BTreeSet<u64>,
    /// The newest epoch that was claimed without proof, because a person has accepted the loss.
    pub accepted: Epoch,
    /// Claims without proof that were sent, whether they happened or not.
    pub unproven: BTreeSet<(NodeId, Epoch)>,
}

impl World {
    pub(crate) fn holds(&self, id: NodeId, known: &Known) -> bool {
        self.nodes[id]
            .disk
            .wal
            .get(known.index)
            .is_some_and(|record| record.uid == known.uid)
    }

    /// The present primary of the newest epoch, if it still runs.
    pub(crate) fn newest_primary(&self) -> Option<&Promotion> {
        self.ledger
            .promotions
            .iter()
            .max_by_key(|promotion| promotion.epoch)
            .filter(|promotion| self.nodes[promotion.node].pg.run == promotion.run)
    }

    pub(crate) fn note_acknowledged(&mut self, id: NodeId, waiter: Waiter) {
        let Some(epoch) = self.nodes[id]
            .disk
            .wal
            .get(waiter.index)
            .map(|record| record.epoch)
        else {
            return;
        };
        if epoch < self.ledger.accepted {
            // A zombie of the time before a loss that a person has accepted.
            return;
        }
        let Waiter { index, uid, begun } = waiter;
        let known = Known {
            index,
            uid,
            epoch,
            node: id,
            begun,
            at: self.now,
        };
        self.check(one_acknowledging_primary::at_acknowledgement, &known);
        self.check(acknowledged_commits_survive::at_acknowledgement, &known);
        self.check(
            strict_mode_never_acknowledges_alone::at_acknowledgement,
            &known,
        );
        self.ledger.acknowledged.push(known);
    }

    /// A commit from before the cluster.
    pub(crate) fn note_brought(&mut self, index: usize, uid: u64) {
        self.ledger.acknowledged.push(Known {
            index,
            uid,
            epoch: Epoch::NONE,
            node: 0,
            begun: 0,
            at: 0,
        });
    }

    pub(crate) fn note_promoted(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        let Some(side) = node.primary() else { return };
        let promotion = Promotion {
            epoch: side.epoch,
            node: id,
            run: node.pg.run,
            opened: false,
        };
        self.check(epoch_moves_forward::at_promotion, &promotion);
        self.check(
            promoted_node_had_every_acknowledged_commit::at_promotion,
            &promotion,
        );
        if !self.config.synchronous() {
            let missing: Vec<u64> = self
                .ledger
                .acknowledged
                .iter()
                .filter(|known| !self.holds(id, known))
                .map(|known| known.uid)
                .collect();
            self.ledger.lost.extend(missing);
        }
        self.ledger.promotions.push(promotion);
    }

    /// What a person has given up is nobody's to keep.
    fn forgive_accepted_loss(&mut self, id: NodeId) {
        let held = |known: &Known| self.holds(id, known);
        let kept: Vec<Known> = self
            .ledger
            .acknowledged
            .iter()
            .copied()
            .filter(held)
            .collect();
        let readable: Vec<Known> = self.ledger.visible.iter().copied().filter(held).collect();
        self.ledger.acknowledged = kept;
        self.ledger.visible = readable;
    }

    pub(crate) fn note_opened(&mut self, id: NodeId) {
        let Some(side) = self.nodes[id].primary() else {
            return;
        };
        let (epoch, recovered) = (side.epoch, side.recovered);
        let wal = &self.nodes[id].disk.wal;
        let readable: Vec<Known> = wal[..recovered.min(wal.len())]
            .iter()
            .enumerate()
            .filter(|(_, record)| record.commit)
            .map(|(index, record)| Known {
                index,
                uid: record.uid,
                epoch,
                node: id,
                begun: 0,
                at: self.now,
            })
            .collect();
        self.note_of(id, || format!("the primary of epoch {epoch} is open"));
        for promotion in &mut self.ledger.promotions {
            promotion.opened |= promotion.epoch == epoch;
        }
        self.check(acknowledged_commits_survive::at_opening, &id);
        self.check(promised_nodes_receive_nothing::at_opening, &id);
        if self
            .newest_primary()
            .is_some_and(|newest| newest.node == id)
        {
            // Only this reading is kept: the older ones were just found in it.
            self.check(visible_commits_survive::at_opening, &id);
            self.ledger.visible = readable;
        } else {
            // Overtaken already, but whoever reads here, reads what the next ones must have.
            self.ledger.visible.extend(readable);
        }
    }

    pub(crate) fn note_claiming(&mut self, id: NodeId, claim: &Claim) {
        self.check(a_paused_cluster_keeps_its_leader::at_claim, &id);
        self.check(unwanted_nodes_lead_last::at_claim, &id);
        let order = self.nodes[id].agent.snapshot.cluster.switchover.as_ref();
        let asked = order.is_some_and(|order| order.accept_loss);
        if asked && claim.why.contains("a person has accepted the loss") {
            self.ledger.unproven.insert((id, claim.epoch));
        }
    }

    pub(crate) fn note_releasing(&mut self, id: NodeId, rule: &'static str) {
        self.check(a_handover_is_a_clean_stop::at_release, &(id, rule));
    }

    pub(crate) fn note_connected(&mut self, standby: NodeId, primary: NodeId, start: usize) {
        self.check(
            timelines_never_fork_unseen::at_connection,
            &(standby, primary, start),
        );
    }

    pub(crate) fn check_store(&mut self, before: &Snapshot) {
        self.check(epoch_moves_forward::at_transaction, before);
        self.check(promises_tell_the_truth::at_transaction, before);
        let cluster = &self.store.current.cluster;
        let epoch = cluster.current_epoch();
        if epoch != before.cluster.current_epoch()
            && let Some(leader) = cluster.leader.as_ref().map(id_of)
            && self.ledger.unproven.contains(&(leader, epoch))
        {
            self.ledger.accepted = epoch;
            self.forgive_accepted_loss(leader);
        }
        let record = self.store.current.cluster.sync.as_ref();
        self.ledger.protected |=
            record.is_some_and(|record| record.is_settled() && !record.newest().is_alone());
    }

    pub(crate) fn note_received(&mut self, id: NodeId) {
        self.check(promised_nodes_receive_nothing::at_arrival, &id);
    }

    pub(crate) fn check_end(&mut self) {
        self.check(acknowledged_commits_survive::at_end, &());
        self.check(visible_commits_survive::at_end, &());
    }

    fn check<T: ?Sized>(&mut self, check: fn(&Self, &T) -> Result<(), Broken>, fact: &T) {
        if let Err((invariant, text)) = check(self, fact) {
            self.violate(invariant, text);
        }
    }
}

/// Which invariant does not hold, and how.
pub(crate) type Broken = (&'static str, String);
