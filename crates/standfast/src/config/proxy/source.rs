//! From where a proxy with a file of its own knows the cluster.

use crate::config::Etcd;
use crate::config::read::{absolute_path, cluster_name, etcd, members_of_raft, tls_of_raft, trust};
use crate::config::section::Section;
use crate::config::values::Endpoint;
use crate::paths::Homes;
use api::client::TrustOptions;
use std::path::PathBuf;

/// From where it knows the primary.
#[derive(Clone, Debug)]
pub(crate) enum ProxySource {
    Server(Endpoint),
    Servers {
        servers: Vec<Endpoint>,
        user: String,
        database: String,
    },
    Patroni {
        urls: Vec<String>,
        trust: TrustOptions,
    },
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

impl ProxySource {
    /// Those that are named by address, with the key that names them.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'static str, Endpoint)> {
        let servers = match self {
            Self::Server(server) => std::slice::from_ref(server),
            Self::Servers { servers, .. } => servers,
            Self::Patroni { .. } | Self::Raft { .. } | Self::Etcd { .. } => &[],
        };
        servers.iter().map(|it| ("proxy.servers", it.clone()))
    }
}

/// One server alone, or several that are asked.
fn servers(section: &Section<'_>) -> Option<ProxySource> {
    let mut servers = Vec::new();
    for server in section.texts("servers") {
        match server.value.parse::<Endpoint>() {
            Ok(server) => servers.push(server),
            Err(bad) => {
                section.error(server.line, "servers", format!("{bad}"));
                return None;
            }
        }
    }
    let user = section.text("check_user").map(|text| text.value);
    let database = section.text("check_database").map(|text| text.value);
    match (servers.as_slice(), user) {
        ([server], None) => Some(ProxySource::Server(server.clone())),
        ([], _) => {
            section.refuse("servers", "names no server");
            None
        }
        (_, None) => {
            let what = "the user of users_file as whom the servers are asked which is the primary";
            section.missing("check_user", what);
            None
        }
        (_, Some(user)) => Some(ProxySource::Servers {
            servers,
            user,
            database: database.unwrap_or_else(|| "postgres".to_owned()),
        }),
    }
}

pub(super) fn source(
    root: &Section<'_>,
    section: &Section<'_>,
    homes: &Homes,
) -> Option<ProxySource> {
    if section.is_given("patroni") {
        let urls = section.texts("patroni");
        let plain = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let bad = urls.iter().find(|url| !plain(&url.value));
        if let Some(bad) = bad {
            let what = format!("{:?} is no URL such as http://10.0.0.1:8008", bad.value);
            section.error(bad.line, "patroni", what);
            return None;
        }
        return Some(ProxySource::Patroni {
            urls: urls.into_iter().map(|url| url.value).collect(),
            trust: trust(root),
        });
    }
    if section.is_given("servers") {
        return servers(section);
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
