//! A linearizable store with leases: every request takes effect at one instant, or never.
//!
//! **Invariant:** the revision never goes back; a refused request changes nothing.

use crate::time::Micros;
use ha::quorum::SyncRecord;
use ha::{
    Cluster, Epoch, Initialize, Leadership, Member, NodeName, NodeRecord, Promise, Published,
    Settings, Switchover,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub(crate) type LeaseId = u64;

/// What can be guarded and written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Initialize,
    Leader,
    Epoch,
    Sync,
    Lineage,
    Failover,
    Status,
    Settings,
    Failsafe,
    Member(NodeName),
    Node(NodeName),
    Promise(NodeName),
    /// Rewritten by a node before it streams: makes the promises that it gave up void.
    Stance(NodeName),
}

/// A new value for a key; `None` deletes it.
#[derive(Clone, Debug)]
pub(crate) enum Put {
    Initialize(Initialize),
    Leader(Option<NodeName>),
    Epoch(Leadership),
    Sync(Option<SyncRecord>),
    Lineage(Published),
    Failover(Option<Switchover>),
    Status(ha::Lsn),
    Settings(Box<Settings>),
    /// Whom the leader would ask.
    Failsafe(BTreeSet<NodeName>),
    Member(NodeName, Option<Member>),
    Node(NodeName, Option<NodeRecord>),
    Promise(NodeName, Option<Promise>),
    Stance(NodeName, bool),
}

/// All guards hold: everything happens, at one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Txn {
    /// The key was last modified at this revision; 0 is absent.
    pub guards: Vec<(Key, u64)>,
    pub puts: Vec<Put>,
    /// This node holds the leader key in this epoch.
    pub leads: Option<(NodeName, Epoch)>,
    /// The epoch is this one.
    pub epoch: Option<Epoch>,
    /// Renewed; keys put with a lease hang on it.
    pub lease: Option<LeaseId>,
}

impl Txn {
    /// Nothing that anybody waits for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.puts
            .iter()
            .all(|put| matches!(put, Put::Status(_) | Put::Stance(..)))
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Grant,
    Commit(Txn),
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Granted(LeaseId),
    Committed(u64),
    Refused,
    LeaseEnded,
}

/// Everything at one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub revision: u64,
    pub cluster: Cluster,
    pub modified: BTreeMap<Key, u64>,
}

impl Snapshot {
    pub(crate) fn at(&self, key: &Key) -> u64 {
        self.modified.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn unchanged(&self, key: Key) -> (Key, u64) {
        let modified = self.at(&key);
        (key, modified)
    }
}

#[derive(Clone, Debug)]
struct Held {
    ends: Micros,
    member: Option<NodeName>,
    leader: bool,
}

/// The store, wherever it runs.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub up: bool,
    pub current: Rc<Snapshot>,
    leases: BTreeMap<LeaseId, Held>,
    next_lease: LeaseId,
    ttl: Micros,
}

impl Store {
    pub(crate) fn new(cluster: Cluster, ttl: Micros) -> Self {
        let snapshot = Snapshot {
            revision: 1,
            cluster,
            modified: BTreeMap::new(),
        };
        Self {
            up: true,
            current: Rc::new(snapshot),
            leases: BTreeMap::new(),
            next_lease: 1,
            ttl,
        }
    }

    /// One request takes effect now.
    pub(crate) fn apply(&mut self, request: &Request, now: Micros) -> Answer {
        match request {
            Request::Grant => {
                let lease = self.next_lease;
                self.next_lease += 1;
                let held = Held {
                    ends: now + self.ttl,
                    member: None,
                    leader: false,
                };
                self.leases.insert(lease, held);
                Answer::Granted(lease)
            }
            Request::Commit(txn) => self.commit(txn, now),
        }
    }

    fn commit(&mut self, txn: &Txn, now: Micros) -> Answer {
        if txn
            .guards
            .iter()
            .any(|(key, modified)| self.current.at(key) != *modified)
        {
            return Answer::Refused;
        }
        let cluster = &self.current.cluster;
        let current = cluster.current_epoch();
        if txn.epoch.is_some_and(|epoch| epoch != current) {
            return Answer::Refused;
        }
        if let Some((name, epoch)) = &txn.leads
            && (cluster.leader.as_ref() != Some(name) || *epoch != current)
        {
            return Answer::Refused;
        }
        if let Some(lease) = txn.lease {
            let ends = now + self.ttl;
            let Some(held) = self.leases.get_mut(&lease) else {
                return Answer::LeaseEnded;
            };
            held.ends = ends;
        }
        for put in &txn.puts {
            self.put(put, txn.lease);
        }
        Answer::Committed(self.current.revision)
    }

    fn put(&mut self, put: &Put, lease: Option<LeaseId>) {
        let snapshot = Rc::make_mut(&mut self.current);
        let cluster = &mut snapshot.cluster;
        let (key, present) = match put {
            Put::Initialize(value) => {
                cluster.initialize = *value;
                (Key::Initialize, true)
            }
            Put::Leader(value) => {
                cluster.leader.clone_from(value);
                for (id, held) in &mut self.leases {
                    held.leader = value.is_some() && Some(*id) == lease;
                }
                (Key::Leader, value.is_some())
            }
            Put::Epoch(value) => {
                cluster.epoch = Some(value.clone());
                (Key::Epoch, true)
            }
            Put::Sync(value) => {
                cluster.sync.clone_from(value);
                (Key::Sync, value.is_some())
            }
            Put::Lineage(value) => {
                cluster.lineage = Some(value.clone());
                (Key::Lineage, true)
            }
            Put::Failover(value) => {
                cluster.switchover.clone_from(value);
                (Key::Failover, value.is_some())
            }
            Put::Status(value) => {
                cluster.leader_position = *value;
                (Key::Status, true)
            }
            Put::Settings(value) => {
                cluster.settings = (**value).clone();
                (Key::Settings, true)
            }
            Put::Failsafe(names) => {
                let url = |name: &NodeName| (name.clone(), String::new());
                cluster.failsafe = Some(names.iter().map(url).collect());
                (Key::Failsafe, true)
            }
            Put::Member(name, value) => {
                for (id, held) in &mut self.leases {
                    if Some(*id) == lease {
                        held.member = value.is_some().then(|| name.clone());
                    } else if held.member.as_ref() == Some(name) {
                        held.member = None;
                    }
                }
                replace(&mut cluster.members, name, value.as_ref());
                (Key::Member(name.clone()), value.is_some())
            }
            Put::Node(name, value) => {
                replace(&mut cluster.nodes, name, value.as_ref());
                (Key::Node(name.clone()), value.is_some())
            }
            Put::Promise(name, value) => {
                replace(&mut cluster.promises, name, value.as_ref());
                (Key::Promise(name.clone()), value.is_some())
            }
            Put::Stance(name, present) => (Key::Stance(name.clone()), *present),
        };
        snapshot.revision += 1;
        if present {
            snapshot.modified.insert(key, snapshot.revision);
        } else {
            snapshot.modified.remove(&key);
        }
    }

    /// Ends the leases whose time is over; whether anything went with them.
    pub(crate) fn expire(&mut self, now: Micros) -> bool {
        let ended: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, held)| held.ends <= now)
            .map(|(lease, _)| *lease)
            .collect();
        let before = self.current.revision;
        for lease in ended {
            let Some(held) = self.leases.remove(&lease) else {
                continue;
            };
            if held.leader {
                self.put(&Put::Leader(None), None);
            }
            if let Some(name) = held.member {
                self.put(&Put::Member(name, None), None);
            }
        }
        self.current.revision != before
    }

    /// After an outage every lease begins anew: it never ends before its time.
    pub(crate) fn refresh_leases(&mut self, now: Micros) {
        for held in self.leases.values_mut() {
            held.ends = held.ends.max(now + self.ttl);
        }
    }
}

fn replace<T: Clone>(map: &mut BTreeMap<NodeName, T>, name: &NodeName, value: Option<&T>) {
    match value {
        Some(value) => map.insert(name.clone(), value.clone()),
        None => map.remove(name),
    };
}
