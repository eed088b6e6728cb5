//! Raft's log, vote and commit mark, as openraft wants them.
//!
//! **Invariant:** a vote and an entry are on disk before openraft hears so.
//! **Invariant:** memory and disk hold the same log; reads are answered from memory.
//! The commit mark rides along with the next write: it only saves work after a restart.

use super::disk::{Change, Contents, Disk};
use super::types::{Entry, LogId, NodeId, StorageError, Types, Vote};
use crate::lock;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogId, RaftLogReader, StorageIOError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};

pub(crate) const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
pub(crate) const PURGED: &str = "purged";

/// A handle on the log; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    committed_is_written: bool,
    purged: Option<LogId>,
}

impl LogStore {
    pub(crate) fn new(disk: Arc<Disk>, contents: &Contents, id: NodeId) -> io::Result<Self> {
        let purged: Option<LogId> = stored(contents, PURGED)?.flatten();
        let mut entries = BTreeMap::new();
        for (index, bytes) in &contents.log {
            entries.insert(*index, serde_json::from_slice(bytes)?);
        }
        let memory = Memory {
            entries,
            vote: stored(contents, VOTE)?.map(|vote| restarted(vote, id)),
            committed: stored(contents, COMMITTED)?.flatten(),
            committed_is_written: true,
            purged,
        };
        Ok(Self {
            disk,
            memory: Arc::new(Mutex::new(memory)),
        })
    }

    /// Every entry in memory, for rebuilding a cluster from one member.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        lock(&self.memory).entries.values().cloned().collect()
    }

    pub(crate) fn last_vote(&self) -> Option<Vote> {
        lock(&self.memory).vote
    }
}

/// A leader does not go on as one after a restart; it asks for votes again.
///
/// openraft would let it go on within its term, and then serve reads at the commit mark that it finds on
/// its disk, which lags behind what was acknowledged before.
fn restarted(vote: Vote, id: NodeId) -> Vote {
    match vote.leader_id().voted_for() {
        Some(candidate) if candidate == id => Vote::new(vote.leader_id().term, id),
        _ => vote,
    }
}

/// Reads one value of the meta table.
pub(crate) fn stored<T: DeserializeOwned>(contents: &Contents, key: &str) -> io::Result<Option<T>> {
    match contents.meta.get(key) {
        Some(bytes) => Ok(Some(serde_json::from_slice(bytes)?)),
        None => Ok(None),
    }
}

/// A change that sets one value of the meta table.
pub(crate) fn put(key: &'static str, value: &impl Serialize) -> io::Result<Change> {
    Ok(Change::Put(key, serde_json::to_vec(value)?))
}

impl Memory {
    fn unwritten_commit_mark(&mut self) -> io::Result<Option<Change>> {
        if self.committed_is_written {
            return Ok(None);
        }
        self.committed_is_written = true;
        put(COMMITTED, &self.committed).map(Some)
    }
}

fn logs_failed(error: &io::Error) -> StorageError {
    StorageIOError::write_logs(error).into()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(lock(&self.memory)
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let memory = lock(&self.memory);
        let last = memory
            .entries
            .values()
            .next_back()
            .map(|entry| *entry.get_log_id());
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: last.or(memory.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &openraft::Vote<NodeId>) -> Result<(), StorageError> {
        let failed = |error: &io::Error| StorageError::from(StorageIOError::write_vote(error));
        let change = put(VOTE, vote).map_err(|error| failed(&error))?;
        self.disk
            .write(vec![change])
            .await
            .map_err(|error| failed(&error))?;
        lock(&self.memory).vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(lock(&self.memory).vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let mut memory = lock(&self.memory);
        memory.committed = committed;
        memory.committed_is_written = false;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(lock(&self.memory).committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        let changes = {
            let mut memory = lock(&self.memory);
            for entry in entries {
                let bytes =
                    serde_json::to_vec(&entry).map_err(|error| logs_failed(&error.into()))?;
                rows.push((entry.log_id.index, bytes));
                memory.entries.insert(entry.log_id.index, entry);
            }
            let mark = memory
                .unwritten_commit_mark()
                .map_err(|error| logs_failed(&error))?;
            std::iter::once(Change::Append(rows)).chain(mark).collect()
        };
        self.disk
            .submit(changes, move |result| callback.log_io_completed(result));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        lock(&self.memory).entries.split_off(&log_id.index);
        let changes = vec![Change::Truncate(log_id.index)];
        self.disk
            .write(changes)
            .await
            .map_err(|error| logs_failed(&error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purged = put(PURGED, &Some(log_id)).map_err(|error| logs_failed(&error))?;
        {
            let mut memory = lock(&self.memory);
            memory.purged = Some(log_id);
            memory.entries = memory.entries.split_off(&(log_id.index + 1));
        }
        let changes = vec![Change::Purge(log_id.index), purged];
        self.disk
            .write(changes)
            .await
            .map_err(|error| logs_failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_asks_for_votes_again_after_a_restart() {
        let (me, other) = (7, 8);
        assert_eq!(restarted(Vote::new_committed(3, me), me), Vote::new(3, me));
        assert_eq!(restarted(Vote::new(3, me), me), Vote::new(3, me));
        // What it promised to others stays promised.
        assert_eq!(
            restarted(Vote::new_committed(3, other), me),
            Vote::new_committed(3, other)
        );
    }
}
