//! From where a proxy with a file of its own knows the cluster.

use crate::config::Etcd;
use crate::config::read::{absolute_path, cluster_name, etcd, members_of_raft, tls_of_raft};
use crate::config::section::Section;
use crate::config::values::Endpoint;
use crate::paths::Homes;
use std::path::PathBuf;

/// From where it knows the primary.
#[derive(Clone, Debug)]
pub(crate) enum ProxySource {
    Server(Endpoint),
    Raft {
        scope: String,
        namespace: String,
        members: Vec<Endpoint>,
        secret_file: PathBuf,
        tls: Option<store::TlsOptions>,
    },
    Etcd {
        scope: String,
        namespace: String,
        etcd: Etcd,
    },
}

pub(super) fn source(
    root: &Section<'_>,
    section: &Section<'_>,
    homes: &Homes,
) -> Option<ProxySource> {
    if section.is_given("servers") {
        let servers = section.texts("servers");
        let [server] = servers.as_slice() else {
            section.refuse(
                "servers",
                "this version takes one server; for more, name the store",
            );
            return None;
        };
        return match server.value.parse() {
            Ok(server) => Some(ProxySource::Server(server)),
            Err(bad) => {
                section.error(server.line, "servers", format!("{bad}"));
                None
            }
        };
    }
    let (scope, namespace) = cluster_name(root);
    let store = root.section("store");
    let raft = store.section("raft");
    let named = [
        (root.is_present("etcd3"), root, "etcd3"),
        (root.is_present("etcd"), root, "etcd"),
        (store.is_present("etcd"), &store, "etcd"),
    ];
    if let Some((_, parent, key)) = named.iter().find(|(there, ..)| *there) {
        let etcd = etcd(&parent.section(key));
        store.finish(&["secret_file"]);
        return Some(ProxySource::Etcd {
            scope: scope?,
            namespace: namespace?,
            etcd: etcd?,
        });
    }
    if !store.is_present("raft") {
        let what =
            "the cluster's store: store.raft, etcd3, or proxy.servers for a server without one";
        root.missing("store", what);
        return None;
    }
    let secret_file = absolute_path(&raft, "secret_file")
        .or_else(|| absolute_path(&store, "secret_file"))
        .unwrap_or_else(|| homes.secret_file());
    let members = members_of_raft(&raft);
    let tls = tls_of_raft(&raft);
    raft.finish(&["listen", "advertise", "data_dir"]);
    store.finish(&[]);
    Some(ProxySource::Raft {
        scope: scope?,
        namespace: namespace?,
        members: members?,
        secret_file,
        tls: tls?,
    })
}
