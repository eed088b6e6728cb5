//! The client that counts every acknowledged row: writers that insert numbered rows without pause,
//! wherever the primary is, and an audit of what became of them.
//!
//! **Invariant:** a row counts as acknowledged only if the server said so without a warning about
//! its replication; whatever is doubtful is `Unknown`, and never tried again under the same number.

mod audit;
mod busy;
mod connect;
mod history;
mod writer;

pub use audit::Verdict;
pub use busy::Busy;
pub use history::{DualAck, Gap, History, Operation, Outcome};

use anyhow::{Context, Result};
use connect::Route;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::Config;

/// How a ledger writes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the beginning of one insert to that of the next.
    pub interval: Duration,
    /// After this long without an answer the outcome is unknown and the writer looks elsewhere.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(10),
            patience: Duration::from_millis(500),
        }
    }
}

/// Ledgers that follow each other write to the same table: no two writers share a number.
static WRITERS: AtomicU32 = AtomicU32::new(0);

/// Writers at work. They stop when this is dropped.
#[derive(Debug)]
pub struct Ledger {
    route: Arc<Route>,
    begun: Instant,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    writers: Vec<JoinHandle<Vec<Operation>>>,
    busy: Vec<Busy>,
}

/// What the writers have seen so far, for a live display.
#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: AtomicU64,
    pub failed: AtomicU64,
    pub unknown: AtomicU64,
    /// When the last row was acknowledged, in milliseconds since the ledger was opened.
    pub last_acknowledged_ms: AtomicU64,
}

impl Ledger {
    /// Makes the table and sets `writers` to work at the usual pace.
    pub async fn open(targets: Vec<Config>, writers: u32) -> Result<Self> {
        Self::open_with(targets, writers, Pace::default()).await
    }

    pub async fn open_with(targets: Vec<Config>, writers: u32, pace: Pace) -> Result<Self> {
        let route = Arc::new(Route::new(targets));
        make_table(&route).await?;
        let begun = Instant::now();
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let writers = (0..writers)
            .map(|_| {
                let writer = writer::Writer {
                    number: WRITERS.fetch_add(1, Ordering::Relaxed),
                    pace,
                    begun,
                    route: Arc::clone(&route),
                    stop: Arc::clone(&stop),
                    tally: Arc::clone(&tally),
                };
                tokio::spawn(writer.work())
            })
            .collect();
        Ok(Self {
            route,
            begun,
            stop,
            tally,
            writers,
            busy: Vec::new(),
        })
    }

    /// One more backend that commits in a loop without its client saying a word.
    pub async fn add_busy(&mut self) -> Result<()> {
        let number = WRITERS.fetch_add(1, Ordering::Relaxed);
        let busy = Busy::start(&self.route, number, self.begun).await?;
        self.busy.push(busy);
        Ok(())
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Time since the writers began; the clock of the history.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits until `count` more rows have been acknowledged.
    pub async fn more(&self, count: u64, deadline: Duration) -> Result<()> {
        let wanted = self.tally.acknowledged.load(Ordering::Relaxed) + count;
        crate::until(
            &format!("{count} more rows are acknowledged"),
            deadline,
            || self.tally.acknowledged.load(Ordering::Relaxed) >= wanted,
        )
        .await
    }

    /// Stops the writers and gives their history.
    pub async fn stop(mut self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut operations = Vec::new();
        for writer in self.writers.drain(..) {
            operations.extend(writer.await.context("a writer panicked")?);
        }
        for busy in self.busy.drain(..) {
            operations.extend(busy.stop().await);
        }
        Ok(History::new(operations, self.begun.elapsed()))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn make_table(route: &Route) -> Result<()> {
    // No unique key: a row that is there twice must be seen, not refused.
    crate::eventually(
        "the ledger's table is made",
        Duration::from_secs(30),
        async || {
            let session = route.connect(Duration::from_secs(2)).await?;
            let create = "CREATE TABLE IF NOT EXISTS standfast_ledger (
                writer int NOT NULL, n bigint NOT NULL, node text NOT NULL, timeline text NOT NULL);
            CREATE OR REPLACE PROCEDURE standfast_busy(me int) LANGUAGE plpgsql AS $$
            DECLARE n bigint := 0;
            BEGIN
                LOOP
                    INSERT INTO standfast_ledger VALUES (me, n, 'busy', '');
                    COMMIT;
                    RAISE NOTICE 'committed %', n;
                    n := n + 1;
                END LOOP;
            END $$";
            session
                .client
                .batch_execute(create)
                .await
                .context("make the ledger's table")
        },
    )
    .await
}
