//! What a turn adds to the figures.
//!
//! It does not decide, and nothing is decided on it.

use super::Agent;
use crate::clock::now;
use crate::observe::Observation;
use ha::{Claim, ClusterView, Contact, Instant, NodeView, Postgres};

impl Agent {
    /// When another leader was heard of last: a takeover counts from there.
    pub(super) fn remember_sign(&mut self, view: &ClusterView, contact: &Contact) {
        if let ClusterView::Known(cluster) = view
            && cluster.leader.as_ref().is_some_and(|it| *it != self.name)
        {
            self.memory.last_sign = Some(contact.newest());
        }
    }

    pub(super) fn count(&mut self, me: &NodeView, observation: &Observation, begun: Instant) {
        self.figures.turned(now().since(begun));
        self.figures.slot_retained(observation.facts.slot_retained);
        let open = matches!(&me.postgres, Postgres::Primary(primary) if primary.open);
        if me.lease.is_none() {
            self.memory.taking_over = None;
        } else if open && let Some(since) = self.memory.taking_over.take() {
            self.figures.took_over(now().since(since));
        }
    }

    /// A claim was won.
    pub(super) fn count_claim(&mut self, claim: &Claim) {
        self.figures.claimed(claim.proven);
        self.memory.taking_over = self.memory.last_sign.take();
    }
}
