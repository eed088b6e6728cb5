//! Tests of the storage underneath Raft: openraft's own, crashes, growth.

mod crash;
mod full;
mod growth;
mod suite;

use super::disk::{Disk, builder};
use super::log::LogStore;
use super::machine::Machine;
use super::types::{Entry, LogId};
use crate::kv::Txn;
use crate::state::Command;
use openraft::{CommittedLeaderId, EntryPayload};
use std::io;
use std::sync::Arc;

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64, txn: Txn) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Command::Commit(txn)),
    }
}

/// Opens a store on any redb database.
fn open(database: redb::Database) -> io::Result<(LogStore, Machine)> {
    let (disk, contents) = Disk::start(database, None)?;
    let disk = Arc::new(disk);
    Ok((
        LogStore::new(Arc::clone(&disk), &contents, 0)?,
        Machine::new(disk, &contents)?,
    ))
}

fn open_backend(backend: impl redb::StorageBackend) -> io::Result<(LogStore, Machine)> {
    open(
        builder()
            .create_with_backend(backend)
            .map_err(io::Error::other)?,
    )
}
