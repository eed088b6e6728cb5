//! A file of Patroni's, written anew as one of ours: everything that counts, said where it counts, and beside it what
//! was left out and why.
//!
//! **Invariant:** what is written means here what the original means here.

use super::problem::ConfigError;
use super::read;
use super::sources;
use super::tree::Node;
use super::variables::Environment;
use super::{Config, LogFormat};
use crate::paths::Homes;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// The sections in the order in which they are written, each with what there is to know of it.
const SECTIONS: &[(&str, &str)] = &[
    (
        "scope",
        "The cluster, and this node of it. The name must be unlike any other's.",
    ),
    ("namespace", ""),
    ("name", ""),
    (
        "state_dir",
        "Where this node keeps its own files; not in the data directory.",
    ),
    (
        "restapi",
        "Health checks, patronictl and metrics, on Patroni's paths.",
    ),
    (
        "etcd3",
        "Where the cluster agrees: etcd, by its v3 interface. Keys and values are Patroni's.",
    ),
    ("store", "Where the cluster agrees."),
    (
        "bootstrap",
        "Counts once, when the cluster is founded. Later dcs is changed with `patronictl edit-config` or PATCH /config,\n\
         for all nodes at once.",
    ),
    (
        "postgresql",
        "The instance. What is said here wins over bootstrap.dcs.postgresql; what Standfast sets itself wins over both.\n\
         The members of the cluster are always let in to replicate, whatever pg_hba says.",
    ),
    ("tags", "What this node may be used for."),
    (
        "log",
        "plain is Patroni's form, standfast ours; json for programs.",
    ),
];

/// The new file's text.
pub(crate) fn import(file: &Path, homes: &Homes) -> Result<String, ConfigError> {
    let layers = sources::read(file, &Environment::new())?;
    let Value::Object(mut values) = layers.tree.to_json() else {
        return Err(ConfigError::whole(
            file,
            "is not a mapping of keys to values",
        ));
    };
    let named = match &layers.tree.node {
        Node::Map(entries) => entries.iter().any(|entry| entry.key == "name"),
        _ => false,
    };
    let (config, warnings) = read::read(file, layers, homes)?;
    let mut notes = move_to_their_places(&mut values);
    for problem in warnings.iter().filter(|problem| problem.inert) {
        if remove(&mut values, &problem.key) {
            notes.push(format!("left out: {problem}"));
        }
    }
    notes.extend(complete(&mut values, &config, named));
    without_nothing(&mut values);
    Ok(text(file, values, &notes))
}

/// What stands where it does not count, and has a place where it does.
fn move_to_their_places(values: &mut Map<String, Value>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(etcd) = values.remove("etcd") {
        notes.push("etcd is now etcd3: the same members, by their v3 interface".to_owned());
        values.insert("etcd3".to_owned(), etcd);
    }
    let at = |values: &mut Map<String, Value>, path: &str| {
        let value = values.get_mut("bootstrap")?.as_object_mut()?;
        value.remove(path)
    };
    if let Some(Value::Object(shared)) = at(values, "postgresql") {
        notes.push("bootstrap.postgresql is now bootstrap.dcs.postgresql".to_owned());
        let dcs = object(object(values, "bootstrap"), "dcs");
        let target = object(dcs, "postgresql");
        for (key, value) in shared {
            target.entry(key).or_insert(value);
        }
    }
    let login = values
        .get("postgresql")
        .and_then(|pg| pg.pointer("/replication/master"))
        .map(|master| (master.get("user").cloned(), master.get("password").cloned()));
    if let Some((Some(user), Some(password))) = login {
        let authentication = object(object(values, "postgresql"), "authentication");
        if !authentication.contains_key("replication") {
            let login = json!({ "username": user, "password": password });
            authentication.insert("replication".to_owned(), login);
            notes.push("user and password of postgresql.replication are now postgresql.authentication.replication: \
                 they must be the same on every node".to_owned());
        }
    }
    notes
}

/// What the original leaves to a default that is worth seeing.
fn complete(values: &mut Map<String, Value>, config: &Config, named: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !named {
        values.insert("name".to_owned(), config.name.as_str().into());
        notes.push("name was missing: it is the host's".to_owned());
    }
    let dcs = object(object(values, "bootstrap"), "dcs");
    if !dcs.contains_key("synchronous_mode") {
        dcs.insert("synchronous_mode".to_owned(), false.into());
        notes.push("synchronous_mode was missing, so commits are asynchronous, and a failover may lose the last of \
             them; quorum protects them".to_owned());
    }
    if config.log.format == LogFormat::Patroni {
        object(values, "log").insert("type".to_owned(), "plain".into());
    }
    notes
}

fn object<'v>(parent: &'v mut Map<String, Value>, key: &str) -> &'v mut Map<String, Value> {
    let value = parent.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object just now"),
    }
}

/// Removes what stands at a dotted path, and mappings that are empty then. A key may have dots itself.
fn remove(map: &mut Map<String, Value>, path: &str) -> bool {
    if map.remove(path).is_some() {
        return true;
    }
    let keys: Vec<String> = map.keys().cloned().collect();
    for key in keys {
        let Some(rest) = path
            .strip_prefix(&key)
            .and_then(|rest| rest.strip_prefix('.'))
        else {
            continue;
        };
        let Some(Value::Object(inner)) = map.get_mut(&key) else {
            continue;
        };
        if remove(inner, rest) {
            if inner.is_empty() {
                map.remove(&key);
            }
            return true;
        }
    }
    false
}

/// A key with nothing behind it says nothing.
fn without_nothing(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    map.values_mut()
        .filter_map(Value::as_object_mut)
        .for_each(without_nothing);
}

fn text(file: &Path, mut values: Map<String, Value>, notes: &[String]) -> String {
    let mut text = format!(
        "# Made by standfast config import from {}.\n# Variables of the environment (PATRONI_…) are not in it: they go on \
         counting over it.\n",
        file.display()
    );
    for note in notes {
        comment(&mut text, note, "# - ");
    }
    let known = SECTIONS
        .iter()
        .map(|(key, about)| ((*key).to_owned(), *about));
    let rest = values
        .keys()
        .filter(|key| !SECTIONS.iter().any(|(it, _)| it == key));
    let rest: Vec<_> = rest.map(|key| (key.clone(), "")).collect();
    for (key, about) in known.chain(rest) {
        let Some(value) = values.remove(&key).filter(|value| !value.is_null()) else {
            continue;
        };
        if !about.is_empty() {
            text.push('\n');
            comment(&mut text, about, "# ");
        }
        let one = Map::from_iter([(key, value)]);
        // JSON always has a form in YAML.
        text.push_str(&serde_saphyr::to_string(&one).unwrap_or_default());
    }
    text
}

fn comment(text: &mut String, words: &str, mark: &str) {
    for (n, line) in words.lines().enumerate() {
        let mark = if n == 0 { mark } else { "# " };
        let _ = writeln!(text, "{mark}{line}");
    }
}
