//! The permanent logical slots: on the primary, and on whoever follows it.
//!
//! **Invariant:** a primary that is started again keeps its slots: only a standby that follows another node gives up
//! what it had as a primary.

use super::{Agent, chain};
use crate::shell::Giving;
use ha::{Cluster, NodeView, Postgres};
use postgres::{Instance, LogicalSlot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is to be held, if it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Logical(Option<Wanted>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    slots: BTreeMap<String, LogicalSlot>,
    leads: bool,
    /// The streams that commits wait for.
    protecting: BTreeSet<String>,
}

impl Agent {
    pub(super) fn logical(&self, cluster: &Cluster, me: &NodeView, giving: Giving) -> Logical {
        let slots = self.sharing.logical().clone();
        let leads = match (&me.postgres, giving) {
            (Postgres::Primary(primary), Giving::Office(_)) if primary.open => true,
            (Postgres::Standby(standby), _) if standby.upstream.is_some() => false,
            _ => return Logical::default(),
        };
        let mut protecting = BTreeSet::new();
        if let (Giving::Office(epoch), Some(sync)) = (giving, &cluster.sync) {
            let standbys = sync.newest().standbys.iter();
            protecting.extend(standbys.map(|name| name.stream_of_epoch(epoch)));
        }
        Logical(Some(Wanted {
            slots,
            leads,
            protecting,
        }))
    }
}

impl Logical {
    pub(super) async fn hold(&self, instance: &Instance, limit: Duration) {
        let Some(Wanted {
            slots,
            leads,
            protecting,
        }) = &self.0
        else {
            return;
        };
        match instance
            .hold_logical(slots, *leads, protecting, limit)
            .await
        {
            Ok(changes) => {
                for slot in changes.created {
                    tracing::info!(slot, "a permanent logical slot was made");
                }
                for (slot, why) in changes.refused {
                    tracing::warn!(slot, why, "a permanent logical slot is not kept");
                }
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "logical slots not up to date");
            }
        }
    }
}
