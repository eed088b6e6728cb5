//! From the tree of a file to a [`Config`]: defaults, and every rule that one value must keep.

mod bootstrap;
mod etcd;
mod log;
mod methods;
mod network;
mod places;
mod postgresql;
mod store;
mod trust;
mod watchdog;

use super::problem::{ConfigError, Problem};
use super::proxy::proxy_section;
use super::section::{At, Findings, Section};
use super::sources::Layers;
use super::{Config, Endpoint, Guard, Postgresql, RestApi, StoreChoice, Tags};
use crate::paths::Homes;
pub(super) use bootstrap::DCS_KEYS;
use bootstrap::bootstrap;
pub(super) use etcd::etcd;
use ha::NodeName;
pub(super) use log::{KEYS as LOG_KEYS, log};
use methods::Told;
use network::restapi;
pub(super) use network::{members_of_raft, tls as tls_of_raft};
pub(super) use places::{absolute_path, endpoint};
use postgresql::postgresql;
use std::path::{Path, PathBuf};
pub(super) use trust::trust;
use watchdog::watchdog;

/// The whole file.
pub(super) fn read(
    file: &Path,
    layers: Layers,
    homes: &Homes,
) -> Result<(Config, Vec<Problem>), ConfigError> {
    let findings = Findings::default();
    let config = config(file, &Section::root(&layers.tree, &findings), homes);
    layers.judge(file, config, findings)
}

/// `None` only after an error was noted.
fn config(file: &Path, root: &Section<'_>, homes: &Homes) -> Option<Config> {
    let (scope, namespace) = cluster_name(root);
    let name = node_name(root);
    let witness = root.flag("witness").unwrap_or(false);
    let postgresql = postgresql(root, witness, scope.as_deref().unwrap_or_default());
    let anchor = postgresql
        .as_ref()
        .map_or_else(|| file.to_owned(), |pg| pg.data_dir.clone());
    let state_dir = state_dir(root, &anchor, postgresql.as_ref(), homes);
    let restapi = restapi(root);
    let trust = trust(root);
    let chosen = store::store(root, name.as_ref(), restapi.as_ref(), &state_dir, homes);
    let data_dir = anchor.display().to_string();
    let told = Told {
        scope: scope.as_deref().unwrap_or_default(),
        data_dir: &data_dir,
    };
    let bootstrap = bootstrap(root, &told);
    let tags = tags(root);
    let log = log(root, file);
    let guard_section = root.section("guard");
    let guard = Guard {
        cgroup: absolute_path(&guard_section, "cgroup"),
    };
    guard_section.finish(&[]);
    let watchdog = watchdog(root);
    let proxy = match root.is_present("proxy") {
        true => {
            let section = root.section("proxy");
            if section.is_given("takeover_socket") {
                let what = "is for a proxy of its own process; this one ends with the node";
                section.refuse("takeover_socket", what);
            }
            proxy_section(&section).map(Some)
        }
        false => Some(None),
    };
    if let Some(Some(proxy)) = &proxy {
        let store = chosen.as_ref().map(|(store, _)| store);
        let taken = taken(restapi.as_ref(), store, postgresql.as_ref());
        proxy.check_ports(&root.section("proxy"), taken);
    }
    root.finish(&["citus", "kubernetes"]);
    if witness && postgresql.is_some() {
        root.refuse(
            "witness",
            "a witness has no Postgres: remove the key or the section postgresql",
        );
    }
    for other in ["consul", "zookeeper", "exhibitor"] {
        if root.is_present(other) {
            root.refuse(
                other,
                "this store is not supported in this version, use etcd3 or store.raft",
            );
        }
    }
    let (chosen, secret_file) = chosen?;
    if witness && matches!(chosen, StoreChoice::Etcd(_)) {
        root.refuse(
            "witness",
            "a witness votes in store.raft: a cluster that has etcd needs none",
        );
    }
    Some(Config {
        file: file.to_owned(),
        scope: scope?,
        namespace: namespace?,
        name: name?,
        state_dir,
        restapi: restapi?,
        trust,
        store: chosen,
        secret_file,
        postgresql: if witness { None } else { Some(postgresql?) },
        bootstrap: bootstrap?,
        tags,
        log,
        guard,
        watchdog,
        proxy: proxy?,
    })
}

/// Where the node itself listens.
fn taken(
    restapi: Option<&RestApi>,
    store: Option<&StoreChoice>,
    postgresql: Option<&Postgresql>,
) -> Vec<(&'static str, Endpoint)> {
    let mut taken = Vec::new();
    taken.extend(restapi.map(|restapi| ("restapi.listen", restapi.listen.clone())));
    if let Some(StoreChoice::Raft(raft)) = store {
        taken.extend(raft.listen.clone().map(|it| ("store.raft.listen", it)));
    }
    if let Some(pg) = postgresql {
        let hosts = pg.listen.split(',').map(str::trim);
        taken.extend(hosts.map(|host| ("postgresql.listen", Endpoint::new(host, pg.port))));
    }
    taken
}

/// Scope and namespace.
pub(super) fn cluster_name(root: &Section<'_>) -> (Option<String>, Option<String>) {
    let scope = root
        .text("scope")
        .and_then(|text| key_part(root, "scope", text));
    if scope.is_none() && !root.is_present("scope") {
        root.missing("scope", "the name of the cluster");
    }
    let namespace = match root.text("namespace") {
        Some(text) => {
            let bare = text.value.trim_matches('/').to_owned();
            key_part(
                root,
                "namespace",
                At {
                    value: bare,
                    ..text
                },
            )
        }
        None => Some("service".to_owned()),
    };
    (scope, namespace)
}

/// Scope and namespace become parts of keys and of `cluster_name`.
fn key_part(section: &Section<'_>, key: &str, text: At<String>) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !text.value.is_empty() && text.value.len() <= 63 && text.value.chars().all(plain) {
        return Some(text.value);
    }
    section.error(text.line, key, "must be 1 to 63 of `a-z A-Z 0-9 _ . -`");
    None
}

fn node_name(root: &Section<'_>) -> Option<NodeName> {
    let text = match root.text("name") {
        Some(text) => text,
        // Of the wrong type, which was said.
        None if root.is_given("name") => return None,
        None => {
            let value = host_name();
            let what = format!("is missing: this node is called after its host, {value:?}");
            root.warning(root.line(), "name", what);
            let line = root.line();
            At { line, value }
        }
    };
    match NodeName::new(text.value) {
        Ok(name) => Some(name),
        Err(bad) => {
            root.error(text.line, "name", bad.to_string());
            None
        }
    }
}

/// As Patroni names a node that has no name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn state_dir(
    root: &Section<'_>,
    anchor: &Path,
    postgresql: Option<&Postgresql>,
    homes: &Homes,
) -> PathBuf {
    let Some(dir) = absolute_path(root, "state_dir") else {
        return homes.state_dir(anchor);
    };
    if postgresql.is_some_and(|pg| dir.starts_with(&pg.data_dir)) {
        let what =
            "must not lie inside postgresql.data_dir: a full data disk would silence the agent";
        root.refuse("state_dir", what);
    }
    dir
}

fn tags(root: &Section<'_>) -> Tags {
    let section = root.section("tags");
    let nofailover = section.flag("nofailover").unwrap_or(false);
    let failover_priority = section.whole("failover_priority").and_then(|at| {
        let priority = u32::try_from(at.value).ok();
        if priority.is_none_or(|priority| priority > 100) {
            let what = "counts as 100, the highest that there is";
            section.warning(at.line, "failover_priority", what);
        }
        priority.or(Some(100))
    });
    source(&section);
    // Patroni has two words for it.
    let last = section
        .whole("sync_priority")
        .is_some_and(|at| at.value == 0);
    let nosync = section.flag("nosync").unwrap_or(false) || last;
    Tags {
        nofailover,
        failover_priority,
        nosync,
        shown: shown(&section, nofailover, nosync),
    }
}

/// The standby to stream from.
fn source(section: &Section<'_>) {
    let Some(source) = section.text("replicatefrom") else {
        return;
    };
    if let Err(bad) = NodeName::new(source.value) {
        let what = format!("has no effect: {bad}");
        section.warning(source.line, "replicatefrom", what);
    }
}

/// The tags in the form that Patroni shows: those that it knows as flags only while they are set, save one that a
/// priority stands beside, and a user's own as written.
fn shown(
    section: &Section<'_>,
    nofailover: bool,
    nosync: bool,
) -> serde_json::Map<String, serde_json::Value> {
    let entries = section.entries();
    let written = |key: &str| entries.iter().any(|entry| entry.key == key);
    let flag = |key| section.flag(key).unwrap_or(false);
    let mut shown = serde_json::Map::new();
    for entry in entries {
        let (set, beside) = match entry.key.as_str() {
            "nofailover" => (nofailover, written("failover_priority")),
            "nosync" => (nosync, written("sync_priority")),
            "clonefrom" => (flag("clonefrom"), false),
            "noloadbalance" => (flag("noloadbalance"), false),
            "nostream" => (flag("nostream"), false),
            _ => {
                shown.insert(entry.key.clone(), entry.value.to_json());
                continue;
            }
        };
        if set || beside {
            shown.insert(entry.key.clone(), set.into());
        }
    }
    shown
}
