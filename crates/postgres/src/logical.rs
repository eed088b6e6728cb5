//! Permanent logical slots: made on the primary, and from 17 on kept on its standbys by PostgreSQL itself.
//!
//! From 17 on a slot is a failover slot: standbys copy its position, and its reader is given nothing that the standbys
//! of the synchronous setting do not have. Before 17 nothing of the kind is safe to do from outside: a new primary makes
//! the slot anew, and what its reader had not read by then it is not given.
//!
//! **Invariant:** only slots that this module created are ever dropped.
//! **Invariant:** no slot of a former primary's stands in the way of the copy on a standby, or keeps WAL there.

use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::sql::Link;
use ha::NodeName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// From here on PostgreSQL keeps failover slots on standbys.
pub(crate) const FAILOVER_SLOTS: u32 = 17;

/// What a logical slot reads, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogicalSlot {
    pub database: String,
    pub plugin: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogicalChanges {
    pub created: Vec<String>,
    pub dropped: Vec<String>,
    /// Slots that are there and are another's in kind, with the reason.
    pub refused: Vec<(String, String)>,
}

struct Found {
    name: String,
    database: String,
    plugin: String,
    is_active: bool,
    is_synced: bool,
    fails_over: bool,
}

impl Instance {
    /// Makes the logical slots be those wanted: on a primary all of them, on a standby those that PostgreSQL copies.
    /// `protecting` are the streams that commits wait for: their slots hold back the readers of failover slots.
    pub async fn hold_logical(
        &self,
        wanted: &BTreeMap<String, LogicalSlot>,
        leads: bool,
        protecting: &BTreeSet<String>,
        limit: Duration,
    ) -> Result<LogicalChanges, PostgresError> {
        let mut changes = LogicalChanges::default();
        let mut ours = self.logical_made()?;
        if wanted.is_empty() && ours.is_empty() {
            return Ok(changes);
        }
        let modern = self.inner.binaries.major >= FAILOVER_SLOTS;
        let there = self.logical_slots(modern, limit).await?;
        for slot in there.iter().filter(|slot| !slot.is_active) {
            let unwanted = !wanted.contains_key(&slot.name);
            let in_the_way = !leads && !slot.is_synced;
            if ours.contains(&slot.name) && (in_the_way || (unwanted && leads)) {
                let sql = "SELECT pg_drop_replication_slot($1)";
                self.act("drop a slot", sql, &[&slot.name], limit).await?;
                changes.dropped.push(slot.name.clone());
            }
        }
        ours.retain(|name| !changes.dropped.contains(name) || wanted.contains_key(name));
        if leads {
            for (name, slot) in wanted {
                match there.iter().find(|it| it.name == *name) {
                    Some(found) => refuse(&mut changes, found, slot, modern),
                    None => {
                        // Noted first: one that we forgot would never be dropped.
                        ours.insert(name.clone());
                        self.note_logical_made(&ours)?;
                        match self.create_logical(name, slot, modern, limit).await {
                            Ok(()) => changes.created.push(name.clone()),
                            // The other slots are made nevertheless.
                            Err(error) => {
                                ours.remove(name);
                                changes.refused.push((name.clone(), because(&error)));
                            }
                        }
                    }
                }
            }
        } else {
            // A copy that PostgreSQL makes becomes this node's own when it is promoted.
            ours.extend(wanted.keys().cloned());
        }
        self.note_logical_made(&ours)?;
        self.keep_failover_slots(modern && !wanted.is_empty(), leads, protecting)
            .await?;
        Ok(changes)
    }

    /// What the configuration says of it.
    async fn keep_failover_slots(
        &self,
        kept: bool,
        leads: bool,
        protecting: &BTreeSet<String>,
    ) -> Result<(), PostgresError> {
        let slots: BTreeSet<String> = match kept && leads {
            true => protecting
                .iter()
                .filter_map(|stream| slot_of_stream(stream))
                .collect(),
            false => BTreeSet::new(),
        };
        let settings = self.inner.settings.lock().await;
        if settings.failover_slots == kept && settings.standby_slots == slots {
            return Ok(());
        }
        drop(settings);
        self.change(|settings| {
            settings.failover_slots = kept;
            settings.standby_slots = slots;
        })
        .await
    }

    async fn create_logical(
        &self,
        name: &str,
        slot: &LogicalSlot,
        modern: bool,
        limit: Duration,
    ) -> Result<(), PostgresError> {
        let mut address = self.address()?;
        address.database.clone_from(&slot.database);
        let link = Link::open(&address, limit).await?;
        let sql = match modern {
            true => "SELECT pg_create_logical_replication_slot($1, $2, false, false, true)",
            false => "SELECT pg_create_logical_replication_slot($1, $2)",
        };
        link.rows("create a logical slot", sql, &[&name, &slot.plugin], limit)
            .await
            .map(drop)
    }

    async fn logical_slots(
        &self,
        modern: bool,
        limit: Duration,
    ) -> Result<Vec<Found>, PostgresError> {
        let doing = "list the logical slots";
        let failed = |e| PostgresError::sql(doing, e);
        let sql = match modern {
            true => {
                "SELECT slot_name::text, database::text, plugin::text, active, synced, failover \
                 FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary"
            }
            false => {
                "SELECT slot_name::text, database::text, plugin::text, active, false, false \
                 FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary"
            }
        };
        let rows = self.act(doing, sql, &[], limit).await?;
        rows.iter()
            .map(|row| {
                Ok(Found {
                    name: row.try_get(0).map_err(failed)?,
                    database: row.try_get(1).map_err(failed)?,
                    plugin: row.try_get(2).map_err(failed)?,
                    is_active: row.try_get(3).map_err(failed)?,
                    is_synced: row.try_get(4).map_err(failed)?,
                    fails_over: row.try_get(5).map_err(failed)?,
                })
            })
            .collect()
    }

    fn logical_made(&self) -> Result<BTreeSet<String>, PostgresError> {
        let text = files::read_text(&self.inner.paths.logical)?;
        // Without the note no slot is ours, and none is dropped.
        Ok(text
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default())
    }

    fn note_logical_made(&self, ours: &BTreeSet<String>) -> Result<(), PostgresError> {
        let path = &self.inner.paths.logical;
        let text = serde_json::to_vec(ours)
            .map_err(|e| PostgresError::file("write", path, std::io::Error::other(e)))?;
        files::write_if_changed(path, &text).map(drop)
    }
}

/// A slot of the name that is none of what is wanted stays as it is, and is told of.
fn refuse(changes: &mut LogicalChanges, found: &Found, wanted: &LogicalSlot, modern: bool) {
    let why = if found.database != wanted.database || found.plugin != wanted.plugin {
        format!("it reads {} by {}", found.database, found.plugin)
    } else if modern && !found.fails_over {
        "it is there already and is no failover slot".to_owned()
    } else {
        return;
    };
    changes.refused.push((found.name.clone(), why));
}

/// The error with its causes.
fn because(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

fn slot_of_stream(stream: &str) -> Option<String> {
    let (name, epoch) = NodeName::of_stream(stream)?;
    Some(name.slot_of_epoch(epoch))
}
