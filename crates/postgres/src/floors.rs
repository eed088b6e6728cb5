//! The parameters that a standby must not have less of than its primary has.
//!
//! They size what a primary's transactions take up in shared memory. A standby with less refuses to start; while it
//! replays it stops (before 14) or pauses replay until it is started anew. The control file says what its primary had,
//! as of the last record that was replayed. Postgres is always started as a standby, so a primary that is restarted
//! could never get less than it has had: that is done between recovery and promotion, see `start_for_promotion`.
//!
//! **Invariant:** nothing is started as a standby with less than its control file asks for, but one that is promoted
//! at once and lets nobody in before.

use crate::config::base_config;
use crate::datadir::DataDir;
use crate::error::PostgresError;
use crate::instance::Instance;
use crate::options::{Access, Options};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// As many as our slots, base backups and tools need.
pub(crate) const WAL_SENDERS_MIN: u64 = 16;

/// With PostgreSQL's own defaults, or ours where that is more.
pub(crate) const NAMES: [(&str, u64); 5] = [
    ("max_connections", 100),
    ("max_locks_per_transaction", 64),
    ("max_prepared_transactions", 0),
    ("max_wal_senders", WAL_SENDERS_MIN),
    ("max_worker_processes", 8),
];

/// What the user asks for, as far as it is seen: files that the main one includes are not followed.
pub(crate) fn asked(options: &Options, name: &str) -> Option<u64> {
    let own = options.parameters.get(name);
    let text = own.cloned().or_else(|| base_value(options, name));
    let number: u64 = text?.trim().parse().ok()?;
    Some(match name {
        "max_wal_senders" => number.max(WAL_SENDERS_MIN),
        _ => number,
    })
}

/// Those whose floor is above what the user asks for.
pub(crate) fn raised(
    options: &Options,
    floors: &BTreeMap<String, u64>,
) -> Vec<(&'static str, u64)> {
    let above = NAMES.iter().filter_map(|(name, default)| {
        let floor = *floors.get(*name)?;
        let wanted = asked(options, name).unwrap_or(*default);
        (floor > wanted).then_some((*name, floor))
    });
    above.collect()
}

/// What the user's main file says of a parameter, the last line wins. Files that it includes are not followed.
fn base_value(options: &Options, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(base_config(options)).ok()?;
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let (key, value) = line
                .trim()
                .split_once(|c: char| c == '=' || c.is_whitespace())?;
            let value = value
                .trim()
                .trim_start_matches('=')
                .trim()
                .trim_matches('\'');
            (key.eq_ignore_ascii_case(name)).then(|| value.to_owned())
        })
        .next_back()
}

/// The first of them that a primary has more of than runs here.
pub(crate) fn exceeded(
    floors: &BTreeMap<String, u64>,
    running: impl Fn(&str) -> Option<u64>,
) -> Option<String> {
    floors.iter().find_map(|(name, floor)| {
        let here = running(name).filter(|here| here < floor)?;
        Some(format!("{name} is {here}, its primary has {floor}"))
    })
}

impl Instance {
    /// The floors as the control file has them now. Runs pg_controldata: some milliseconds.
    pub(crate) async fn floors_now(&self) -> Option<BTreeMap<String, u64>> {
        let instance = self.clone();
        let read = tokio::task::spawn_blocking(move || instance.data_dir()).await;
        let Ok(Ok(DataDir::Ready(control))) = read else {
            return None;
        };
        Some(named(control.floors))
    }

    /// Why a replay that is paused will not go on before a restart.
    pub(crate) async fn starved(&self, limit: Duration) -> Result<Option<String>, PostgresError> {
        let Ok(Some(floors)) = tokio::time::timeout(limit, self.floors_now()).await else {
            return Ok(None);
        };
        let doing = "read what a primary may have no more of";
        let sql = "SELECT name, setting::int8 FROM pg_settings WHERE name = ANY($1)";
        let names: Vec<&str> = floors.keys().map(String::as_str).collect();
        let link = &self.inner.probe_link;
        let rows = link
            .rows(|| self.address(), doing, sql, &[&names], limit)
            .await?;
        let mut running = BTreeMap::new();
        for row in rows {
            let failed = |e| PostgresError::sql(doing, e);
            let name: String = row.try_get(0).map_err(failed)?;
            let here: i64 = row.try_get(1).map_err(failed)?;
            running.insert(name, u64::try_from(here).unwrap_or(0));
        }
        Ok(exceeded(&floors, |name| running.get(name).copied()))
    }

    /// Whether this standby has more than the user asks for only because its primary had, and nobody would notice a
    /// restart before its promotion. Not again after one that failed: prepared transactions may need the room.
    pub async fn has_too_much(&self) -> bool {
        let settings = self.inner.settings.lock().await;
        settings.access == Access::Closed
            && settings.upstream.is_none()
            && !self.inner.lowering_failed.load(Ordering::SeqCst)
            && !raised(&self.options(), &settings.floors).is_empty()
    }

    /// Starts a parked standby anew with what the user asks for. Only a server that lets nobody in while it recovers
    /// may have less than its primary had: it answers no query before it is promoted, which is to be done at once.
    pub async fn start_for_promotion(&self, limit: Duration) -> Result<(), PostgresError> {
        self.inner.lowering_failed.store(true, Ordering::SeqCst);
        self.stop(crate::Stop::Fast, limit).await?;
        self.start_closed(limit).await
    }
}

pub(crate) fn named(floors: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    let floors = floors.into_iter();
    floors.map(|(name, n)| (name.to_owned(), n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::NodeName;

    fn map(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let pairs = pairs.iter();
        pairs.map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn a_floor_counts_where_the_user_asks_for_less() {
        let mut options = Options::new(
            NodeName::new("a").unwrap(),
            "/nowhere".into(),
            "/s".into(),
            "/bin/true".into(),
        );
        let floors = map(&[
            ("max_connections", 100),
            ("max_worker_processes", 9),
            ("max_wal_senders", 16),
        ]);
        assert_eq!(raised(&options, &floors), [("max_worker_processes", 9)]);
        for (name, value) in [("max_connections", "50"), ("max_worker_processes", "12")] {
            options.parameters.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(raised(&options, &floors), [("max_connections", 100)]);
    }

    #[test]
    fn what_is_exceeded_is_named_with_both_numbers() {
        let floors = map(&[("max_connections", 100), ("max_worker_processes", 9)]);
        let said = exceeded(&floors, |name| (name == "max_connections").then_some(50));
        let why = "max_connections is 50, its primary has 100";
        assert_eq!(said.as_deref(), Some(why));
        assert_eq!(exceeded(&floors, |_| Some(100)), None);
    }
}
