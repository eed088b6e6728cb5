//! A disk that is full: the member says that it failed, and pretends nothing.

use crate::kv::{Store, StoreError, Txn};
use crate::raft::RaftStore;
use crate::raft::directory::{Directory, draw_id};
use crate::raft::disk::{Disk, builder};
use crate::raft::options::{Options, Start};
use crate::secret::Secret;
use ha::NodeName;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Debug)]
struct Fillable {
    disk: InMemoryBackend,
    full: Arc<AtomicBool>,
    error: rustix::io::Errno,
}

impl Fillable {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(self.error.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Fillable {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.disk.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.disk.write(offset, data)
    }
}

async fn on_a_disk_that_fails_with(error: rustix::io::Errno) {
    let full = Arc::new(AtomicBool::new(false));
    let backend = Fillable {
        disk: InMemoryBackend::new(),
        full: Arc::clone(&full),
        error,
    };
    let database = builder().create_with_backend(backend).expect("made");
    let (disk, contents) = Disk::start(database, None).expect("opened");
    let directory = Directory {
        disk: Arc::new(disk),
        contents,
        id: draw_id(),
    };
    let name = NodeName::new("a").expect("plain");
    let secret = Secret::new(&[7; 32]).expect("long enough");
    let options = Options::new("/nowhere", "c", name, "127.0.0.1:1", secret, Start::Found);
    let store = RaftStore::in_directory(options, directory)
        .await
        .expect("started");
    store.ready(Duration::from_secs(10)).await.expect("founded");
    store
        .commit(Txn::new().put("/a", "1"))
        .await
        .expect("committed");

    full.store(true, Ordering::SeqCst);
    let error = store
        .commit(Txn::new().put("/a", "2"))
        .await
        .expect_err("the disk is full");
    assert!(matches!(error, StoreError::Fatal(_)), "{error}");
    // For good, also when there is space again: nobody knows what is on the disk.
    full.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store
            .commit(Txn::new().put("/a", "3"))
            .await
            .expect_err("it has failed");
        assert!(matches!(error, StoreError::Fatal(_)), "{error}");
        let error = store.read("/a").await.expect_err("it has failed");
        assert!(matches!(error, StoreError::Fatal(_)), "{error}");
    }
    let told = tokio::time::timeout(Duration::from_secs(5), store.failed()).await;
    assert!(matches!(told, Ok(StoreError::Fatal(_))));
}

#[tokio::test]
async fn a_full_disk_is_fatal_and_said_to_be_so() {
    on_a_disk_that_fails_with(rustix::io::Errno::NOSPC).await;
}

#[tokio::test]
async fn a_broken_disk_is_fatal_and_said_to_be_so() {
    on_a_disk_that_fails_with(rustix::io::Errno::IO).await;
}
