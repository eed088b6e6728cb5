//! The replicated state machine: applies committed entries, pushes views, makes and takes snapshots.
//!
//! **Invariant:** the state is what the committed entries up to `last_applied` make of an empty one.
//! **Invariant:** a snapshot that openraft has heard of is on disk.
//! It notes when it saw a lease granted or renewed, and decides nothing from it.

use super::disk::{Contents, Disk};
use super::lease::LeaseTimes;
use super::log::{put, stored};
use super::types::{
    Entry, LogId, NodeId, Peer, SnapshotMeta, StorageError, StoredMembership, Types,
};
use crate::clock;
use crate::kv::{Snapshot, View};
use crate::lock;
use crate::state::{Answer, Command, State};
use crate::views::Views;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use std::collections::BTreeSet;
use std::io::{self, Cursor};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

pub(crate) const SNAPSHOT_META: &str = "snapshot_meta";
pub(crate) const SNAPSHOT_DATA: &str = "snapshot_data";

/// A handle on the state machine; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<Disk>,
    applied: Mutex<Applied>,
    snapshot: Mutex<Option<(SnapshotMeta, Arc<Vec<u8>>)>>,
    views: Views,
    leases_changed: Notify,
}

#[derive(Debug, Default)]
struct Applied {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
    times: LeaseTimes,
}

impl Machine {
    pub(crate) fn new(disk: Arc<Disk>, contents: &Contents) -> io::Result<Self> {
        let mut applied = Applied::default();
        let mut snapshot = None;
        if let Some(meta) = stored::<SnapshotMeta>(contents, SNAPSHOT_META)? {
            let data = contents
                .meta
                .get(SNAPSHOT_DATA)
                .cloned()
                .unwrap_or_default();
            applied = Applied::of(&meta, &data)?;
            snapshot = Some((meta, Arc::new(data)));
        }
        let shared = Shared {
            disk,
            applied: Mutex::new(applied),
            snapshot: Mutex::new(snapshot),
            views: Views::default(),
            leases_changed: Notify::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn read(&self, prefix: &str) -> Snapshot {
        lock(&self.shared.applied).state.snapshot(prefix)
    }

    pub(crate) fn view(&self, prefix: &str) -> View {
        let applied = lock(&self.shared.applied);
        self.shared
            .views
            .follow(prefix, || applied.state.snapshot(prefix))
    }

    /// Asks something of the state and the lease times together.
    pub(crate) fn look<T>(&self, ask: impl FnOnce(&State, &LeaseTimes) -> T) -> T {
        let applied = lock(&self.shared.applied);
        ask(&applied.state, &applied.times)
    }

    /// Who has a vote for certain: by every configuration of the membership that was committed. One that is only in the
    /// log may still need those who vote by the one before it.
    pub(crate) fn votes(&self, id: NodeId) -> bool {
        let applied = lock(&self.shared.applied);
        let configs = applied.membership.membership().get_joint_config();
        !configs.is_empty() && configs.iter().all(|config| config.contains(&id))
    }

    /// A member as the membership in force has it.
    pub(crate) fn peer(&self, id: NodeId) -> Option<Peer> {
        lock(&self.shared.applied)
            .membership
            .membership()
            .get_node(&id)
            .cloned()
    }

    /// Ends when a lease was granted, renewed or ended since the last call.
    pub(crate) async fn leases_changed(&self) {
        self.shared.leases_changed.notified().await;
    }

    /// Closes the file, so that the directory can be opened again.
    pub(crate) async fn close(&self) {
        let disk = Arc::clone(&self.shared.disk);
        if let Err(error) = tokio::task::spawn_blocking(move || disk.close()).await {
            tracing::warn!(%error, "the store's file was not closed well");
        }
    }

    async fn save(&self, meta: SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let changes = vec![
            put(SNAPSHOT_META, &meta)?,
            super::disk::Change::Put(SNAPSHOT_DATA, data.clone()),
        ];
        self.shared.disk.write(changes).await?;
        *lock(&self.shared.snapshot) = Some((meta, Arc::new(data)));
        Ok(())
    }
}

impl Applied {
    fn of(meta: &SnapshotMeta, data: &[u8]) -> io::Result<Self> {
        let state: State = serde_json::from_slice(data)?;
        let times = LeaseTimes::restarted(&state, clock::now());
        let membership = meta.last_membership.clone();
        Ok(Self {
            state,
            last: meta.last_log_id,
            membership,
            times,
        })
    }

    fn apply(&mut self, entry: Entry, touched: &mut BTreeSet<String>) -> Answer {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Answer::Done,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Answer::Done
            }
            EntryPayload::Normal(command) => self.execute(&command, touched),
        }
    }

    fn execute(&mut self, command: &Command, touched: &mut BTreeSet<String>) -> Answer {
        let mut applied = self.state.apply(command);
        touched.append(&mut applied.touched);
        self.times.note(&self.state, command, clock::now());
        applied.answer
    }
}

fn snapshot_of(meta: SnapshotMeta, data: &[u8]) -> openraft::Snapshot<Types> {
    openraft::Snapshot {
        meta,
        snapshot: Box::new(Cursor::new(data.to_vec())),
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = lock(&self.shared.applied);
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut touched = BTreeSet::new();
        let mut applied = lock(&self.shared.applied);
        let answers = entries
            .into_iter()
            .map(|entry| applied.apply(entry, &mut touched))
            .collect();
        self.shared.views.publish(&applied.state, &touched);
        self.shared.leases_changed.notify_one();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let data = snapshot.into_inner();
        let failed = |error: &io::Error| {
            StorageError::from(StorageIOError::write_snapshot(
                Some(meta.signature()),
                error,
            ))
        };
        let new = Applied::of(meta, &data).map_err(|error| failed(&error))?;
        self.save(meta.clone(), data)
            .await
            .map_err(|error| failed(&error))?;
        let mut applied = lock(&self.shared.applied);
        *applied = new;
        self.shared.views.refresh(&applied.state);
        self.shared.leases_changed.notify_one();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::Snapshot<Types>>, StorageError> {
        let snapshot = lock(&self.shared.snapshot);
        Ok(snapshot
            .as_ref()
            .map(|(meta, data)| snapshot_of(meta.clone(), data)))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<Types>, StorageError> {
        let (meta, state) = {
            let applied = lock(&self.shared.applied);
            // The same log position always gives the same state, so it names the snapshot.
            let snapshot_id = applied
                .last
                .map_or_else(String::new, |last| last.to_string());
            let meta = SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id,
            };
            (meta, applied.state.clone())
        };
        let failed = |error: &io::Error| {
            StorageError::from(StorageIOError::write_snapshot(
                Some(meta.signature()),
                error,
            ))
        };
        let data = serde_json::to_vec(&state).map_err(|error| failed(&error.into()))?;
        self.save(meta.clone(), data.clone())
            .await
            .map_err(|error| failed(&error))?;
        Ok(snapshot_of(meta, &data))
    }
}
