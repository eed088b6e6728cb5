//! The cluster's configuration of Postgres, taken as soon as it has changed.
//!
//! Before a start the shell takes it by itself; here it reaches an instance that runs.
//!
//! **Invariant:** no decision and no action waits for it.

use super::Agent;
use crate::known::all_have_told;
use crate::shell::{permanent, shared};
use crate::steps::Steps;
use ha::{DataDir, Instant, Lsn};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::layout::{ConfigRecord, Keys};
use store::{Revision, Snapshot};
use tokio::task::JoinHandle;

/// What could not be taken is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// How long members may take to say which configuration they remember.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What was taken, and what is being taken.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// The revision of the configuration that was taken last; 0: none.
    taken: Arc<AtomicU64>,
    /// The one that callbacks were told of.
    told: Revision,
    tried: Option<(Revision, Instant)>,
    task: Option<JoinHandle<()>>,
    /// The permanent slots of the configuration.
    permanent: BTreeSet<String>,
    /// The configuration that they were read of.
    read: Option<String>,
    /// Since when this node leads without a configuration in the store.
    gone: Option<Instant>,
    /// When one was put back.
    put_back: Option<Instant>,
    logical: BTreeMap<String, postgres::LogicalSlot>,
    member_slots_ttl: Option<Duration>,
    positions: Positions,
}

/// Where this node's slots were when they were looked at last.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions(Arc<Mutex<BTreeMap<String, Lsn>>>);

impl Positions {
    pub(super) fn take(&self, positions: BTreeMap<String, Lsn>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = positions;
    }
}

impl Sharing {
    pub(super) fn positions(&self) -> Positions {
        self.positions.clone()
    }

    /// Where the permanent slots are, for the standbys' own.
    pub(super) fn published(&self) -> BTreeMap<String, Lsn> {
        let names = &self.permanent;
        let mut positions = match names.is_empty() {
            true => BTreeMap::new(),
            false => self
                .positions
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        };
        positions.retain(|name, _| names.contains(name));
        positions
    }

    pub(super) fn member_slots_ttl(&self) -> Option<Duration> {
        self.member_slots_ttl
    }

    /// The permanent logical slots.
    pub(super) fn logical(&self) -> &BTreeMap<String, postgres::LogicalSlot> {
        &self.logical
    }

    /// The permanent slots, with the place that a standby's has to be at.
    pub(super) fn permanent(
        &self,
        keys: &Keys,
        snapshot: &Snapshot,
        leads: bool,
    ) -> BTreeMap<String, Option<Lsn>> {
        let names = &self.permanent;
        match names.is_empty() {
            true => BTreeMap::new(),
            false => permanent(keys, snapshot, leads),
        }
    }

    /// Another configuration may name other slots. What can't be made is said once.
    fn read_slots(&mut self, text: &str) {
        if self.read.as_deref() == Some(text) {
            return;
        }
        let Ok(record) = serde_json::from_str::<ConfigRecord>(text) else {
            return;
        };
        self.member_slots_ttl = record.member_slots_ttl().unwrap_or_default();
        let slots = record.permanent_slots();
        for (slot, why) in &slots.unusable {
            tracing::warn!(slot, why, "a permanent slot is not made");
        }
        self.read = Some(text.to_owned());
        self.permanent = slots.physical;
        let logical = slots.logical.into_iter();
        self.logical = logical
            .map(|(name, (database, plugin))| (name, postgres::LogicalSlot { database, plugin }))
            .collect();
    }

    fn is_due(&self, revision: Revision, at: Instant) -> bool {
        let busy = self.task.as_ref().is_some_and(|task| !task.is_finished());
        let tried = self
            .tried
            .is_some_and(|(of, when)| of == revision && at.since(when) < AGAIN);
        !busy && !tried && self.taken.load(Ordering::SeqCst) != revision
    }
}

impl Agent {
    pub(super) fn share(&mut self, snapshot: &Snapshot, data: &DataDir, at: Instant) {
        let taken = self.sharing.taken.load(Ordering::SeqCst);
        if self.reloaded.swap(false, Ordering::SeqCst) {
            self.callbacks.reloaded();
        }
        if taken != self.sharing.told {
            // What an agent takes when it starts is, as a rule, what Postgres has already.
            if self.sharing.told != 0 {
                self.callbacks.reloaded();
            }
            self.sharing.told = taken;
        }
        let Some(entry) = snapshot.entries.get(&self.shell.keys.config()) else {
            return;
        };
        let revision = entry.modified;
        self.sharing.read_slots(&entry.value);
        if entry.is_remembered() {
            self.put_back(snapshot, at);
            return;
        }
        self.sharing.gone = None;
        self.remember_config(snapshot, data);
        if self.memory.running.is_some() || !self.sharing.is_due(revision, at) {
            return;
        }
        self.sharing.tried = Some((revision, at));
        let (instance, taken) = (self.shell.instance.clone(), Arc::clone(&self.sharing.taken));
        let read = shared(&entry.value);
        self.sharing.task = Some(tokio::spawn(async move {
            let shared = match read {
                Ok(shared) => shared,
                // Said once; only another configuration helps.
                Err(why) => {
                    tracing::warn!(
                        why,
                        "postgresql in the cluster's configuration is not taken"
                    );
                    taken.store(revision, Ordering::SeqCst);
                    return;
                }
            };
            match instance.share(&shared).await {
                Ok(()) => taken.store(revision, Ordering::SeqCst),
                Err(error) => tracing::warn!(
                    error = super::chain(&error),
                    "the cluster's configuration of Postgres is not taken yet"
                ),
            }
        }));
    }

    /// On disk too, for an agent that starts when the store has it no more.
    fn remember_config(&self, snapshot: &Snapshot, data: &DataDir) {
        let known = Arc::clone(&self.shell.known);
        let data = match data {
            DataDir::Ready(system) => Some(*system),
            DataDir::Empty | DataDir::Unfinished | DataDir::Unusable(_) => None,
        };
        if known.take(&self.shell.keys, snapshot, data) {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = known.write() {
                    tracing::warn!(%error, "the cluster's configuration is not kept on disk");
                }
            });
        }
    }

    /// It is gone from the store, and this node leads: it comes back as it was, once the others have said what they
    /// know, or have had the time to.
    fn put_back(&mut self, snapshot: &Snapshot, at: Instant) {
        let tried = self.sharing.put_back;
        if self.tenure.office().is_none() {
            self.sharing.gone = None;
            return;
        }
        let (keys, me) = (&self.shell.keys, &self.shell.me);
        let waited = at.since(*self.sharing.gone.get_or_insert(at)) >= TOLD_WITHIN;
        let told = waited || all_have_told(keys, snapshot);
        if !told || tried.is_some_and(|when| at.since(when) < AGAIN) {
            return;
        }
        let Some(config) = snapshot.value(&keys.config()) else {
            return;
        };
        self.sharing.put_back = Some(at);
        let seen = snapshot;
        let txn = Steps { keys, me, seen }.put_back(config);
        let store = Arc::clone(&self.shell.store);
        tokio::spawn(async move {
            match store.commit(txn).await {
                Ok(outcome) if outcome.is_committed() => tracing::warn!(
                    "the cluster's configuration was gone from the store: it is put back as it was"
                ),
                // Somebody has written another one.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the configuration is not put back yet"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_is_taken_once_and_tried_again_in_time() {
        let at = |seconds| Instant::default().plus(Duration::from_secs(seconds));
        let mut sharing = Sharing::default();
        assert!(sharing.is_due(3, at(10)));
        sharing.tried = Some((3, at(10)));
        assert!(!sharing.is_due(3, at(12)), "it has just failed");
        assert!(sharing.is_due(4, at(12)), "another one may do better");
        assert!(sharing.is_due(3, at(15)));
        sharing.taken.store(3, Ordering::SeqCst);
        assert!(!sharing.is_due(3, at(99)));
    }
}
