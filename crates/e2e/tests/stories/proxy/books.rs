//! Clients of the proxy that write rows in every way there is and note what they were told of each.

use super::front::Front;
use anyhow::{Context as _, Result, bail, ensure};
use e2e::PoolMode;
use lab::{Cluster, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

/// Between two rows of a writer.
const PAUSE: Duration = Duration::from_millis(20);

/// A row: who wrote it, and its number.
type Row = (i32, i64);

pub(crate) struct Books {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    /// The longest that a writer has waited since somebody asked, in microseconds.
    longest: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Page>>>,
}

/// What one writer was told.
#[derive(Default)]
struct Page {
    acknowledged: BTreeSet<Row>,
    /// Certainly not committed, by 40001, while the session went on.
    refused: BTreeSet<Row>,
    /// By 08007, which ends the session; and what was being asked.
    unknown: BTreeMap<Row, &'static str>,
}

#[derive(Default)]
pub(crate) struct Verdict {
    page: Page,
    lost: usize,
    twice: usize,
    undead: usize,
    pub(crate) pauses: Pauses,
}

/// The longest wait of any writer in each change of the primary.
#[derive(Default)]
pub(crate) struct Pauses(pub(crate) Vec<(Fault, Duration)>);

impl Pauses {
    pub(crate) fn longest(&self) -> Duration {
        let waits = self.0.iter().map(|(_, wait)| *wait);
        waits.max().unwrap_or_default()
    }

    /// Those of one fault.
    fn after(&self, fault: Fault) -> Self {
        let of_it = self.0.iter().filter(|(what, _)| *what == fault);
        Self(of_it.copied().collect())
    }

    fn spread(&self) -> String {
        let [median, p90, p99, longest] = [50, 90, 99, 100].map(|part| self.percentile(part));
        format!("median {median} ms, p90 {p90} ms, p99 {p99} ms, longest {longest} ms")
    }

    /// That of all but so many percent.
    fn percentile(&self, percent: usize) -> u128 {
        let mut sorted: Vec<Duration> = self.0.iter().map(|(_, wait)| *wait).collect();
        sorted.sort();
        let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(at).map_or(0, Duration::as_millis)
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pauses in {} changes: {}", self.0.len(), self.spread())?;
        let mut faults: Vec<Fault> = Vec::new();
        for (fault, _) in &self.0 {
            if !faults.contains(fault) {
                faults.push(*fault);
            }
        }
        for fault in faults {
            let of_it = self.after(fault);
            write!(f, "; {fault} ({}): {}", of_it.0.len(), of_it.spread())?;
        }
        Ok(())
    }
}

impl Books {
    pub(crate) async fn open(front: &Front, writers: i32) -> Result<Self> {
        let client = front.client(PoolMode::Session, "postgres").await?;
        client
            .batch_execute("create table books (writer int, n bigint)")
            .await?;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let longest = Arc::new(AtomicU64::new(0));
        let writers = (0..writers).map(|number| {
            let mode = match number % 2 {
                0 => PoolMode::Session,
                _ => PoolMode::Transaction,
            };
            let config = front.config(mode, "postgres");
            let writer = Writer {
                config,
                number,
                stop: Arc::clone(&stop),
                acknowledged: Arc::clone(&acknowledged),
                longest: Arc::clone(&longest),
            };
            tokio::spawn(writer.write())
        });
        Ok(Self {
            writers: writers.collect(),
            stop,
            acknowledged,
            longest,
        })
    }

    /// The longest wait since this was asked before.
    pub(crate) fn lap(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }

    pub(crate) async fn more(&mut self, count: u64, deadline: Duration) -> Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + count;
        let enough = || {
            self.acknowledged.load(Ordering::Relaxed) >= wanted
                || self.writers.iter().any(JoinHandle::is_finished)
        };
        lab::until(&format!("{count} more rows"), deadline, enough).await?;
        if let Some(ended) = self.writers.iter().position(JoinHandle::is_finished) {
            self.writers.swap_remove(ended).await?.context("a writer")?;
            bail!("a writer has ended");
        }
        Ok(())
    }

    /// Stops the writers and compares what they were told with what is there.
    pub(crate) async fn close(self, cluster: &Cluster) -> Result<Verdict> {
        self.stop.store(true, Ordering::Relaxed);
        let mut verdict = Verdict::default();
        for writer in self.writers {
            let page = writer.await?.context("a writer")?;
            verdict.page.acknowledged.extend(page.acknowledged);
            verdict.page.refused.extend(page.refused);
            verdict.page.unknown.extend(page.unknown);
        }
        let primary = cluster.primary().await?;
        let sql = cluster.node(&primary)?.sql().await?;
        let mut there = BTreeMap::new();
        let question = "select writer, n, count(*) from books group by 1, 2";
        for row in sql.query(question, &[]).await? {
            there.insert(
                (row.get::<_, i32>(0), row.get::<_, i64>(1)),
                row.get::<_, i64>(2),
            );
        }
        let page = &verdict.page;
        verdict.lost = page
            .acknowledged
            .iter()
            .filter(|row| !there.contains_key(row))
            .count();
        verdict.undead = page
            .refused
            .iter()
            .filter(|row| there.contains_key(row))
            .count();
        verdict.twice = there.values().filter(|count| **count > 1).count();
        Ok(verdict)
    }
}

impl Verdict {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.lost == 0, "{} acknowledged rows are lost", self.lost);
        ensure!(self.undead == 0, "{} refused rows are there", self.undead);
        ensure!(self.twice == 0, "{} rows are there twice", self.twice);
        ensure!(
            !self.page.acknowledged.is_empty(),
            "no row was acknowledged"
        );
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows acknowledged, {} lost, {} twice, {} told 40001, {} of them there, {} told \
             08007",
            self.page.acknowledged.len(),
            self.lost,
            self.twice,
            self.page.refused.len(),
            self.undead,
            self.page.unknown.len(),
        )?;
        let mut asking = BTreeMap::<&str, usize>::new();
        for what in self.page.unknown.values() {
            *asking.entry(what).or_default() += 1;
        }
        for (what, count) in asking {
            write!(f, " ({count} {what})")?;
        }
        write!(f, "; {}", self.pauses)
    }
}

struct Writer {
    config: Config,
    number: i32,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    longest: Arc<AtomicU64>,
}

impl Writer {
    async fn write(self) -> Result<Page> {
        let mut page = Page::default();
        let mut open: Option<(Client, tokio_postgres::Statement)> = None;
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let (client, insert) = match open.take() {
                Some(open) => open,
                None => {
                    let (client, connection) =
                        self.config.connect(NoTls).await.context("connecting")?;
                    tokio::spawn(connection);
                    let insert = prepare(&client).await.context("preparing")?;
                    (client, insert)
                }
            };
            let row = (self.number, n);
            n += 1;
            let begun = Instant::now();
            let told = one_row(&client, &insert, row).await;
            let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.longest.fetch_max(waited, Ordering::Relaxed);
            let Err((asked, error)) = told else {
                page.acknowledged.insert(row);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                open = Some((client, insert));
                // Many at little work each, and not a few at much: it is the changes that count.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match code(&error) {
                Some("40001") => {
                    page.refused.insert(row);
                    // The session goes on, and can be tidied up in it.
                    client
                        .batch_execute("rollback")
                        .await
                        .context("after 40001")?;
                    open = Some((client, insert));
                }
                Some("08007") => drop(page.unknown.insert(row, asked)),
                _ => bail!("row {row:?}, {asked}: {error:?}"),
            }
        }
        Ok(page)
    }
}

/// A request like another: it is told that it was lost, and made again.
async fn prepare(client: &Client) -> Result<tokio_postgres::Statement> {
    loop {
        match client.prepare("insert into books values ($1, $2)").await {
            Err(error) if code(&error) == Some("40001") => {}
            prepared => return Ok(prepared?),
        }
    }
}

fn code(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error().map(|db| db.code().code())
}

/// By turns alone, in a transaction, and with the transaction's end in the same message; an error comes with what was
/// asked.
async fn one_row(
    client: &Client,
    insert: &tokio_postgres::Statement,
    row: Row,
) -> Result<(), (&'static str, tokio_postgres::Error)> {
    let at = |what| move |error| (what, error);
    match row.1 % 3 {
        0 => {
            let alone = client.execute(insert, &[&row.0, &row.1]).await;
            alone.map_err(at("by an insert alone"))?;
        }
        1 => {
            let begun = client.batch_execute("begin").await;
            begun.map_err(at("by begin"))?;
            let inserted = client.execute(insert, &[&row.0, &row.1]).await;
            inserted.map_err(at("inside a transaction"))?;
            let committed = client.batch_execute("commit").await;
            committed.map_err(at("by commit"))?;
        }
        _ => {
            let (writer, n) = row;
            let sql = format!("begin; insert into books values ({writer}, {n}); commit");
            let at_once = client.batch_execute(&sql).await;
            at_once.map_err(at("by a transaction in one message"))?;
        }
    }
    Ok(())
}
