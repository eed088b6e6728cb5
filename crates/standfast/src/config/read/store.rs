//! Which store a node uses: the embedded one, or the user's etcd under any of the names that it goes by.

use super::etcd::etcd;
use super::network::raft;
use super::places::absolute_path;
use crate::config::section::Section;
use crate::config::{RestApi, StoreChoice};
use crate::paths::Homes;
use ha::NodeName;
use std::path::{Path, PathBuf};

/// The store and the cluster secret's file.
pub(super) fn store(
    root: &Section<'_>,
    name: Option<&NodeName>,
    restapi: Option<&RestApi>,
    state_dir: &Path,
    homes: &Homes,
) -> Option<(StoreChoice, PathBuf)> {
    let section = root.section("store");
    let embedded = section.section("raft");
    let secret_file = absolute_path(&embedded, "secret_file")
        .or_else(|| absolute_path(&section, "secret_file"))
        .unwrap_or_else(|| homes.secret_file());
    let named = [
        (root.is_present("etcd3"), root, "etcd3"),
        (root.is_present("etcd"), root, "etcd"),
        (section.is_present("etcd"), &section, "etcd"),
    ];
    let named: Vec<_> = named.into_iter().filter(|(there, ..)| *there).collect();
    if let Some((_, parent, key)) = named.first() {
        if section.is_present("raft") {
            parent.refuse(key, "either this or store.raft, not both");
            return None;
        }
        if let Some((_, other, second)) = named.get(1) {
            other.refuse(
                second,
                format!("either this or {}, not both", parent.path_of(key)),
            );
            return None;
        }
        section.finish(&["memory"]);
        if *key == "etcd" && std::ptr::eq(*parent, root) {
            let what = "is served by etcd's v3 interface: its v2 interface, which Patroni uses for this section, is not \
                        supported; nodes that Patroni still runs must use etcd3 as well";
            let line = parent.section(key).line();
            parent.warning(line, key, what);
        }
        let etcd = etcd(&parent.section(key))?;
        return Some((StoreChoice::Etcd(etcd), secret_file));
    }
    section.finish(&["memory"]);
    let raft = raft(&embedded, name, restapi, state_dir)?;
    Some((StoreChoice::Raft(raft), secret_file))
}
