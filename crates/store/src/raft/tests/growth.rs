//! The file does not grow for ever.

use super::{entry, open};
use crate::kv::Txn;
use crate::raft::disk::builder;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};

const ENTRIES: u64 = 20_000;
const SNAPSHOT_EVERY: u64 = 2_000;
const KEPT: u64 = 500;

#[tokio::test]
async fn twenty_thousand_entries_leave_a_small_file() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("store.redb");
    let (mut log, mut machine) = open(builder().create(&path).expect("created")).expect("opened");
    let mut largest = Vec::new();
    let value = "v".repeat(300);
    for batch in 0..ENTRIES / 20 {
        let entries: Vec<_> = (batch * 20..(batch + 1) * 20)
            .map(|index| {
                entry(
                    1,
                    index,
                    Txn::new().put(format!("/{}", index % 1000), &value),
                )
            })
            .collect();
        log.blocking_append(entries.clone()).await.expect("written");
        let last = entries.last().expect("twenty").log_id;
        log.save_committed(Some(last)).await.expect("noted");
        machine.apply(entries).await.expect("applied");
        if (last.index + 1).is_multiple_of(SNAPSHOT_EVERY) {
            machine.build_snapshot().await.expect("built");
            log.purge(super::log_id(1, last.index - KEPT))
                .await
                .expect("purged");
            largest.push(std::fs::metadata(&path).expect("there").len());
        }
    }
    // It reaches its size with the first few snapshots and keeps it.
    let (early, late) = (largest[2], largest[largest.len() - 1]);
    assert!(late <= early.max(8 << 20), "{largest:?}");
}
