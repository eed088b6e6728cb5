//! A proxy's own file: the cluster's store, as a node's file names it, or a server, and the section
//! `proxy`.

use super::problem::{ConfigError, Problem};
use super::read::{absolute_path, cluster_name, endpoint, etcd, log, members_of_raft, tls_of_raft};
use super::section::{Findings, Section};
use super::values::Endpoint;
use super::{Etcd, Log, sources};
use crate::paths::Homes;
use proxy::{AuthMethod, Limits, OnLossyFailover, PoolMode};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file of a proxy, complete.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    pub(crate) log: Log,
    pub(crate) source: ProxySource,
    pub(crate) listen: Endpoint,
    pub(crate) pool_mode: PoolMode,
    pub(crate) users_file: PathBuf,
    pub(crate) auth: AuthMethod,
    pub(crate) on_lossy_failover: OnLossyFailover,
    pub(crate) limits: Limits,
}

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

impl ProxyConfig {
    /// Reads and checks a file. What is odd and harmless comes back beside it.
    pub(crate) fn load(file: &Path, homes: &Homes) -> Result<(Self, Vec<Problem>), ConfigError> {
        let layers = sources::read(file, &std::collections::BTreeMap::new())?;
        let findings = Findings::default();
        let config = read(file, &Section::root(&layers.tree, &findings), homes);
        layers.judge(file, config, findings)
    }
}

/// `None` only after an error was noted.
fn read(file: &Path, root: &Section<'_>, homes: &Homes) -> Option<ProxyConfig> {
    let log = log(root, file);
    let section = root.section("proxy");
    let source = source(root, &section, homes);
    let listen = endpoint(&section, "listen");
    if !section.is_given("listen") {
        section.missing("listen", "HOST:PORT for clients, such as 127.0.0.1:6432");
    }
    let users_file = absolute_path(&section, "users_file");
    if !section.is_given("users_file") {
        let what = "the file of those who may connect, a line each: \"user\" \"password\"";
        section.missing("users_file", what);
    }
    let pool_mode = word(
        &section,
        "pool_mode",
        &[
            ("session", PoolMode::Session),
            ("transaction", PoolMode::Transaction),
        ],
    );
    let auth = word(
        &section,
        "auth_type",
        &[
            ("scram-sha-256", AuthMethod::Scram),
            ("md5", AuthMethod::Md5),
            ("trust", AuthMethod::Trust),
        ],
    );
    let on_lossy_failover = word(
        &section,
        "on_lossy_failover",
        &[
            ("disconnect", OnLossyFailover::Disconnect),
            ("continue", OnLossyFailover::Continue),
        ],
    );
    let limits = limits(&section);
    section.finish(&[]);
    root.finish(&[
        "name",
        "restapi",
        "postgresql",
        "bootstrap",
        "state_dir",
        "tags",
        "guard",
        "watchdog",
    ]);
    Some(ProxyConfig {
        log,
        source: source?,
        listen: listen?,
        pool_mode: pool_mode?,
        users_file: users_file?,
        auth: auth?,
        on_lossy_failover: on_lossy_failover?,
        limits: limits?,
    })
}

fn source(root: &Section<'_>, section: &Section<'_>, homes: &Homes) -> Option<ProxySource> {
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

/// One of a few words; the default where there is none.
fn word<T: Copy + Default>(
    section: &Section<'_>,
    key: &'static str,
    words: &[(&str, T)],
) -> Option<T> {
    let Some(text) = section.text(key) else {
        return (!section.is_given(key)).then(T::default);
    };
    let found = words.iter().find(|(word, _)| *word == text.value);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let what = format!("{:?} is none of {}", text.value, known.join(", "));
        section.error(text.line, key, what);
    }
    found.map(|(_, meant)| *meant)
}

fn limits(section: &Section<'_>) -> Option<Limits> {
    let plain = Limits::default();
    let count = |key, most: u64, default: usize| match section.whole(key) {
        None => (!section.is_given(key)).then_some(default),
        Some(at) if (1..=most).contains(&at.value) => usize::try_from(at.value).ok(),
        Some(at) => {
            section.error(at.line, key, format!("must be between 1 and {most}"));
            None
        }
    };
    let hold_time = match section.whole("hold_time") {
        None => (!section.is_given("hold_time")).then_some(plain.hold_time),
        Some(at) if at.value <= 3600 => Some(Duration::from_secs(at.value)),
        Some(at) => {
            section.error(at.line, "hold_time", "must be at most 3600 seconds");
            None
        }
    };
    Some(Limits {
        clients_max: count("max_client_conn", 1_000_000, plain.clients_max)?,
        pool_size: count("default_pool_size", 100_000, plain.pool_size)?,
        hold_time: hold_time?,
        hold_clients: count("hold_clients", 1_000_000, plain.hold_clients)?,
        hold_bytes: count("hold_bytes", 1 << 40, plain.hold_bytes)?,
        prepared_max: count("max_prepared_statements", 100_000, plain.prepared_max)?,
        ..plain
    })
}
