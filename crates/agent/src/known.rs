//! The cluster's configuration as it was last, for the day on which the store has it no more.
//!
//! A person may delete the key, or bring back a store without it. What was in force stays in force on each node, and the
//! leader puts it back: the newest that any member knows which is there. A copy lies in the data directory, where Patroni
//! keeps its own and looks for one: it goes along with every copy of the data, and into whichever cluster that becomes.
//!
//! **Invariant:** only a cluster that exists has one, and only its own: where none is founded yet, nothing is remembered.

use crate::note::replace;
use ha::SystemId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::layout::{ConfigRecord, Keys, LastConfig, MemberRecord};
use store::{Revision, Snapshot};

/// In the data directory.
const COPY: &str = "patroni.dynamic.json";

#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    data_dir: PathBuf,
    last: Mutex<Last>,
    /// Held while the file is written, so that the last word is the newest one.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Last {
    config: Option<LastConfig>,
    /// What this agent has put into the data directory, as text.
    copied: Option<String>,
}

impl Known {
    pub(crate) fn open(state_dir: &Path, data_dir: &Path) -> Self {
        let path = state_dir.join("config.json");
        let config = readable(&path).and_then(|text| match serde_json::from_str(&text) {
            Ok(LastConfig { config, .. }) if !is_sound(&config) => {
                not_understood(&path);
                None
            }
            Ok(last) => Some(last),
            Err(_) => {
                not_understood(&path);
                None
            }
        });
        Self {
            last: Mutex::new(Last {
                config,
                copied: None,
            }),
            path,
            data_dir: data_dir.to_owned(),
            writing: Mutex::default(),
        }
    }

    /// What the store holds, and what the cluster knew last where that is gone. Guards still say that it is absent.
    pub(crate) fn over(&self, keys: &Keys, snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
        let key = keys.config();
        let Some(founded) = Founded::read(keys, snapshot) else {
            return Arc::clone(snapshot);
        };
        if snapshot.value(&key).is_some() {
            return Arc::clone(snapshot);
        }
        let mine = self.last().config.clone();
        let all = mine.into_iter().chain(told(keys, snapshot));
        let newest = all
            .filter(|it| it.system == founded.system && is_sound(&it.config))
            .reduce(|best, next| match founded.age(&next) > founded.age(&best) {
                true => next,
                false => best,
            });
        match newest {
            Some(newest) => Arc::new(snapshot.remembering(key, newest.config)),
            None => Arc::clone(snapshot),
        }
    }

    /// What the others are told, while the store has no configuration.
    pub(crate) fn for_others(&self, keys: &Keys, snapshot: &Snapshot) -> Option<LastConfig> {
        let founded = Founded::read(keys, snapshot)?;
        let entry = snapshot.entries.get(&keys.config());
        if entry.is_some_and(|entry| !entry.is_remembered()) {
            return None;
        }
        let last = self.last().config.clone();
        last.filter(|last| last.system == founded.system)
    }

    /// Whether what the store holds is news, and to be written; into the data directory too, if that is the cluster's.
    pub(crate) fn take(&self, keys: &Keys, snapshot: &Snapshot, data: Option<SystemId>) -> bool {
        let (Some(founded), Some(entry)) = (
            Founded::read(keys, snapshot),
            snapshot.entries.get(&keys.config()),
        ) else {
            return false;
        };
        let seen = LastConfig {
            system: founded.system,
            since: founded.since,
            modified: entry.modified,
            config: entry.value.clone(),
        };
        self.keep(seen, data)
    }

    fn keep(&self, seen: LastConfig, data: Option<SystemId>) -> bool {
        let mut last = self.last();
        let to_copy = data == Some(seen.system) && last.copied.as_ref() != Some(&seen.config);
        if (!to_copy && last.config.as_ref() == Some(&seen)) || !is_sound(&seen.config) {
            return false;
        }
        if to_copy {
            last.copied = Some(seen.config.clone());
        }
        last.config = Some(seen);
        true
    }

    /// Blocks.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, copy) = {
            let last = self.last();
            (last.config.clone(), last.copied.clone())
        };
        let Some(last) = last else {
            return Ok(());
        };
        replace(&self.path, &serde_json::to_vec(&last)?)?;
        match copy {
            Some(copy) if self.data_dir.join("PG_VERSION").is_file() => {
                replace(&self.data_dir.join(COPY), copy.as_bytes())
            }
            _ => Ok(()),
        }
    }

    /// What was in force in this cluster's data directory last: with us, or with Patroni. Blocks.
    pub(crate) fn of_data(&self, system: SystemId, was_patronis: bool) -> Option<ConfigRecord> {
        let ours = self.last().config.clone();
        let ours = ours.filter(|last| last.system == system);
        let ours = ours.map(|last| last.config);
        let copy = || sound(&self.data_dir.join(COPY));
        let text = match was_patronis {
            true => copy().and_then(|text| as_meant(&text)).or(ours),
            false => ours.or_else(copy),
        }?;
        // Who takes the directory over a second time does not see whose it was. No store's revision goes with it.
        let found = LastConfig {
            system,
            since: 0,
            modified: 0,
            config: text.clone(),
        };
        if self.keep(found, Some(system))
            && let Err(error) = self.write()
        {
            tracing::warn!(%error, "the cluster's configuration is not kept on disk");
        }
        serde_json::from_str(&text).ok()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cluster that a store knows.
struct Founded {
    system: SystemId,
    since: Revision,
}

impl Founded {
    fn read(keys: &Keys, snapshot: &Snapshot) -> Option<Self> {
        let entry = snapshot.entries.get(&keys.initialize())?;
        Some(Self {
            system: SystemId(entry.value.parse().ok()?),
            since: entry.created,
        })
    }

    /// Revisions of one store can be compared. What comes from another one is older than all of this one's.
    fn age(&self, last: &LastConfig) -> Option<Revision> {
        (last.since == self.since).then_some(last.modified)
    }
}

/// What the members that are there remember.
fn told(keys: &Keys, snapshot: &Snapshot) -> Vec<LastConfig> {
    let told = members(keys, snapshot);
    told.filter_map(|member| member.standfast?.remembers)
        .collect()
}

/// Whether each member of ours has said what it remembers.
pub(crate) fn all_have_told(keys: &Keys, snapshot: &Snapshot) -> bool {
    let mut ours = members(keys, snapshot).filter_map(|member| member.standfast);
    ours.all(|member| member.remembers.is_some())
}

fn members(keys: &Keys, snapshot: &Snapshot) -> impl Iterator<Item = MemberRecord> {
    let prefix = keys.members();
    let members = snapshot.entries.range(prefix.clone()..);
    let members = members.take_while(move |(key, _)| key.starts_with(&prefix));
    members.filter_map(|(_, entry)| serde_json::from_str(&entry.value).ok())
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

fn sound(path: &Path) -> Option<String> {
    let text = readable(path)?;
    if !is_sound(&text) {
        not_understood(path);
        return None;
    }
    Some(text)
}

fn readable(path: &Path) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the configuration known last can't be read");
            None
        }
    }
}

fn not_understood(path: &Path) {
    tracing::warn!(path = %path.display(), "the configuration known last can't be understood");
}

#[cfg(test)]
mod tests;
