//! The store's content, Patroni's keys among it, with the revisions that transactions are guarded by.
//!
//! **Invariant:** whose the leader key is, is told as the real layout tells it: by revisions, the epoch's record, and whose
//! the leader's member record is.

use ha::quorum::{Setting, SyncRecord};
use ha::{Cluster, Epoch, Foreign, Leadership, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// `sync`, as Patroni reads it, and our field of it.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    pub leader: NodeName,
    pub standbys: BTreeSet<NodeName>,
    pub ours: Option<SyncRecord>,
}

impl Sync {
    /// What it means to ours.
    fn record(&self) -> SyncRecord {
        let theirs = || Setting {
            leader: self.leader.clone(),
            standbys: self.standbys.clone(),
            needed: self.standbys.len(),
        };
        let ours = self.ours.clone();
        ours.unwrap_or_else(|| SyncRecord::of(theirs()))
    }
}

/// When each key was last written; 0 is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revisions {
    pub leader_created: u64,
    pub leader: u64,
    pub epoch: u64,
    pub sync: u64,
    pub lineage: u64,
    pub promises: BTreeMap<NodeName, u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// Without `sync` and `foreign`, which are read from the rest.
    pub cluster: Cluster,
    pub sync: Option<Sync>,
    /// The epoch was recorded on behalf of a leader of Patroni's.
    pub recorded: bool,
    pub guests: BTreeSet<NodeName>,
    pub at: Revisions,
    pub revision: u64,
}

impl Store {
    pub(super) fn next(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub(super) fn put_leader(&mut self, name: &NodeName) {
        let revision = self.next();
        if self.cluster.leader.replace(name.clone()).is_none() {
            self.at.leader_created = revision;
        }
        self.at.leader = revision;
    }

    pub(super) fn delete_leader(&mut self) {
        self.next();
        self.cluster.leader = None;
        (self.at.leader, self.at.leader_created) = (0, 0);
    }

    pub(super) fn put_epoch(&mut self, epoch: Epoch, leader: &NodeName, recorded: bool) {
        let leader = leader.clone();
        self.at.epoch = self.next();
        self.cluster.epoch = Some(Leadership {
            epoch,
            leader,
            standby: false,
        });
        self.recorded = recorded;
    }

    pub(super) fn put_sync(&mut self, sync: Option<Sync>) {
        let revision = self.next();
        self.at.sync = sync.as_ref().map_or(0, |_| revision);
        self.sync = sync;
    }

    /// As ours read it.
    pub(super) fn view(&self) -> Cluster {
        let cluster = &self.cluster;
        let named = cluster.epoch.as_ref().map(|epoch| &epoch.leader) == cluster.leader.as_ref();
        let fits = named && self.at.leader_created <= self.at.epoch;
        let guest = |name: &NodeName| self.guests.contains(name);
        let taken_over = cluster.leader.as_ref().is_some_and(guest);
        let theirs = self.recorded;
        Cluster {
            sync: self.sync.as_ref().map(Sync::record),
            foreign: Foreign {
                members: self.guests.clone(),
                sync: self.sync.as_ref().is_some_and(|sync| sync.ours.is_none()),
                leads: cluster.leader.is_some() && (theirs || !fits || taken_over),
                recorded: theirs && (fits || cluster.leader.is_none()),
                ..cluster.foreign.clone()
            },
            ..cluster.clone()
        }
    }
}
