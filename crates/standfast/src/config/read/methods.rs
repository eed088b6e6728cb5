//! The user's own programs that bring a data directory: `bootstrap.method` and `postgresql.create_replica_methods`.
//!
//! Each has a section of its own: `command`, a few words for us, and everything else for the program, `--key=value`.

use super::postgresql::command;
use crate::config::section::Section;
use postgres::{CopyMethod, Copying, Recovery, Restore};

/// What such a program is told by us.
pub(super) struct Told<'t> {
    pub(super) scope: &'t str,
    pub(super) data_dir: &'t str,
}

/// A way to make the first data directory that is not initdb. An empty cluster in its place would not be what is meant.
pub(super) fn restore(bootstrap: &Section<'_>, told: &Told<'_>) -> Option<Restore> {
    let method = bootstrap
        .text("method")
        .filter(|text| text.value != "initdb")?;
    let section = bootstrap.section(&method.value);
    let Some(mut words) = command(&section, "command") else {
        if !section.is_given("command") {
            let what = format!(
                "{:?} needs a section of its own beside it, with the `command` that restores the backup",
                method.value
            );
            bootstrap.error(method.line, "method", what);
        }
        return None;
    };
    let kept = section.flag("keep_existing_recovery_conf").unwrap_or(false);
    let mut asked = section.section("recovery_conf").pairs();
    let recovery = match (kept, section.is_given("recovery_conf")) {
        (true, _) => Recovery::Kept,
        (false, true) => {
            if let Some(action) = asked.remove("recovery_target_action")
                && action.value != "promote"
            {
                let what = "counts as promote: a cluster is founded on what is recovered";
                section.warning(action.line, "recovery_conf.recovery_target_action", what);
            }
            let asked = asked.into_iter();
            Recovery::Given(asked.map(|(name, at)| (name, at.value)).collect())
        }
        (false, false) => Recovery::None,
    };
    let none = section.flag("no_params").unwrap_or(false);
    if !none {
        words.push(format!("--scope={}", told.scope));
        words.push(format!("--datadir={}", told.data_dir));
    }
    let ours = [
        "command",
        "keep_existing_recovery_conf",
        "recovery_conf",
        "no_params",
    ];
    words.extend(others(&section, &ours));
    Some(Restore {
        name: method.value,
        command: words,
        recovery,
    })
}

/// How copies of the leader are made. pg_basebackup is always the last way.
pub(super) fn copies(postgresql: &Section<'_>, told: &Told<'_>) -> Vec<Copying> {
    let mut ways = Vec::new();
    for method in postgresql.texts("create_replica_methods") {
        if method.value == "basebackup" {
            ways.push(Copying::Basebackup);
            continue;
        }
        let section = postgresql.section(&method.value);
        let key = "create_replica_methods";
        let Some(mut words) = command(&section, "command") else {
            let what = format!(
                "{:?} is left out: it needs a section of its own, postgresql.{}, with its `command`",
                method.value, method.value
            );
            postgresql.warning(method.line, key, what);
            continue;
        };
        if ways.contains(&Copying::Basebackup) {
            let what = format!(
                "{:?} is never tried: pg_basebackup stands before it",
                method.value
            );
            postgresql.warning(method.line, key, what);
        }
        let no_params = section.flag("no_params").unwrap_or(false);
        let keep_data = section.flag("keep_data").unwrap_or(false);
        if !no_params {
            words.push(format!("--scope={}", told.scope));
            words.push("--role=replica".to_owned());
            words.push(format!("--datadir={}", told.data_dir));
            let ours = ["command", "no_params", "keep_data", "no_leader"];
            words.extend(others(&section, &ours));
        }
        ways.push(Copying::Program(CopyMethod {
            name: method.value,
            command: words,
            keep_data,
            no_params,
        }));
    }
    ways
}

/// What stands in the section for the program itself, in the order of the file.
fn others(section: &Section<'_>, ours: &[&str]) -> Vec<String> {
    let told = ["scope", "datadir", "role", "connstring"];
    let entries = section.entries().iter();
    entries
        .filter(|entry| !ours.contains(&entry.key.as_str()) && !told.contains(&entry.key.as_str()))
        .filter_map(|entry| {
            let value = match entry.value.to_json() {
                serde_json::Value::String(text) => text,
                serde_json::Value::Null => return None,
                serde_json::Value::Bool(flag) => if flag { "True" } else { "False" }.to_owned(),
                other => other.to_string(),
            };
            Some(format!("--{}={value}", entry.key))
        })
        .collect()
}
