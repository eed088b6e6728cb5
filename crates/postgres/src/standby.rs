//! A standby's life: whom it follows, how it is cut off for certain, where its WAL ends, how it is promoted.
//!
//! **Invariant:** when `detach` has returned, nothing is received any more, and nothing will be until `follow`.

use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::logfile::{self, StreamFailure};
use crate::options::{Access, Upstream};
use crate::probe::Probe;
use crate::process::{self, PidFile};
use ha::{Lsn, Timeline};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// `wal_retrieve_retry_interval` as we set it.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// A promotion that arrives while the startup process changes its source waits for the retry interval; so it is
/// said again.
const PROMOTE_AGAIN: Duration = Duration::from_millis(30);
const POLL: Duration = Duration::from_millis(3);
/// Of a server that has recovered already.
pub(crate) const START_ANEW: Duration = Duration::from_secs(60);

/// Where a standby stands after it was detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Flushed by the WAL receiver, or replayed if that is further.
    pub received: Lsn,
    pub replayed: Lsn,
    /// Of the last replayed record.
    pub timeline: Timeline,
    /// Of the WAL receiver, when one was seen before it was ended: the timeline of what is received and not replayed.
    pub received_timeline: Option<Timeline>,
    /// Everything received is replayed, so this is the end of its WAL; else ask `end_of_wal`.
    pub end_known: bool,
}

/// The proven end of a standby's WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfWal {
    pub lsn: Lsn,
    /// Of the last record.
    pub timeline: Timeline,
}

impl Instance {
    /// Streams from `upstream` from now on and lets clients in, by reload: sessions stay. A secluded one is started anew.
    pub async fn follow(&self, upstream: Upstream) -> Result<(), PostgresError> {
        if self.is_secluded().await {
            let open = Access::Open;
            return self.appear(Some(upstream), open, START_ANEW).await;
        }
        self.inner
            .followed_at
            .store(logfile::size(&self.inner.paths.log), Ordering::SeqCst);
        self.change(|settings| {
            settings.upstream = Some(upstream);
            settings.sealed = false;
            settings.access = Access::Open;
        })
        .await
    }

    /// Waits for the stream, and lets it be the last: what ends it is not followed by another before the next `follow`.
    /// A receiver authenticates with the password in the pass file, which goes. Says whether it came about.
    pub async fn seal_stream(&self, limit: Duration) -> Result<bool, PostgresError> {
        let streams = || async {
            let probe = self.probe(limit).await.ok()?;
            let receiver = probe.receiver?;
            (receiver.status == "streaming").then_some(())
        };
        if process::poll(POLL * 10, limit, streams).await.is_none() {
            return Ok(false);
        }
        self.change(|settings| settings.sealed = true).await?;
        Ok(true)
    }

    /// Why it does not stream, as far as Postgres has said so since it was told whom to follow (or was started). For a
    /// server that logs in another language than English there is no answer.
    pub fn stream_failure(&self) -> Option<StreamFailure> {
        let begins = self.inner.followed_at.load(Ordering::SeqCst);
        let data_dir = &self.options().data_dir;
        logfile::stream_failure(&logfile::since(&self.inner.paths.log, begins, data_dir))
    }

    /// Stops the WAL receiver so that it is gone and cannot come back, and says where the standby stands then.
    ///
    /// The proof: replication needs a password that only the pass file has. Once that is removed, a receiver that could
    /// have read it is one of the postmaster's children and is seen as such; when none is seen, none can authenticate.
    /// A server that was not started by us, or that was given a password elsewhere, is covered by its configuration:
    /// the startup process is seen to have read that it has no upstream.
    pub async fn detach(&self, limit: Duration) -> Result<Detached, PostgresError> {
        let end = Instant::now() + limit;
        let postmaster = self.postmaster().ok_or(PostgresError::NotRunning)?;
        let before = self.probe(limit).await?;
        if !before.in_recovery {
            return Err(PostgresError::Refused(
                "a primary receives nothing".to_owned(),
            ));
        }
        let received_timeline = before
            .receiver
            .as_ref()
            .and_then(|receiver| receiver.timeline);
        files::remove_durably(&self.inner.paths.stream_passfile)?;
        self.change(|settings| settings.upstream = None).await?;
        let trusted = self.uses_our_passfile(&before, end).await?;
        let mut told_at = None;
        loop {
            let receivers = process::walreceivers(postmaster);
            for pid in &receivers {
                if let Some(pid) = Pid::from_raw(*pid) {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let now = self.probe(left.max(POLL)).await?;
            if !now.has_upstream && told_at.is_none() {
                told_at = Some(Instant::now());
            }
            // What a foreign configuration had told the startup process it forgets within one turn of its loop.
            let forgotten = trusted
                || told_at.is_some_and(|told| {
                    told.elapsed() > 3 * RETRY_INTERVAL && is_waiting_for_wal(&now)
                });
            if receivers.is_empty() && now.receiver.is_none() && told_at.is_some() && forgotten {
                return Ok(detached(&now, received_timeline));
            }
            if Instant::now() >= end {
                return Err(PostgresError::Timeout {
                    doing: "detaching",
                    after: limit,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the upstream in force before was one of ours, with our pass file.
    async fn uses_our_passfile(&self, before: &Probe, end: Instant) -> Result<bool, PostgresError> {
        if !before.has_upstream {
            return Ok(true);
        }
        // The receiver's own copy, not the setting, which has changed already.
        let sql =
            "SELECT coalesce(bool_and(strpos(conninfo, $1) > 0), true) FROM pg_stat_wal_receiver";
        let passfile = self.inner.paths.stream_passfile.display().to_string();
        let left = end.saturating_duration_since(Instant::now()).max(POLL);
        let doing = "look whom the receiver streams from";
        let rows = self.act(doing, sql, &[&passfile], left).await?;
        let row = rows.first().ok_or(PostgresError::NotRunning)?;
        let receiver_is_ours: bool = row.try_get(0).map_err(|e| PostgresError::sql(doing, e))?;
        let overridden = before.overridden.contains(&"primary_conninfo");
        Ok(receiver_is_ours && !overridden && self.is_started_by_us())
    }

    /// Waits for the end of a detached or parked standby's WAL, known by positive signs only: what was received is
    /// replayed, or the startup process is twice seen waiting for more, further apart than it retries, at one place.
    pub async fn end_of_wal(&self, limit: Duration) -> Result<EndOfWal, PostgresError> {
        let end = Instant::now() + limit;
        let mut waiting_since: Option<(Instant, Lsn)> = None;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(POLL);
            let probe = self.probe(left).await?;
            let replayed = probe.replayed.unwrap_or_default();
            let end_is = EndOfWal {
                lsn: probe.flushed,
                timeline: probe.timeline,
            };
            if probe.receiver.is_none() && !probe.has_upstream {
                if probe.received == Some(replayed) {
                    return Ok(end_is);
                }
                match waiting_since {
                    Some((since, at)) if is_waiting_for_wal(&probe) && at == replayed => {
                        if since.elapsed() > RETRY_INTERVAL + Duration::from_millis(50) {
                            return Ok(EndOfWal {
                                lsn: replayed,
                                ..end_is
                            });
                        }
                    }
                    _ if is_waiting_for_wal(&probe) => {
                        waiting_since = Some((Instant::now(), replayed));
                    }
                    // Between two waits it looks for files; only another place starts the count again.
                    Some((_, at)) if at == replayed => {}
                    _ => waiting_since = None,
                }
            }
            if Instant::now() >= end {
                let doing = "replaying to the end of the WAL";
                return Err(PostgresError::Timeout {
                    doing,
                    after: limit,
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Promotes, and returns when it is out of recovery. The caller has claimed, noted the lineage and set the
    /// synchronous setting.
    pub async fn promote(&self, limit: Duration) -> Result<Duration, PostgresError> {
        if self.is_secluded().await {
            let why = "a server without a port is not promoted".to_owned();
            return Err(PostgresError::Refused(why));
        }
        let began = Instant::now();
        let signal_file = self.options().data_dir.join("promote");
        let mut said: Option<Instant> = None;
        loop {
            let left = limit.saturating_sub(began.elapsed()).max(POLL);
            let sql = "SELECT pg_is_in_recovery()";
            match self
                .act("look whether it is promoted", sql, &[], left)
                .await
            {
                Ok(rows)
                    if rows
                        .first()
                        .is_some_and(|row| row.try_get(0).ok() == Some(false)) =>
                {
                    break;
                }
                Ok(_) => {}
                Err(_) if self.postmaster().is_none() => {
                    self.wait_until_empty(left).await?;
                    return Err(self.last_words());
                }
                // Its sessions end before it does, and one that was started to be promoted answers nobody: look again.
                Err(error) if began.elapsed() >= limit => return Err(error),
                Err(_) if !self.is_recovering_alone() => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(_) => {}
            }
            if began.elapsed() >= limit {
                files::remove(&signal_file)?;
                return Err(PostgresError::Timeout {
                    doing: "promoting",
                    after: limit,
                });
            }
            if said.is_none_or(|said| said.elapsed() >= PROMOTE_AGAIN) {
                std::fs::write(&signal_file, b"")
                    .map_err(|e| PostgresError::file("write", &signal_file, e))?;
                self.signal_look()?;
                said = Some(Instant::now());
            }
            tokio::time::sleep(POLL).await;
        }
        let took = began.elapsed();
        // One said too late would lie there until the next start, which removes it.
        files::remove(&signal_file)?;
        self.mark_as_standby()?;
        self.inner.lowering_failed.store(false, Ordering::SeqCst);
        Ok(took)
    }

    fn is_recovering_alone(&self) -> bool {
        let file = PidFile::read(&self.options().data_dir);
        file.is_some_and(|file| file.is_recovering())
    }

    /// Lets replay go on where it was paused.
    pub async fn resume_replay(&self, limit: Duration) -> Result<(), PostgresError> {
        let sql =
            "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused()";
        self.act("resume replay", sql, &[], limit).await.map(drop)
    }

    /// Writes a checkpoint: before a planned stop, and after a promotion, so that pg_rewind sees the new timeline.
    pub async fn checkpoint(&self, limit: Duration) -> Result<(), PostgresError> {
        // On a connection of its own: it may take minutes.
        let link = self.connect(limit).await?;
        link.batch("checkpoint", "CHECKPOINT", limit).await
    }
}

fn detached(probe: &Probe, received_timeline: Option<Timeline>) -> Detached {
    let replayed = probe.replayed.unwrap_or_default();
    Detached {
        received: probe.flushed,
        replayed,
        timeline: probe.timeline,
        received_timeline,
        end_known: probe.received == Some(replayed),
    }
}

/// The startup process has replayed what there is and waits for more.
fn is_waiting_for_wal(probe: &Probe) -> bool {
    matches!(
        probe.startup_wait.as_deref(),
        Some("RecoveryRetrieveRetryInterval" | "RecoveryWalStream" | "RecoveryWalAll")
    )
}
