//! What a store holds and how one command changes it: keys, revisions and leases.
//!
//! Every adapter of ours that keeps its own state (memory, Raft) applies the same commands in the same
//! order and so arrives at the same state.
//!
//! **Invariant:** the same commands in the same order give the same state and the same answers.
//! **Invariant:** `revision` never goes back; it rises by one with each command that changes a key.
//! **Invariant:** every key that names a lease is in that lease's list, and no other list.
//!
//! It has no clock: whoever keeps the time proposes [`Command::Expire`], which does nothing when the
//! lease was renewed after the proposer looked.

use crate::kv::{Entry, Guard, LeaseId, Op, Outcome, Revision, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// A change that somebody proposes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    Commit(Txn),
    /// The proposer picks the number, so that a lease of a former cluster is never taken for one of ours.
    Grant {
        lease: LeaseId,
        ttl: Duration,
    },
    Renew(LeaseId),
    Revoke(LeaseId),
    /// Ends the lease if nobody has renewed it since its counter stood at `renewals`.
    Expire {
        lease: LeaseId,
        renewals: u64,
    },
}

/// What the state says to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Outcome(Outcome),
    Done,
    /// The command named a lease that is not there (any more); nothing happened.
    LeaseEnded(LeaseId),
    /// [`Command::Grant`] picked a number in use; pick another.
    LeaseTaken,
    /// [`Command::Expire`] came after a renewal; nothing happened.
    Renewed,
}

/// A lease as every replica knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    /// Counts renewals, so that an expiry can tell whether it still means what it saw.
    pub(crate) renewals: u64,
    pub(crate) keys: BTreeSet<String>,
}

/// An answer and the keys that changed with it.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) answer: Answer,
    pub(crate) touched: BTreeSet<String>,
}

/// Keys, leases and the revision. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    revision: Revision,
    #[serde(with = "entries")]
    entries: BTreeMap<String, Arc<Entry>>,
    leases: BTreeMap<LeaseId, Lease>,
}

impl State {
    pub(crate) fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.leases
    }

    /// Everything under `prefix` as it is now.
    pub(crate) fn snapshot(&self, prefix: &str) -> Snapshot {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let entries = self
            .entries
            .range::<str, _>(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), Arc::clone(entry)))
            .collect();
        Snapshot {
            revision: self.revision,
            entries,
        }
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        let mut touched = BTreeSet::new();
        let answer = match command {
            Command::Commit(txn) => self.commit(txn, &mut touched),
            Command::Grant { lease, ttl } => self.grant(*lease, *ttl),
            Command::Renew(lease) => self.renew(*lease),
            Command::Revoke(lease) => self.end(*lease, &mut touched),
            Command::Expire { lease, renewals } => match self.leases.get(lease) {
                Some(found) if found.renewals != *renewals => Answer::Renewed,
                _ => self.end(*lease, &mut touched),
            },
        };
        Applied { answer, touched }
    }

    fn commit(&mut self, txn: &Txn, touched: &mut BTreeSet<String>) -> Answer {
        if !txn.guards.iter().all(|guard| self.holds(guard)) {
            return Answer::Outcome(Outcome::Refused);
        }
        if let Some(ended) = self.first_ended_lease(txn) {
            return Answer::LeaseEnded(ended);
        }
        if let Some(lease) = txn.renew {
            self.renew(lease);
        }
        let revision = self.revision + 1;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    self.put(key, value, *lease, revision);
                    touched.insert(key.clone());
                }
                Op::Delete { key } => {
                    if self.delete(key) {
                        touched.insert(key.clone());
                    }
                }
            }
        }
        if !touched.is_empty() {
            self.revision = revision;
        }
        Answer::Outcome(Outcome::Committed {
            revision: self.revision,
        })
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Absent { key } => !self.entries.contains_key(key),
            Guard::Present { key } => self.entries.contains_key(key),
            Guard::Unchanged { key, modified } => self
                .entries
                .get(key)
                .is_some_and(|entry| entry.modified == *modified),
            Guard::Equals { key, value } => self
                .entries
                .get(key)
                .is_some_and(|entry| entry.value == *value),
        }
    }

    fn first_ended_lease(&self, txn: &Txn) -> Option<LeaseId> {
        let named = txn.ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        named
            .chain(txn.renew)
            .find(|lease| !self.leases.contains_key(lease))
    }

    fn put(&mut self, key: &str, value: &str, lease: Option<LeaseId>, revision: Revision) {
        let before = self.entries.get(key);
        let created = before.map_or(revision, |entry| entry.created);
        if let Some(old) = before.and_then(|entry| entry.lease)
            && let Some(old) = self.leases.get_mut(&old)
        {
            old.keys.remove(key);
        }
        if let Some(new) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            new.keys.insert(key.to_owned());
        }
        let entry = Entry {
            value: value.to_owned(),
            created,
            modified: revision,
            lease,
        };
        self.entries.insert(key.to_owned(), Arc::new(entry));
    }

    fn delete(&mut self, key: &str) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        if let Some(lease) = entry.lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
        true
    }

    fn grant(&mut self, lease: LeaseId, ttl: Duration) -> Answer {
        // 0 means "no lease" on the wire of etcd; it stays free here too.
        if lease.0 == 0 || self.leases.contains_key(&lease) {
            return Answer::LeaseTaken;
        }
        self.leases.insert(
            lease,
            Lease {
                ttl,
                renewals: 0,
                keys: BTreeSet::new(),
            },
        );
        Answer::Done
    }

    fn renew(&mut self, lease: LeaseId) -> Answer {
        let Some(found) = self.leases.get_mut(&lease) else {
            return Answer::LeaseEnded(lease);
        };
        found.renewals += 1;
        Answer::Done
    }

    fn end(&mut self, lease: LeaseId, touched: &mut BTreeSet<String>) -> Answer {
        let Some(ended) = self.leases.remove(&lease) else {
            return Answer::LeaseEnded(lease);
        };
        for key in &ended.keys {
            self.entries.remove(key);
        }
        if !ended.keys.is_empty() {
            self.revision += 1;
        }
        touched.extend(ended.keys);
        Answer::Done
    }
}

/// Entries are shared in memory and plain on disk.
mod entries {
    use crate::kv::Entry;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(
        entries: &BTreeMap<String, Arc<Entry>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let plain: BTreeMap<&String, &Entry> = entries
            .iter()
            .map(|(key, entry)| (key, entry.as_ref()))
            .collect();
        plain.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Arc<Entry>>, D::Error> {
        let plain = BTreeMap::<String, Entry>::deserialize(deserializer)?;
        Ok(plain
            .into_iter()
            .map(|(key, entry)| (key, Arc::new(entry)))
            .collect())
    }
}

#[cfg(test)]
mod tests;
