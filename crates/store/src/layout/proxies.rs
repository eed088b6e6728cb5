//! What each proxy of the cluster tells the others of itself.

use super::Keys;
use crate::Snapshot;
use ha::{Epoch, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `standfast/proxies/<number>`, on the proxy's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRecord {
    pub name: String,
    /// HOST:PORT for other proxies; none: it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whoever wants TLS there gets it, without a certificate of their own.
    #[serde(default)]
    pub tls: bool,
    /// The newest that it has seen: servers of older ones are shut out.
    #[serde(default)]
    pub epoch: Epoch,
}

impl ProxyRecord {
    /// As it stands in the store.
    pub fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// All that can be read, by number: who can't be, is nobody whom a cancel could be sent to.
pub fn proxies(keys: &Keys, snapshot: &Snapshot) -> BTreeMap<u32, ProxyRecord> {
    let prefix = keys.proxies();
    let under = snapshot.entries.range(prefix.clone()..);
    let under = under.map_while(|(key, entry)| Some((key.strip_prefix(&prefix)?, entry)));
    under
        .filter_map(|(number, entry)| {
            Some((
                number.parse().ok()?,
                serde_json::from_str(&entry.value).ok()?,
            ))
        })
        .collect()
}

/// Whether nothing is there but proxies, which look for a cluster: it has another name, or was never founded.
pub fn is_nobodys(keys: &Keys, snapshot: &Snapshot) -> bool {
    let proxies = keys.proxies();
    snapshot.entries.keys().all(|key| key.starts_with(&proxies))
}

/// The names of other clusters in what was read of a namespace, [`Keys::around`]: what has members or a leader is one.
pub fn neighbours(keys: &Keys, snapshot: &Snapshot) -> Vec<String> {
    let around = keys.around();
    let under = snapshot
        .entries
        .keys()
        .filter_map(|key| key.strip_prefix(&around));
    let named = under.filter_map(|key| {
        let (scope, rest) = key.split_once('/')?;
        let is_one = rest.starts_with("members/") || ["leader", "initialize"].contains(&rest);
        (is_one && scope != keys.scope()).then(|| scope.to_owned())
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The members that readers are to be kept away from, by their tag `noloadbalance`.
pub fn kept_from_readers(keys: &Keys, snapshot: &Snapshot) -> BTreeSet<NodeName> {
    let prefix = keys.members();
    let under = snapshot.entries.range(prefix.clone()..);
    let under = under.map_while(|(key, entry)| Some((key.strip_prefix(&prefix)?, entry)));
    under
        .filter(|(_, entry)| {
            let record = serde_json::from_str::<Value>(&entry.value).unwrap_or_default();
            match &record["tags"]["noloadbalance"] {
                Value::Bool(flag) => *flag,
                Value::String(text) => matches!(text.as_str(), "true" | "on" | "yes" | "1"),
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            }
        })
        .filter_map(|(name, _)| NodeName::new(name).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use std::sync::Arc;

    #[test]
    fn of_a_cluster_that_is_not_there_the_neighbours_are_named() {
        let keys = Keys::new("/service/", "shop");
        let mut snapshot = Snapshot::default();
        let mut put = |key: &str| {
            let entry = Entry {
                value: String::new(),
                created: 1,
                modified: 1,
                lease: None,
            };
            snapshot.entries.insert(key.to_owned(), Arc::new(entry));
            (is_nobodys(&keys, &snapshot), neighbours(&keys, &snapshot))
        };
        assert_eq!(put(&keys.proxy(7)), (true, vec![]));
        put("/service/shops/members/a");
        put("/service/bar/initialize");
        put("/service/empty/standfast/proxies/1");
        put("/elsewhere/foo/leader");
        let (_, named) = put("/service/bar/leader");
        assert_eq!(named, ["bar", "shops"]);
        let member = keys.member(&NodeName::new("a").unwrap());
        assert_eq!(put(&member), (false, named));
    }

    #[test]
    fn who_can_be_read_is_there() {
        let keys = Keys::new("service", "lab");
        let mut snapshot = Snapshot::default();
        let mut put = |key: String, value: &str| {
            let entry = Entry {
                value: value.to_owned(),
                created: 1,
                modified: 1,
                lease: None,
            };
            snapshot.entries.insert(key, Arc::new(entry));
        };
        put(
            keys.proxy(7),
            r#"{"name":"a","address":"10.0.0.1:6432","later":1}"#,
        );
        put(keys.proxy(8), "nonsense");
        put(format!("{}x", keys.proxies()), r#"{"name":"b"}"#);
        let found = proxies(&keys, &snapshot);
        let names: Vec<_> = found
            .iter()
            .map(|(number, it)| (*number, &*it.name))
            .collect();
        assert_eq!(names, [(7, "a")]);
        let again = serde_json::from_str::<ProxyRecord>(&found[&7].text()).unwrap();
        assert_eq!(again, found[&7]);
    }
}
