//! openraft's own examination of a storage.

use super::open;
use crate::raft::disk::builder;
use crate::raft::log::LogStore;
use crate::raft::machine::Machine;
use crate::raft::types::{StorageError, Types};
use openraft::StorageIOError;
use openraft::testing::{StoreBuilder, Suite};

struct InDirectory;

impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for InDirectory {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let failed = |error: &std::io::Error| StorageError::from(StorageIOError::write(error));
        let home = tempfile::tempdir().map_err(|error| failed(&error))?;
        let database = builder()
            .create(home.path().join("store.redb"))
            .expect("created");
        let (log, machine) = open(database).map_err(|error| failed(&error))?;
        Ok((home, log, machine))
    }
}

#[test]
fn openraft_finds_nothing_wrong() {
    Suite::test_all(InDirectory).expect("a storage that does what Raft needs");
}
