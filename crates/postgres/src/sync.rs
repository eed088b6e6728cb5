//! Changing `synchronous_standby_names` so that it is known who counts by it.
//!
//! A reload is no proof: each walsender releases waiting commits by the setting that it last read, and whether commits
//! wait at all is what the checkpointer last read. So after the reload every one of them is proven to have read it.
//!
//! Two proofs are used, both of which rest on the order inside their loops (wake up, reset latch, read the
//! configuration if told so, handle replies, send, sleep):
//! - *Asleep*: it was sent SIGHUP, which sets its latch, and is found asleep in its main wait, not having run between
//!   two looks. With the latch set it would not sleep, so it has been through the loop's beginning.
//! - *Flushed*: its standby has flushed WAL that was written after the SIGHUP. It was sent in one turn of the loop, its
//!   reply was handled in a later one.
//!
//! **Invariant:** when `apply_sync` returns, no commit is or will be acknowledged by an earlier setting; `barrier` is a
//! flush position read after that.

use crate::error::PostgresError;
use crate::instance::Instance;
use crate::options::SyncNames;
use crate::process::{self, Asleep};
use crate::sql::Link;
use ha::Lsn;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_postgres::Row;

const POLL: Duration = Duration::from_millis(3);
/// A checkpoint that spreads its writes naps for at most 100 ms and looks at the configuration before each nap.
const CHECKPOINT_NAP: Duration = Duration::from_millis(300);
/// So long a checkpoint that doesn't nap may keep us waiting before it is asked to hurry.
const HURRY_AFTER: Duration = Duration::from_secs(1);

/// A setting is in force, proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedSync {
    /// Primary: its flush position after the last process had read the setting. Standby: its replay position.
    pub barrier: Lsn,
    /// How long it took.
    pub took: Duration,
}

/// What decides about acknowledgements.
const SQL: &str = "\
SELECT a.pid, a.backend_type, coalesce(r.state, '') AS state, coalesce(a.wait_event, '') AS wait_event, \
 coalesce(r.flush_lsn, '0/0')::text AS flushed \
FROM pg_stat_activity a LEFT JOIN pg_stat_replication r ON r.pid = a.pid \
WHERE a.backend_type = 'checkpointer' OR r.pid IS NOT NULL";

impl Instance {
    /// Sets whom commits wait for and returns when every process that decides about it has read the setting.
    /// Does not itself wait for standbys.
    pub async fn apply_sync(
        &self,
        names: &SyncNames,
        limit: Duration,
    ) -> Result<AppliedSync, PostgresError> {
        let began = Instant::now();
        let end = began + limit;
        let left = || end.saturating_duration_since(Instant::now()).max(POLL);
        let defined = self.inner.sync_defined.swap(false, Ordering::SeqCst);
        self.change(|settings| settings.sync = names.clone())
            .await?;
        let link = self.new_backend_that_sees(&names.setting(), end).await?;
        // From here on the postmaster has signalled everybody.
        let signalled = Instant::now();
        let mut proof = Proof::new(defined && !names.setting().is_empty());
        let in_recovery: bool = one(&link, "SELECT pg_is_in_recovery()", left()).await?;
        loop {
            proof.look(&link, signalled, left()).await?;
            if proof.is_complete() {
                break;
            }
            if Instant::now() >= end {
                let doing = "waiting until all walsenders have read the synchronous setting";
                return Err(PostgresError::Timeout {
                    doing,
                    after: limit,
                });
            }
            if !in_recovery && proof.mark.is_none() {
                let sql = "SELECT pg_logical_emit_message(true, 'standfast', '')::text";
                let mark: String = one(&link, sql, left()).await?;
                proof.mark = mark.parse().ok();
            }
            if proof.wants_hurry(signalled) {
                self.hurry_checkpoint(limit);
            }
            tokio::time::sleep(POLL).await;
        }
        let sql = if in_recovery {
            "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text"
        } else {
            "SELECT pg_current_wal_flush_lsn()::text"
        };
        let barrier: String = one(&link, sql, left()).await?;
        let barrier = barrier.parse().map_err(|_| PostgresError::Answer {
            doing: "read the barrier",
            answer: barrier,
        })?;
        self.inner
            .sync_defined
            .store(!names.setting().is_empty(), Ordering::SeqCst);
        Ok(AppliedSync {
            barrier,
            took: began.elapsed(),
        })
    }

    /// A session forked by a postmaster that has read the setting.
    async fn new_backend_that_sees(
        &self,
        setting: &str,
        end: Instant,
    ) -> Result<Link, PostgresError> {
        let began = Instant::now();
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(POLL);
            let link = self.connect(left).await?;
            let sql = "SELECT current_setting('synchronous_standby_names')";
            let seen: String = one(&link, sql, left).await?;
            if seen == setting {
                return Ok(link);
            }
            if Instant::now() >= end {
                let doing = "reloading the synchronous setting";
                return Err(PostgresError::Timeout {
                    doing,
                    after: began.elapsed(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A checkpoint that is in no hurry becomes one that is, and so ends soon.
    fn hurry_checkpoint(&self, limit: Duration) {
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.checkpoint(limit).await {
                tracing::debug!(error = %error, "checkpoint to hurry another");
            }
        });
    }
}

/// What is proven so far.
struct Proof {
    /// Walsenders by pid; `None` until the first look.
    unproven: Option<Vec<i32>>,
    checkpointer: bool,
    /// WAL written after the signal.
    mark: Option<Lsn>,
    hurried: bool,
}

impl Proof {
    /// `checkpointer`: nothing to be proven about it, because commits waited before and will.
    fn new(checkpointer: bool) -> Self {
        Self {
            unproven: None,
            checkpointer,
            mark: None,
            hurried: false,
        }
    }

    fn is_complete(&self) -> bool {
        self.checkpointer && self.unproven.as_ref().is_some_and(Vec::is_empty)
    }

    fn wants_hurry(&mut self, signalled: Instant) -> bool {
        let wants = !self.checkpointer && !self.hurried && signalled.elapsed() > HURRY_AFTER;
        self.hurried |= wants;
        wants
    }

    async fn look(
        &mut self,
        link: &Link,
        signalled: Instant,
        limit: Duration,
    ) -> Result<(), PostgresError> {
        let doing = "look at the walsenders";
        let before = sleeping(link, limit).await?;
        let rows = link.rows(doing, SQL, &[], limit).await?;
        let seen: Vec<Process> = rows.iter().map(Process::read).collect::<Result<_, _>>()?;
        let slept = |process: &Process| {
            let earlier = before.get(&process.pid);
            earlier.is_some() && process::asleep(process.pid).as_ref() == earlier
        };
        let mut unproven = Vec::new();
        for process in &seen {
            if process.backend_type == "checkpointer" {
                self.checkpointer |= match process.wait_event.as_str() {
                    "CheckpointerMain" => slept(process),
                    "CheckpointWriteDelay" => {
                        signalled.elapsed() > CHECKPOINT_NAP && slept(process)
                    }
                    _ => false,
                };
                continue;
            }
            // A walsender of a later birth was forked with the setting.
            let known = self
                .unproven
                .as_ref()
                .is_none_or(|all| all.contains(&process.pid));
            let proven = match process.state.as_str() {
                // These release nobody, and read the configuration before they come to do so.
                "startup" | "catchup" | "backup" | "" => true,
                _ if self.mark.is_some_and(|mark| process.flushed >= mark) => true,
                _ => process.wait_event == "WalSenderMain" && slept(process),
            };
            if known && !proven {
                unproven.push(process.pid);
            }
        }
        self.unproven = Some(unproven);
        Ok(())
    }
}

/// Who of them sleeps now.
async fn sleeping(link: &Link, limit: Duration) -> Result<BTreeMap<i32, Asleep>, PostgresError> {
    let rows = link.rows("look at the walsenders", SQL, &[], limit).await?;
    let mut sleeping = BTreeMap::new();
    for row in &rows {
        let process = Process::read(row)?;
        if let Some(asleep) = process::asleep(process.pid) {
            sleeping.insert(process.pid, asleep);
        }
    }
    Ok(sleeping)
}

struct Process {
    pid: i32,
    backend_type: String,
    state: String,
    wait_event: String,
    flushed: Lsn,
}

impl Process {
    fn read(row: &Row) -> Result<Self, PostgresError> {
        let failed = |e| PostgresError::sql("read the walsenders", e);
        let text = |name: &str| row.try_get::<_, String>(name).map_err(failed);
        Ok(Self {
            pid: row.try_get("pid").map_err(failed)?,
            backend_type: text("backend_type")?,
            state: text("state")?,
            wait_event: text("wait_event")?,
            flushed: text("flushed")?.parse().unwrap_or_default(),
        })
    }
}

/// The one value of a one-row answer.
async fn one<T>(link: &Link, sql: &str, limit: Duration) -> Result<T, PostgresError>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let doing = "change the synchronous setting";
    let rows = link.rows(doing, sql, &[], limit).await?;
    let row = rows.first().ok_or(PostgresError::NotRunning)?;
    row.try_get(0).map_err(|e| PostgresError::sql(doing, e))
}
