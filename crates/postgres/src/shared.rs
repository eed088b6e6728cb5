//! What the cluster says to every node's Postgres, under what the node's own file says.
//!
//! PostgreSQL itself is asked whether it takes a parameter: with one unknown name in its file it would apply no change
//! of that file any more, not even to `synchronous_standby_names`, and would not start again.
//!
//! **Invariant:** nothing is written that PostgreSQL would refuse the file for, and nothing of the cluster's or of the
//! user's beats what Standfast sets itself.

use crate::config::NEVER_THE_USERS;
use crate::error::PostgresError;
use crate::files;
use crate::hba_rules;
use crate::instance::Instance;
use crate::options::{Options, Shared};
use crate::program::Program;
use crate::quote::conf_value;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// Without these on, a commit that Postgres acknowledged may be gone after a crash.
const MUST_BE_ON: &[&str] = &["fsync", "full_page_writes"];

const ASK: Duration = Duration::from_secs(2);

/// The node's own part, as its file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) pg_hba: Vec<String>,
    pub(crate) pg_ident: Vec<String>,
}

impl Own {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            parameters: options.parameters.clone(),
            pg_hba: options.pg_hba.clone(),
            pg_ident: options.pg_ident.clone(),
        }
    }

    /// The options with everything that counts: the cluster's, and the node's own over it, save what PostgreSQL has
    /// refused. Names are in lower case: PostgreSQL does not tell them apart.
    pub(crate) fn over(
        &self,
        shared: &Shared,
        refused: &BTreeMap<String, String>,
        options: &Options,
    ) -> Options {
        let mut parameters = BTreeMap::new();
        for (name, value) in &shared.parameters {
            parameters.insert(name.to_ascii_lowercase(), value.clone());
        }
        for (name, value) in &self.parameters {
            let name = name.to_ascii_lowercase();
            if refused.get(&name) != Some(value) {
                parameters.insert(name, value.clone());
            }
        }
        let or = |own: &Vec<String>, shared: &Vec<String>| match own.is_empty() {
            true => shared.clone(),
            false => own.clone(),
        };
        Options {
            parameters,
            pg_hba: or(&self.pg_hba, &shared.pg_hba),
            pg_ident: or(&self.pg_ident, &shared.pg_ident),
            ..options.clone()
        }
    }
}

/// Why a parameter is not the user's to set, or not to this value.
pub fn not_the_users(name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim().to_ascii_lowercase();
    if NEVER_THE_USERS
        .iter()
        .any(|ours| ours.eq_ignore_ascii_case(name))
    {
        return Some("it is Standfast's to set");
    }
    match name.to_ascii_lowercase().as_str() {
        "wal_level" if !matches!(value.as_str(), "replica" | "logical" | "hot_standby") => {
            Some("it allows no standby")
        }
        name if MUST_BE_ON.contains(&name) && is_off(&value) => {
            Some("off would lose acknowledged commits after a crash")
        }
        _ => None,
    }
}

/// PostgreSQL takes any beginning of a word that can mean but one.
fn is_off(value: &str) -> bool {
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(value);
    value == "0" || begins("off", 2) || begins("false", 1) || begins("no", 1)
}

impl Instance {
    /// Takes the cluster's part of the configuration. What can't be taken is left out, with a warning that says why:
    /// single parameters, or all lines of `pg_hba` at once, as one that is missing may have kept somebody out. Those
    /// that need a restart show in `Probe::pending_restart`. Nothing happens if it is what was asked for last.
    pub async fn share(&self, asked: &Shared) -> Result<(), PostgresError> {
        let mut last = self.inner.asked.lock().await;
        if last.as_ref() == Some(asked) {
            return Ok(());
        }
        *last = None;
        let own = self.own();
        let before = self.inner.settings.lock().await.shared.clone();
        let (parameters, why) = self.acceptable(&asked.parameters).await?;
        for (name, why) in why {
            tracing::warn!(
                parameter = name,
                why,
                "a parameter of the cluster's configuration is not taken"
            );
        }
        let (kept, why) = self.acceptable(&own.parameters).await?;
        for (name, why) in why {
            tracing::warn!(
                parameter = name,
                why,
                "a parameter of this node's own is not taken"
            );
        }
        let lower = own.parameters.iter();
        let refused = lower
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .filter(|(name, _)| !kept.contains_key(name))
            .collect();
        let mut shared = Shared {
            parameters,
            pg_hba: asked.pg_hba.clone(),
            pg_ident: asked.pg_ident.clone(),
        };
        let major = self.inner.binaries.major;
        let bad = hba_rules::not_rules(&shared.pg_hba, major);
        taken_or("pg_hba", &mut shared.pg_hba, bad, &before.pg_hba);
        let bad = hba_rules::not_maps(&shared.pg_ident, major);
        taken_or("pg_ident", &mut shared.pg_ident, bad, &before.pg_ident);
        self.take_shared(shared.clone(), refused).await?;
        // An agent before us may have written what is refused.
        if !self.inner.hba_seen.swap(true, Ordering::SeqCst) {
            self.look_at_hba();
        }
        if shared.pg_hba != before.pg_hba && self.hba_trouble().await.is_some() {
            shared.pg_hba = before.pg_hba;
            let refused = self.inner.settings.lock().await.refused.clone();
            self.take_shared(shared, refused).await?;
        }
        *last = Some(asked.clone());
        Ok(())
    }

    async fn take_shared(
        &self,
        shared: Shared,
        refused: BTreeMap<String, String>,
    ) -> Result<(), PostgresError> {
        {
            let settings = self.inner.settings.lock().await;
            if settings.shared == shared && settings.refused == refused {
                return Ok(());
            }
        }
        self.inner.lowering_failed.store(false, Ordering::SeqCst);
        self.set_options(&shared, &refused);
        self.change(|settings| {
            settings.shared = shared;
            settings.refused = refused;
        })
        .await
    }

    /// The node's own part.
    fn own(&self) -> Own {
        self.inner
            .own
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts the options together anew.
    pub(crate) fn set_options(&self, shared: &Shared, refused: &BTreeMap<String, String>) {
        let options = self.own().over(shared, refused, &self.options());
        self.replace_options(options);
    }

    /// The parameters that can be taken, and why others can't.
    async fn acceptable(
        &self,
        asked: &BTreeMap<String, String>,
    ) -> Result<(BTreeMap<String, String>, BTreeMap<String, String>), PostgresError> {
        let mut taken = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for (name, value) in asked {
            match not_the_users(name, value) {
                Some(why) => drop(refused.insert(name.to_ascii_lowercase(), why.to_owned())),
                None => drop(taken.insert(name.to_ascii_lowercase(), value.clone())),
            }
        }
        refused.extend(self.refused_by_postgres(&taken).await?);
        taken.retain(|name, _| !refused.contains_key(name));
        Ok((taken, refused))
    }

    /// Those that PostgreSQL does not take, with its own words. It reads them from a file, as some hold passwords.
    async fn refused_by_postgres(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, PostgresError> {
        let mut refused = BTreeMap::new();
        let mut left = parameters.clone();
        while !left.is_empty() {
            let Some(said) = self.objection(&left).await? else {
                break;
            };
            let blamed: Vec<String> = left
                .keys()
                .filter(|name| said.contains(&format!("\"{name}\"")))
                .cloned()
                .collect();
            if blamed.is_empty() {
                // In words that name nobody: one by one.
                for (name, value) in left {
                    let alone = BTreeMap::from([(name.clone(), value)]);
                    if let Some(said) = self.objection(&alone).await? {
                        refused.insert(name, first_words(&said, ""));
                    }
                }
                break;
            }
            for name in blamed {
                left.remove(&name);
                let words = first_words(&said, &format!("\"{name}\""));
                refused.insert(name, words);
            }
        }
        Ok(refused)
    }

    /// What PostgreSQL says against a file with these parameters; `None`: nothing.
    async fn objection(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Option<String>, PostgresError> {
        let paths = &self.inner.paths;
        let mut text = String::new();
        for (name, value) in parameters {
            text.push_str(&format!("{name} = {}\n", conf_value(value)));
        }
        let file = paths.state_dir.join("check.conf");
        files::write_atomic(&file, text.as_bytes())?;
        // With -C it prints a setting and ends, before it looks at any data directory.
        let program = Program::new("postgres", self.inner.binaries.program("postgres"))
            .arg("-D")
            .arg(&paths.state_dir)
            .arg("-c")
            .arg(format!("config_file={}", file.display()))
            .args(["-C", "port"]);
        let ended = tokio::time::timeout(ASK * 5, program.run(|_| {}, |_| {})).await;
        files::remove(&file)?;
        match ended {
            Ok(ended) => {
                let ended = ended?;
                Ok((!ended.status.success()).then_some(ended.stderr))
            }
            Err(_) => Err(PostgresError::Timeout {
                doing: "asking PostgreSQL what it thinks of parameters",
                after: ASK * 5,
            }),
        }
    }

    /// Says what a running Postgres does not take of our `pg_hba.conf`, without holding up whoever wrote it: it goes
    /// on with the rules that it had, and lets nobody in if those were a closed file's.
    pub(crate) fn look_at_hba(&self) {
        let instance = self.clone();
        tokio::spawn(async move {
            if let Some((line, why)) = instance.hba_trouble().await {
                tracing::warn!(
                    line,
                    why,
                    "Postgres refuses pg_hba.conf and keeps the rules it had: mend the line in postgresql.pg_hba and \
                     reload"
                );
            }
        });
    }

    /// The first line of our `pg_hba.conf` that a running Postgres does not take, and why.
    pub async fn hba_trouble(&self) -> Option<(String, String)> {
        if !self.is_started_by_us() {
            return None;
        }
        // Of a line for connections that there are none of it says so, and takes it.
        let sql = "SELECT line_number, error FROM pg_hba_file_rules \
                   WHERE error IS NOT NULL AND error NOT LIKE '%cannot match because%' \
                   ORDER BY line_number LIMIT 1";
        let rows = self.act("look at pg_hba.conf", sql, &[], ASK).await.ok()?;
        let refused = rows.first().and_then(|row| {
            let number = row.try_get::<_, i32>(0).ok()?;
            let why = row.try_get::<_, String>(1).ok()?;
            let text = std::fs::read_to_string(&self.inner.paths.hba).unwrap_or_default();
            let above = usize::try_from(number).ok()?.checked_sub(1)?;
            let line = text.lines().nth(above).unwrap_or_default();
            Some((line.to_owned(), why))
        });
        self.known_of_hba().clone_from(&refused);
        refused
    }

    /// What [`Self::hba_trouble`] has said when it was asked last; it is asked whenever the file has changed.
    pub fn hba_refused(&self) -> Option<(String, String)> {
        self.known_of_hba().clone()
    }

    fn known_of_hba(&self) -> MutexGuard<'_, Option<(String, String)>> {
        let known = self.inner.hba_refused.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

/// With one line that PostgreSQL would refuse none of them is taken, and those before stay.
fn taken_or(
    file: &'static str,
    asked: &mut Vec<String>,
    bad: Vec<(usize, String)>,
    before: &Vec<String>,
) {
    if let Some((n, why)) = bad.into_iter().next() {
        tracing::warn!(
            line = asked[n],
            why,
            "{file} of the cluster's configuration is not taken"
        );
        asked.clone_from(before);
    }
}

/// The line of the log that holds `word`, without its time and place.
pub(crate) fn first_words(said: &str, word: &str) -> String {
    let line = said
        .lines()
        .find(|line| line.contains(word) && !line.trim().is_empty())
        .unwrap_or_default();
    let words = ["LOG:", "FATAL:", "WARNING:"]
        .iter()
        .find_map(|mark| line.split_once(mark))
        .map_or(line, |(_, words)| words)
        .trim();
    let end = words.find(" in file ").unwrap_or(words.len());
    words[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::NodeName;

    #[test]
    fn the_nodes_own_lies_over_the_clusters() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let options = Options::new(
            NodeName::new("a").unwrap(),
            "/d".into(),
            "/s".into(),
            "/bin/true".into(),
        );
        let shared = Shared {
            parameters: map(&[("work_mem", "1MB"), ("jit", "off")]),
            pg_hba: vec!["shared".to_owned()],
            pg_ident: vec!["shared".to_owned()],
        };
        let own = Own {
            parameters: map(&[("Work_Mem", "2MB"), ("wrk", "1")]),
            pg_hba: vec!["own".to_owned()],
            pg_ident: Vec::new(),
        };
        let merged = own.over(&shared, &map(&[("wrk", "1")]), &options);
        assert_eq!(
            merged.parameters,
            map(&[("work_mem", "2MB"), ("jit", "off")])
        );
        assert_eq!(
            (merged.pg_hba, merged.pg_ident),
            (vec!["own".to_owned()], shared.pg_ident)
        );
    }

    #[test]
    fn what_is_ours_or_loses_commits_is_nobodys() {
        for (name, value) in [
            ("Synchronous_Standby_Names", "*"),
            ("recovery_target_timeline", "latest"),
            ("fsync", "of"),
            ("full_page_writes", "false"),
            ("wal_level", "minimal"),
        ] {
            assert!(not_the_users(name, value).is_some(), "{name}");
        }
        assert_eq!(not_the_users("fsync", "on"), None);
        assert_eq!(not_the_users("work_mem", "8MB"), None);
    }

    #[test]
    fn postgres_is_quoted_without_time_and_place() {
        let said = "2026-11-22 09:11:19 GMT [1] LOG:  unrecognized configuration parameter \"wrk\" in file \"/x\" line 3\n\
                    2026-11-22 09:11:19 GMT [1] FATAL:  configuration file \"/x\" contains errors\n";
        assert_eq!(
            first_words(said, "\"wrk\""),
            "unrecognized configuration parameter \"wrk\""
        );
    }
}
