//! Power failures at every moment of a stream of changes.
//!
//! The disk of these tests keeps what was written apart from what was fsynced. At a chosen operation the
//! power fails: of the writes since the last fsync some are there, some are not, some are torn. After a
//! restart the store must be as it was before or after the change in flight, and nothing else.

use super::{entry, log_id, open_backend};
use crate::kv::Txn;
use crate::lock;
use crate::raft::log::LogStore;
use crate::raft::machine::Machine;
use crate::raft::types::Vote;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::sync::{Arc, Mutex};

/// A disk that can lose power.
#[derive(Clone, Debug)]
struct Platter(Arc<Mutex<Sectors>>);

#[derive(Debug)]
struct Sectors {
    /// What a reader sees while the power is on.
    seen: Vec<u8>,
    /// What was there at the last fsync.
    synced: Vec<u8>,
    /// What happened since.
    unsynced: Vec<Change>,
    operations: u64,
    fails_at: u64,
    /// What is left, once the power has failed.
    remains: Option<Vec<u8>>,
    forgets_to_sync: bool,
    rng: StdRng,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn perform(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => image.resize(*length, 0),
        Change::Write(at, bytes) => {
            if image.len() < at + bytes.len() {
                image.resize(at + bytes.len(), 0);
            }
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl Platter {
    fn new(image: Vec<u8>, fails_at: u64, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Sectors {
            seen: image.clone(),
            synced: image,
            unsynced: vec![],
            operations: 0,
            fails_at,
            remains: None,
            forgets_to_sync: false,
            rng: StdRng::seed_from_u64(seed),
        })))
    }

    /// What a restart finds; without a power failure, all that was written.
    fn remains(&self) -> Vec<u8> {
        let sectors = lock(&self.0);
        sectors
            .remains
            .clone()
            .unwrap_or_else(|| sectors.seen.clone())
    }

    fn has_failed(&self) -> bool {
        lock(&self.0).remains.is_some()
    }

    fn operations(&self) -> u64 {
        lock(&self.0).operations
    }

    fn operate<T>(&self, work: impl FnOnce(&mut Sectors) -> io::Result<T>) -> io::Result<T> {
        let mut sectors = lock(&self.0);
        if sectors.remains.is_none() && sectors.operations == sectors.fails_at {
            sectors.fail();
        }
        sectors.operations += 1;
        if sectors.remains.is_some() {
            return Err(io::Error::other("the power is off"));
        }
        work(&mut sectors)
    }
}

impl Sectors {
    fn fail(&mut self) {
        let mut image = self.synced.clone();
        for change in &self.unsynced {
            match (change, self.rng.random_range(0..3)) {
                (_, 0) => {}
                (Change::Write(at, bytes), 1) => {
                    let torn = self.rng.random_range(0..=bytes.len());
                    perform(&mut image, &Change::Write(*at, bytes[..torn].to_vec()));
                }
                (change, _) => perform(&mut image, change),
            }
        }
        self.remains = Some(image);
    }
}

impl redb::StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let sectors = lock(&self.0);
        let at = usize::try_from(offset).expect("small");
        let bytes = sectors.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let change = Change::Length(usize::try_from(len).expect("small"));
        self.operate(|sectors| {
            perform(&mut sectors.seen, &change);
            sectors.unsynced.push(change);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(|sectors| {
            if !sectors.forgets_to_sync {
                sectors.synced = sectors.seen.clone();
                sectors.unsynced.clear();
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write(usize::try_from(offset).expect("small"), data.to_vec());
        self.operate(|sectors| {
            perform(&mut sectors.seen, &change);
            sectors.unsynced.push(change);
            Ok(())
        })
    }
}

/// What must survive, in a form that is easy to compare and to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<u64>,
    log: Vec<String>,
    snapshot: Option<(String, usize)>,
}

async fn kept(log: &mut LogStore, machine: &mut Machine) -> Kept {
    let entries = log.try_get_log_entries(..).await.expect("read");
    let snapshot = machine.get_current_snapshot().await.expect("read");
    Kept {
        vote: log.read_vote().await.expect("read"),
        purged: log
            .get_log_state()
            .await
            .expect("read")
            .last_purged_log_id
            .map(|id| id.index),
        log: entries.iter().map(|entry| format!("{entry:?}")).collect(),
        snapshot: snapshot.map(|snapshot| {
            (
                snapshot.meta.snapshot_id,
                snapshot.snapshot.into_inner().len(),
            )
        }),
    }
}

/// A store under test with what it has promised to keep.
struct Run {
    log: LogStore,
    machine: Machine,
    rng: StdRng,
    term: u64,
    first: u64,
    next: u64,
    promised: Kept,
}

impl Run {
    async fn begin(platter: &Platter, seed: u64) -> io::Result<Self> {
        let (mut log, mut machine) = open_backend(platter.clone())?;
        let promised = kept(&mut log, &mut machine).await;
        let rng = StdRng::seed_from_u64(seed);
        Ok(Self {
            log,
            machine,
            rng,
            term: 1,
            first: 0,
            next: 0,
            promised,
        })
    }

    /// One change. Ends with an error when the power failed during it: then `promised` is what was there
    /// before, and what is returned is what may be there as well.
    async fn change(&mut self) -> Result<(), Kept> {
        let mut after = self.promised.clone();
        let result = match self.rng.random_range(0..10) {
            0 | 1 => {
                self.term += 1;
                let vote = Vote::new(self.term, 1);
                after.vote = Some(vote);
                self.log.save_vote(&vote).await
            }
            2 if self.next > self.first + 2 => {
                let from = self.rng.random_range(self.first + 1..self.next);
                after
                    .log
                    .truncate(usize::try_from(from - self.first).expect("small"));
                self.next = from;
                self.term += 1;
                self.log.truncate(log_id(self.term, from)).await
            }
            3 if self.next > self.first + 3 => return self.compact().await,
            _ => {
                let count = self.rng.random_range(1..4);
                let entries: Vec<_> = (self.next..self.next + count)
                    .map(|index| {
                        let value = "x".repeat(self.rng.random_range(0..3000));
                        entry(
                            self.term,
                            index,
                            Txn::new().put(format!("/{}", index % 7), value),
                        )
                    })
                    .collect();
                after
                    .log
                    .extend(entries.iter().map(|entry| format!("{entry:?}")));
                self.next += count;
                // The mark rides along with these.
                self.log
                    .save_committed(Some(log_id(self.term, self.next)))
                    .await
                    .expect("noted");
                self.log.blocking_append(entries).await
            }
        };
        self.keep(result.is_ok(), after)
    }

    /// A snapshot, and then, as a change of its own, the purge that it allows.
    async fn compact(&mut self) -> Result<(), Kept> {
        let upto = self.rng.random_range(self.first..self.next - 1);
        let entries = self
            .log
            .try_get_log_entries(self.first..=upto)
            .await
            .expect("read");
        let last = entries.last().expect("not empty").log_id;
        self.machine.apply(entries).await.expect("applied");
        let mut after = self.promised.clone();
        let built = self.machine.build_snapshot().await;
        if let Ok(snapshot) = &built {
            after.snapshot = Some((
                snapshot.meta.snapshot_id.clone(),
                snapshot.snapshot.get_ref().len(),
            ));
        } else {
            // Its size is not known here; ask what remains.
            after.snapshot = Some((last.to_string(), usize::MAX));
        }
        self.keep(built.is_ok(), after)?;
        let mut after = self.promised.clone();
        after.purged = Some(upto);
        after
            .log
            .drain(..usize::try_from(upto + 1 - self.first).expect("small"));
        self.first = upto + 1;
        let purged = self.log.purge(last).await;
        self.keep(purged.is_ok(), after)
    }

    fn keep(&mut self, done: bool, after: Kept) -> Result<(), Kept> {
        if done {
            self.promised = after;
            Ok(())
        } else {
            Err(after)
        }
    }
}

fn same(found: &Kept, expected: &Kept) -> bool {
    let mut found = found.clone();
    if let (Some((_, size)), Some((_, usize::MAX))) = (&mut found.snapshot, &expected.snapshot) {
        *size = usize::MAX;
    }
    found == *expected
}

/// A new file: it is made under another name, so no power failure can catch it half made.
fn new_file() -> Vec<u8> {
    let platter = Platter::new(vec![], u64::MAX, 0);
    drop(open_backend(platter.clone()).expect("made"));
    platter.remains()
}

/// Runs until the power fails at operation `fails_at`, restarts, and says what was lost.
async fn lost(seed: u64, fails_at: u64, forgets_to_sync: bool) -> Option<String> {
    let platter = Platter::new(new_file(), fails_at, seed);
    lock(&platter.0).forgets_to_sync = forgets_to_sync;
    let (promised, in_flight) = match Run::begin(&platter, seed).await {
        Err(_) => (Kept::default(), None),
        Ok(mut run) => {
            let mut in_flight = None;
            for _ in 0..60 {
                if let Err(after) = run.change().await {
                    in_flight = Some(after);
                    break;
                }
            }
            (run.promised, in_flight)
        }
    };
    // Everything was closed here, which a real power failure does not wait for: `remains` is from before.
    let again = Platter::new(platter.remains(), u64::MAX, seed);
    let mut run = match Run::begin(&again, seed).await {
        Ok(run) => run,
        Err(error) => return Some(format!("cannot be opened: {error}")),
    };
    let found = &run.promised;
    let as_before = same(found, &promised);
    let as_after = in_flight.as_ref().is_some_and(|after| same(found, after));
    if !as_before && !as_after {
        return Some(format!("promised {promised:#?}\nfound {found:#?}"));
    }
    // And it goes on.
    run.next = run.promised.log.len() as u64 + run.promised.purged.map_or(0, |purged| purged + 1);
    run.first = run.next - run.promised.log.len() as u64;
    let vote = Vote::new(u64::MAX, 1);
    run.log.save_vote(&vote).await.expect("writable again");
    assert!(platter.has_failed() || fails_at >= platter.operations());
    None
}

#[tokio::test]
async fn a_power_failure_at_any_moment_loses_nothing_that_was_promised() {
    for seed in 0..250 {
        let fails_at = StdRng::seed_from_u64(seed).random_range(0..600);
        if let Some(loss) = lost(seed, fails_at, false).await {
            panic!("seed {seed}, power failure at operation {fails_at}: {loss}");
        }
    }
}

#[tokio::test]
async fn a_forgotten_fsync_is_found_out() {
    let mut found_out = 0;
    for seed in 0..30 {
        let fails_at = StdRng::seed_from_u64(seed).random_range(100..600);
        found_out += usize::from(lost(seed, fails_at, true).await.is_some());
    }
    assert!(
        found_out > 20,
        "only {found_out} of 30 lost writes were found out"
    );
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_said_to_be_written() {
    let platter = Platter::new(new_file(), 120, 1);
    let mut run = Run::begin(&platter, 1).await.expect("opened");
    while run.change().await.is_ok() {}
    for _ in 0..5 {
        run.log
            .save_vote(&Vote::new(99, 1))
            .await
            .expect_err("the disk is gone");
        let entries = [entry(99, run.next, Txn::new())];
        run.log
            .blocking_append(entries)
            .await
            .expect_err("the disk is gone");
    }
}
