//! The cluster's configuration as it was last, for the day on which the store has it no more.
//!
//! A person may delete the key, or bring back a store without it. What was in force stays in force on each node, and the
//! leader puts it back. A copy lies in the data directory, where Patroni keeps its own and looks for one: it goes along
//! with every copy of the data, and into whichever cluster that becomes.
//!
//! **Invariant:** only a cluster that exists has one: where none is founded yet, nothing is remembered.

use crate::note::replace;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::Snapshot;
use store::layout::{ConfigRecord, Keys};

/// In the data directory.
const COPY: &str = "patroni.dynamic.json";

#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    data_dir: PathBuf,
    last: Mutex<Option<String>>,
    /// Held while the file is written, so that the last word is the newest one.
    writing: Mutex<()>,
}

impl Known {
    pub(crate) fn open(state_dir: &Path, data_dir: &Path) -> Self {
        let path = state_dir.join("config.json");
        Self {
            last: Mutex::new(readable(&path)),
            path,
            data_dir: data_dir.to_owned(),
            writing: Mutex::default(),
        }
    }

    /// What the store holds, and what it held last where that is gone. Guards still say that it is absent.
    pub(crate) fn over(&self, keys: &Keys, snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
        let key = keys.config();
        let founded = snapshot.value(&keys.initialize()).unwrap_or_default();
        if founded.is_empty() || snapshot.value(&key).is_some() {
            return Arc::clone(snapshot);
        }
        match self.last().as_ref() {
            Some(last) => Arc::new(snapshot.remembering(key, last.clone())),
            None => Arc::clone(snapshot),
        }
    }

    /// Whether that is news, and to be written.
    pub(crate) fn take(&self, text: &str) -> bool {
        let mut last = self.last();
        let is_news = last.as_deref() != Some(text) && is_sound(text);
        if is_news {
            *last = Some(text.to_owned());
        }
        is_news
    }

    /// Blocks.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = self.last().clone() else {
            return Ok(());
        };
        replace(&self.path, last.as_bytes())?;
        match self.data_dir.join("PG_VERSION").is_file() {
            true => replace(&self.data_dir.join(COPY), last.as_bytes()),
            false => Ok(()),
        }
    }

    /// What was in force where the data directory was last: with us, or with Patroni. Blocks.
    pub(crate) fn of_data(&self, was_patronis: bool) -> Option<ConfigRecord> {
        let ours = self.last().clone();
        let copy = || readable(&self.data_dir.join(COPY));
        let text = match was_patronis {
            true => copy().and_then(|text| as_meant(&text)).or(ours),
            false => ours.or_else(copy),
        }?;
        // Who takes the directory over a second time does not see whose it was.
        if self.take(&text)
            && let Err(error) = self.write()
        {
            tracing::warn!(%error, "the cluster's configuration is not kept on disk");
        }
        serde_json::from_str(&text).ok()
    }

    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Patroni's configuration leaves unsaid means what it means to Patroni.
fn as_meant(theirs: &str) -> Option<String> {
    let mut record: ConfigRecord = serde_json::from_str(theirs).ok()?;
    let unsaid = record.0.entry("synchronous_mode".to_owned());
    unsaid.or_insert_with(|| false.into());
    serde_json::to_string(&record).ok()
}

/// What can't be understood was never in force.
fn is_sound(text: &str) -> bool {
    let record = serde_json::from_str::<ConfigRecord>(text);
    record.is_ok_and(|record| record.settings().is_ok())
}

fn readable(path: &Path) -> Option<String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the configuration known last can't be read");
            return None;
        }
    };
    if !is_sound(&text) {
        tracing::warn!(path = %path.display(), "the configuration known last can't be understood");
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::SyncMode;
    use store::layout::Reader;
    use store::{Entry, Guard};

    fn keys() -> Keys {
        Keys::new("service", "shop")
    }

    fn holding(entries: &[(String, &str)]) -> Arc<Snapshot> {
        let entry = |value: &str| Entry {
            value: value.to_owned(),
            created: 3,
            modified: 3,
            lease: None,
        };
        let entries = entries.iter();
        Arc::new(Snapshot {
            revision: 3,
            entries: entries
                .map(|(key, it)| (key.clone(), Arc::new(entry(it))))
                .collect(),
        })
    }

    #[test]
    fn what_is_gone_stays_in_force_and_absent() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"synchronous_mode":"on","ttl":7}"#;
        let nowhere = dir.path().join("nowhere");
        let before = Known::open(dir.path(), &nowhere);
        assert!(before.take(text));
        assert!(!before.take(text), "known already");
        assert!(!before.take("{\"ttl\":0.1}") && !before.take("{"));
        before.write().unwrap();

        let known = Known::open(dir.path(), &nowhere);
        let gone = known.over(&keys(), &holding(&[(keys().initialize(), "7")]));
        let read = Reader::default().read(&keys(), &gone).unwrap();
        assert_eq!(read.cluster.settings.sync_mode, SyncMode::On);
        let key = keys().config();
        assert_eq!(gone.unchanged(&key), Guard::Absent { key });

        // What the store says counts; a cluster that is only being founded has none.
        let there = [(keys().initialize(), "7"), (keys().config(), "{}")];
        for entries in [&there[..], &[(keys().initialize(), "")], &[]] {
            let held = holding(entries);
            assert_eq!(*known.over(&keys(), &held), *held);
        }
    }

    #[test]
    fn a_directory_of_patronis_says_what_was_in_force() {
        let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Known::open(state.path(), data.path());
        let theirs = data.path().join(COPY);
        std::fs::write(data.path().join("PG_VERSION"), "15").unwrap();
        let of = |was_patronis| {
            let settings = open().of_data(was_patronis)?.settings().unwrap();
            Some((settings.ttl.as_secs(), settings.sync_mode))
        };
        assert_eq!(of(true), None);
        std::fs::write(&theirs, "{").unwrap();
        assert_eq!(of(true), None);
        std::fs::write(&theirs, r#"{"ttl":20}"#).unwrap();
        assert_eq!(of(true), Some((20, SyncMode::Off)));
        std::fs::write(&theirs, r#"{"ttl":30,"synchronous_mode":true}"#).unwrap();
        assert_eq!(of(false), Some((20, SyncMode::Off)), "ours is the newer");
        assert_eq!(of(true), Some((30, SyncMode::On)), "it went back to them");
        assert_eq!(of(false), Some((30, SyncMode::On)));

        // The state directory is lost; the data is not.
        let known = open();
        assert!(known.take(r#"{"ttl":9}"#));
        known.write().unwrap();
        std::fs::remove_file(state.path().join("config.json")).unwrap();
        assert_eq!(of(false).unwrap().0, 9);
    }
}
