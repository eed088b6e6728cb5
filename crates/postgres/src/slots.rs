//! Physical replication slots for the other members, on every node that could lead.
//!
//! **Invariant:** only slots that this module created are ever dropped.
//! **Invariant:** when `end_streams` has returned, nobody who streamed by a slot of an epoch does, or will by that slot;
//! slots that were wanted before are not made after.

use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use ha::{Lsn, NodeName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// How soon it is looked again whether a stream has ended.
const LOOK: Duration = Duration::from_millis(3);

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotChanges {
    pub created: Vec<String>,
    pub dropped: Vec<String>,
    pub advanced: Vec<String>,
    /// From where on each slot that was there keeps WAL.
    pub positions: BTreeMap<String, Lsn>,
}

struct Slot {
    name: String,
    is_active: bool,
    is_lost: bool,
    restart: Option<Lsn>,
}

impl Instance {
    /// Makes the slots be those wanted: creates what is missing, advances those that nobody uses to where their member
    /// has got (on standbys; `None`: not known), and drops those of members that are no longer there.
    pub async fn ensure_slots(
        &self,
        wanted: &BTreeMap<String, Option<Lsn>>,
        limit: Duration,
    ) -> Result<SlotChanges, PostgresError> {
        let mut changes = SlotChanges::default();
        let mut ours = self.slots_made()?;
        let mut there = self.slots(limit).await?;
        for slot in there.iter().filter(|slot| !slot.is_active) {
            let unwanted = !wanted.contains_key(&slot.name);
            if ours.contains(&slot.name) && (unwanted || slot.is_lost) {
                let sql = "SELECT pg_drop_replication_slot($1)";
                match self.act("drop a slot", sql, &[&slot.name], limit).await {
                    Ok(_) => {}
                    // Somebody else was faster by a moment.
                    Err(error) if is(&error, &SqlState::UNDEFINED_OBJECT) => {}
                    Err(error) => return Err(error),
                }
                changes.dropped.push(slot.name.clone());
            }
        }
        there.retain(|slot| !changes.dropped.contains(&slot.name));
        let kept = there.iter();
        changes.positions = kept
            .filter_map(|slot| Some((slot.name.clone(), slot.restart?)))
            .collect();
        ours.retain(|name| !changes.dropped.contains(name));
        for name in wanted.keys() {
            if there.iter().all(|slot| slot.name != *name) {
                // Noted first: one that we forgot would never be dropped.
                ours.insert(name.clone());
                self.note_slots_made(&ours)?;
                let sql = "SELECT pg_create_physical_replication_slot($1, true)";
                match self.act("create a slot", sql, &[name], limit).await {
                    Ok(_) => changes.created.push(name.clone()),
                    // Somebody else was faster by a moment.
                    Err(error) if is_duplicate(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.note_slots_made(&ours)?;
        for slot in there.iter().filter(|slot| !slot.is_active && !slot.is_lost) {
            let to = wanted.get(&slot.name).copied().flatten();
            if let Some(to) = to.filter(|to| slot.restart.is_some_and(|at| at < *to)) {
                let sql = "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)";
                self.act("advance a slot", sql, &[&slot.name, &to.to_string()], limit)
                    .await?;
                changes.advanced.push(slot.name.clone());
            }
        }
        Ok(changes)
    }

    /// What slots are wanted for holds only until `end_streams` is called again.
    pub fn streams_term(&self) -> u64 {
        self.inner.streams_ended.load(Ordering::SeqCst)
    }

    /// `ensure_slots`, and then, if `serve`, lets others stream. Does nothing, and answers nothing, if streams were ended
    /// since `term`.
    pub async fn hold_slots(
        &self,
        term: u64,
        wanted: &BTreeMap<String, Option<Lsn>>,
        serve: bool,
        limit: Duration,
    ) -> Result<Option<SlotChanges>, PostgresError> {
        let _alone = self.inner.streams.lock().await;
        if self.streams_term() != term {
            return Ok(None);
        }
        let changes = self.ensure_slots(wanted, limit).await?;
        if serve {
            self.serve_streams(true).await?;
        }
        Ok(Some(changes))
    }

    /// Lets nobody stream any more. The slots of epochs go, with the streams by them: a standby that is given WAL of
    /// another history, or makes one, must not hand it on to who does not know of it.
    pub async fn end_streams(&self, limit: Duration) -> Result<(), PostgresError> {
        let _alone = self.inner.streams.lock().await;
        self.inner.streams_ended.fetch_add(1, Ordering::SeqCst);
        self.serve_streams(false).await?;
        let mut ours = self.slots_made()?;
        let ends = |name: &String| NodeName::of_stream(name).is_some();
        let given: Vec<String> = ours.iter().filter(|name| ends(name)).cloned().collect();
        // What does not run streams to nobody, and what is left there is dropped before others are let in.
        if given.is_empty() || self.postmaster().is_none() {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let sql = "SELECT slot_name::text, pg_terminate_backend(active_pid) FROM pg_replication_slots \
                 WHERE slot_name = ANY($1)";
            let left = limit.saturating_sub(began.elapsed()).max(LOOK);
            let rows = self.act("end the streams", sql, &[&given], left).await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                let doing = "end the streams";
                let failed = |e| PostgresError::sql(doing, e);
                let name: String = row.try_get(0).map_err(failed)?;
                let active: Option<bool> = row.try_get(1).map_err(failed)?;
                if active.is_none() {
                    let sql = "SELECT pg_drop_replication_slot($1)";
                    match self.act("drop a slot", sql, &[&name], left).await {
                        Err(error) if !is_busy(&error) => return Err(error),
                        // It came back a moment before.
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            if began.elapsed() >= limit {
                return Err(PostgresError::Timeout {
                    doing: "ending the streams",
                    after: limit,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        ours.retain(|name| !ends(name));
        self.note_slots_made(&ours)
    }

    /// Ends a walsender.
    pub async fn end_walsender(&self, pid: i32, limit: Duration) -> Result<(), PostgresError> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE pid = $1";
        self.act("end a walsender", sql, &[&pid], limit)
            .await
            .map(drop)
    }

    async fn slots(&self, limit: Duration) -> Result<Vec<Slot>, PostgresError> {
        let doing = "list the slots";
        let failed = |e| PostgresError::sql(doing, e);
        let sql = "SELECT slot_name::text, active, coalesce(wal_status = 'lost', false), restart_lsn::text \
             FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary";
        let rows = self.act(doing, sql, &[], limit).await?;
        rows.iter()
            .map(|row| {
                let restart: Option<String> = row.try_get(3).map_err(failed)?;
                Ok(Slot {
                    name: row.try_get(0).map_err(failed)?,
                    is_active: row.try_get(1).map_err(failed)?,
                    is_lost: row.try_get(2).map_err(failed)?,
                    restart: restart.and_then(|text| text.parse().ok()),
                })
            })
            .collect()
    }

    fn slots_made(&self) -> Result<BTreeSet<String>, PostgresError> {
        let text = files::read_text(&self.inner.paths.slots)?;
        // Without the note no slot is ours, and none is dropped.
        Ok(text
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default())
    }

    fn note_slots_made(&self, ours: &BTreeSet<String>) -> Result<(), PostgresError> {
        let path = &self.inner.paths.slots;
        let text = serde_json::to_vec(ours)
            .map_err(|e| PostgresError::file("write", path, std::io::Error::other(e)))?;
        files::write_if_changed(path, &text).map(drop)
    }
}

fn is_duplicate(error: &PostgresError) -> bool {
    is(error, &SqlState::DUPLICATE_OBJECT)
}

fn is_busy(error: &PostgresError) -> bool {
    is(error, &SqlState::OBJECT_IN_USE)
}

fn is(error: &PostgresError, state: &SqlState) -> bool {
    matches!(error, PostgresError::Sql { source, .. } if source.code() == Some(state))
}
