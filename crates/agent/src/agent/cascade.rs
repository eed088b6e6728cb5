//! Standbys behind standbys: whom this node streams from by its tags, and whom it lets stream from itself.
//!
//! **Invariant:** this node says that it serves an epoch only while it streams, as a standby that is proven to be of that
//! epoch's history, and the slots of those who are to come are there.
//! It does not know which of the two, source or leader, is taken.

use super::{Agent, Tags};
use crate::shell::Giving;
use ha::{Cluster, ClusterView, Epoch, Instant, NodeName, NodeView, Postgres, Ties};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A source that has not let this node stream for so long is done without.
const PATIENCE: Duration = Duration::from_secs(5);
/// And is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// What the tags say, and what has come of it.
#[derive(Debug, Default)]
pub(super) struct Cascade {
    tags: Ties,
    /// Since when the source should let this node stream and does not.
    unconnected: Option<Instant>,
    shunned_until: Option<Instant>,
    served: Served,
}

/// The epoch that slots were made for, and the term of the instance's streams then.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Arc<Mutex<Option<(Epoch, u64)>>>);

impl Served {
    pub(super) fn set(&self, epoch: Epoch, term: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, term));
    }

    fn is(&self, epoch: Epoch, term: u64) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == Some((epoch, term))
    }
}

impl Cascade {
    pub(super) fn new(tags: &Tags) -> Self {
        Self {
            tags: ties(tags),
            ..Self::default()
        }
    }

    /// Other tags. What was found out about a source was that one's.
    pub(super) fn retag(&mut self, tags: &Tags) {
        let ties = ties(tags);
        if ties.source != self.tags.source {
            (self.unconnected, self.shunned_until) = (None, None);
        }
        self.tags = ties;
    }

    /// The source, unless it has just failed this node.
    pub(super) fn source(&mut self, postgres: &Postgres, at: Instant) -> Option<NodeName> {
        let source = self.tags.source.as_ref()?;
        if self.shunned_until.is_some_and(|until| at < until) {
            return None;
        }
        match postgres {
            Postgres::Standby(it) if it.upstream.as_ref() == Some(source) && !it.streaming => {
                let since = *self.unconnected.get_or_insert(at);
                if at.since(since) > PATIENCE {
                    tracing::warn!(%source, "cannot stream from it: streaming from the leader for a while");
                    self.unconnected = None;
                    self.shunned_until = Some(at.plus(AGAIN));
                    return None;
                }
            }
            _ => self.unconnected = None,
        }
        Some(source.clone())
    }

    pub(super) fn nostream(&self) -> bool {
        self.tags.nostream
    }

    /// Whether what a standby receives comes from the leader.
    pub(super) fn is_direct(&self, standby: &ha::Standby, cluster: &Cluster) -> bool {
        standby.upstream.is_none() || standby.upstream == cluster.leader
    }

    pub(super) fn served(&self) -> Served {
        self.served.clone()
    }
}

fn ties(tags: &Tags) -> Ties {
    let source = tags.get("replicatefrom").and_then(|name| name.as_str());
    let priority = tags.get("sync_priority").and_then(|number| number.as_u64());
    Ties {
        source: source.and_then(|name| NodeName::new(name).ok()),
        serves: None,
        clonefrom: tags.get("clonefrom") == Some(&true.into()),
        nostream: tags.get("nostream") == Some(&true.into()),
        sync_priority: priority.map_or(1, |it| u32::try_from(it).unwrap_or(u32::MAX)),
    }
}

impl Agent {
    /// Whom this node gives WAL to. A standby only when it is asked for it: by its own tag, or by another's.
    pub(super) fn giving(&self, cluster: &Cluster, me: &NodeView) -> Giving {
        match &me.postgres {
            Postgres::Primary(_) => me
                .lease
                .map_or(Giving::Nobody, |lease| Giving::Office(lease.epoch)),
            // The leader of a standby cluster.
            Postgres::Standby(_) if me.lease.is_some() && cluster.led_by_standby() => me
                .lease
                .map_or(Giving::Nobody, |lease| Giving::Office(lease.epoch)),
            Postgres::Standby(standby) => {
                let asked = |ties: &Ties| ties.source.as_ref() == Some(&self.name);
                let asked = self.cascade.tags.clonefrom
                    || cluster.members.values().any(|member| asked(&member.ties));
                let published = cluster.published_lineage();
                let proven = published.is_some() && published == me.lineage.as_ref();
                let settled = standby.streaming && standby.open && !cluster.foreign.leads;
                match asked && proven && settled && me.job.is_none() {
                    true => Giving::Onward(cluster.current_epoch()),
                    false => Giving::Nobody,
                }
            }
            Postgres::Down { .. } | Postgres::Starting | Postgres::Unresponsive { .. } => {
                Giving::Nobody
            }
        }
    }

    /// What the member key says of it.
    pub(super) fn ties(&self, view: &ClusterView, me: &NodeView) -> Ties {
        let serves = match view {
            ClusterView::Known(cluster) => match self.giving(cluster, me) {
                Giving::Onward(epoch) => Some(epoch),
                Giving::Office(_) | Giving::Nobody => None,
            },
            ClusterView::Silent { .. } => None,
        };
        let term = self.shell.instance.streams_term();
        Ties {
            source: me.source.clone(),
            serves: serves.filter(|epoch| self.cascade.served.is(*epoch, term)),
            ..self.cascade.tags.clone()
        }
    }
}
