//! One redb file and the one thread that writes it.
//!
//! **Invariant:** a change is reported as done only after the transaction that holds it was fsynced.
//! **Invariant:** changes are written in the order in which they were submitted; after the first failure
//! nothing is reported as done again.
//!
//! It knows bytes, not Raft.

use crate::lock;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// redb's own default cache is 1 GiB. Everything that is read often is in our memory anyway.
const CACHE_BYTES: usize = 1 << 20;

/// So many waiting changes share one fsync at most.
const GROUP_CHANGES_MAX: usize = 64;

/// Something to be written.
#[derive(Debug)]
pub(crate) enum Change {
    Append(Vec<(u64, Vec<u8>)>),
    /// Forget the log from here on, inclusive.
    Truncate(u64),
    /// Forget the log up to here, inclusive.
    Purge(u64),
    Put(&'static str, Vec<u8>),
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    changes: Vec<Change>,
    done: Done,
}

/// The file's writer.
pub(crate) struct Disk {
    open: Mutex<Option<Open>>,
}

struct Open {
    jobs: Sender<Job>,
    writer: JoinHandle<()>,
    /// Held until the file is closed.
    lock: Option<File>,
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) log: Vec<(u64, Vec<u8>)>,
    pub(crate) meta: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

/// The settings that every opened database has.
pub(crate) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl Disk {
    /// Reads everything and starts the writer.
    pub(crate) fn start(database: Database, lock: Option<File>) -> io::Result<(Self, Contents)> {
        let contents = load(&database).map_err(into_io)?;
        let (jobs, queue) = channel();
        let writer = std::thread::Builder::new()
            .name("store-disk".into())
            .spawn(move || write_loop(&database, &queue))?;
        Ok((
            Self {
                open: Mutex::new(Some(Open { jobs, writer, lock })),
            },
            contents,
        ))
    }

    /// Queues changes that become durable together, or not at all; `done` hears when.
    pub(crate) fn submit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let job = Job {
            changes,
            done: Box::new(done),
        };
        let refused = match &*lock(&self.open) {
            Some(open) => open.jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(stopped()));
        }
    }

    /// Writes and waits.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.submit(changes, move |result| {
            // Nobody listens any more: the write stays written.
            let _ = done.send(result);
        });
        durable.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// As [`Disk::write`], for a thread that may block.
    pub(crate) fn write_now(&self, changes: Vec<Change>) -> io::Result<()> {
        let (done, durable) = channel();
        self.submit(changes, move |result| drop(done.send(result)));
        durable.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

impl Disk {
    /// Waits until everything is written and the file is closed. Later writes fail.
    pub(crate) fn close(&self) {
        let Some(Open { jobs, writer, lock }) = lock(&self.open).take() else {
            return;
        };
        drop(jobs);
        // A panicked writer has reported its failure by dropping the jobs.
        let _ = writer.join();
        drop(lock);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

fn stopped() -> io::Error {
    io::Error::other("the store's file is closed")
}

fn write_loop(database: &Database, queue: &Receiver<Job>) {
    let mut failed: Option<String> = None;
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_CHANGES_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        if failed.is_none()
            && let Err(error) = commit(database, &group)
        {
            // Said here once; every later write fails with the same words.
            tracing::error!(%error, "the store's file cannot be written");
            failed = Some(error.to_string());
        }
        for job in group {
            (job.done)(match &failed {
                None => Ok(()),
                Some(error) => Err(io::Error::other(error.clone())),
            });
        }
    }
}

fn commit(database: &Database, group: &[Job]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut log = transaction.open_table(LOG)?;
        let mut meta = transaction.open_table(META)?;
        for change in group.iter().flat_map(|job| &job.changes) {
            match change {
                Change::Append(entries) => {
                    for (index, bytes) in entries {
                        log.insert(*index, bytes.as_slice())?;
                    }
                }
                Change::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                Change::Purge(upto) => log.retain_in(..=*upto, |_, _| false)?,
                Change::Put(key, bytes) => {
                    meta.insert(*key, bytes.as_slice())?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Contents, redb::Error> {
    // Opening the tables for writing creates them in a new file.
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(META)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for row in transaction.open_table(LOG)?.iter()? {
        let (index, bytes) = row?;
        contents.log.push((index.value(), bytes.value().to_vec()));
    }
    for row in transaction.open_table(META)?.iter()? {
        let (key, bytes) = row?;
        contents
            .meta
            .insert(key.value().to_owned(), bytes.value().to_vec());
    }
    Ok(contents)
}

fn into_io(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
