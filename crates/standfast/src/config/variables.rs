//! Patroni's environment variables, each as the key of the file that it stands for.
//!
//! `PATRONI_…` beats the file, and `STANDFAST_…` with the same ending beats `PATRONI_…`.
//!
//! **Invariant:** the value of a variable is in no message: it may be a password.

use super::read::LOG_KEYS;
use super::section::nearest;
use super::sources::nest;
use super::tree::{self, Entry, Node, Tree};
use std::collections::BTreeMap;

/// The variables that there are, by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// Those of this process. One that is not UTF-8 is no setting of ours.
pub(super) fn own() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A group of variables: what they begin with, where their keys stand, and the keys.
struct Group(
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const ETCD: &[&str] = &[
    "host",
    "hosts",
    "url",
    "proxy",
    "srv",
    "srv_suffix",
    "use_proxies",
    "protocol",
    "username",
    "password",
    "cacert",
    "cert",
    "key",
];

const LOGIN: &[&str] = &[
    "username",
    "password",
    "sslmode",
    "sslkey",
    "sslpassword",
    "sslcert",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

const GROUPS: &[Group] = &[
    Group("", &[], &["scope", "name", "namespace"]),
    Group("LOG_", &["log"], LOG_KEYS),
    Group(
        "RESTAPI_",
        &["restapi"],
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "keyfile_password",
            "cafile",
            "ciphers",
            "verify_client",
            "allowlist",
            "allowlist_include_members",
            "http_extra_headers",
            "https_extra_headers",
            "request_queue_size",
            "server_tokens",
        ],
    ),
    Group(
        "RESTAPI_",
        &["restapi", "authentication"],
        &["username", "password"],
    ),
    Group("ETCD3_", &["etcd3"], ETCD),
    Group("ETCD_", &["etcd"], ETCD),
    Group(
        "POSTGRESQL_",
        &["postgresql"],
        &[
            "listen",
            "connect_address",
            "proxy_address",
            "data_dir",
            "config_dir",
            "bin_dir",
            "pgpass",
        ],
    ),
    Group(
        "SUPERUSER_",
        &["postgresql", "authentication", "superuser"],
        LOGIN,
    ),
    Group(
        "REPLICATION_",
        &["postgresql", "authentication", "replication"],
        LOGIN,
    ),
    Group(
        "REWIND_",
        &["postgresql", "authentication", "rewind"],
        LOGIN,
    ),
    Group(
        "CTL_",
        &["ctl"],
        &[
            "insecure",
            "cacert",
            "certfile",
            "keyfile",
            "keyfile_password",
        ],
    ),
    Group(
        "CTL_",
        &["ctl", "authentication"],
        &["username", "password"],
    ),
    // Refused where the file's section would be.
    Group("CONSUL_", &["consul"], &["host", "url"]),
    Group("ZOOKEEPER_", &["zookeeper"], &["hosts"]),
    Group("EXHIBITOR_", &["exhibitor"], &["hosts"]),
];

/// Keys whose variable holds a list.
const LISTS: &[&str] = &["hosts", "allowlist"];

/// A variable that means to be a setting.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    /// `None`: there is no such setting.
    pub(super) path: Option<Vec<&'static str>>,
    /// What is said of one that is no setting.
    pub(super) advice: String,
}

/// Those of the environment, the stronger ones last.
pub(super) fn of(environment: &Environment) -> Vec<Variable> {
    let mut found = Vec::new();
    for prefix in ["PATRONI_", "STANDFAST_"] {
        for (name, value) in environment {
            let Some(ending) = name.strip_prefix(prefix) else {
                continue;
            };
            if value.is_empty() || ending == "CONFIGURATION" {
                continue;
            }
            let path = path(ending);
            // Ours are other things' as well.
            if path.is_none() && prefix == "STANDFAST_" {
                continue;
            }
            found.push(Variable {
                name: name.clone(),
                value: value.clone(),
                advice: advice(ending),
                path,
            });
        }
    }
    found
}

fn path(ending: &str) -> Option<Vec<&'static str>> {
    GROUPS.iter().find_map(|Group(prefix, path, keys)| {
        let key = ending.strip_prefix(prefix)?;
        let key = keys.iter().find(|known| known.to_uppercase() == key)?;
        Some(path.iter().chain([key]).copied().collect())
    })
}

fn advice(ending: &str) -> String {
    let all: Vec<String> = GROUPS
        .iter()
        .flat_map(|Group(prefix, _, keys)| {
            keys.iter()
                .map(move |key| format!("{prefix}{}", key.to_uppercase()))
        })
        .collect();
    match nearest(ending, all.iter().map(String::as_str)) {
        Some(near) => format!("unknown variable, did you mean PATRONI_{near}?"),
        None => "this variable has no effect".to_owned(),
    }
}

/// A variable as the entry of a file.
pub(super) fn entry(path: &[&str], value: &str, line: u64) -> Entry {
    let list = path.last().is_some_and(|key| LISTS.contains(key));
    let node = match list.then(|| parse_list(value, line)).flatten() {
        Some(items) => Node::List(items),
        None => Node::Text(value.to_owned()),
    };
    nest(path, Tree { line, node })
}

/// `a:1,b:2`, with quotes or brackets or as YAML's list.
fn parse_list(value: &str, line: u64) -> Option<Vec<Tree>> {
    let value = value.trim();
    let written = value.starts_with('-') || (value.starts_with('[') && value.ends_with(']'));
    let text = match written {
        true => value.to_owned(),
        false => format!("[{value}]"),
    };
    let Node::List(mut items) = tree::parse(&text).ok()?.node else {
        return None;
    };
    for item in &mut items {
        item.line = line;
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_a_key() {
        let path = |ending: &str| path(ending).map(|words| words.join("."));
        for (ending, key) in [
            ("SCOPE", "scope"),
            ("ETCD3_HOSTS", "etcd3.hosts"),
            ("ETCD_USE_PROXIES", "etcd.use_proxies"),
            ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address"),
            ("RESTAPI_PASSWORD", "restapi.authentication.password"),
            ("POSTGRESQL_DATA_DIR", "postgresql.data_dir"),
            (
                "SUPERUSER_SSLROOTCERT",
                "postgresql.authentication.superuser.sslrootcert",
            ),
            ("CTL_USERNAME", "ctl.authentication.username"),
        ] {
            assert_eq!(path(ending).as_deref(), Some(key));
        }
        assert_eq!(path("RAFT_SELF_ADDR"), None);
        assert_eq!(path("scope"), None);
        assert_eq!(
            advice("POSTGRESQL_DATADIR"),
            "unknown variable, did you mean PATRONI_POSTGRESQL_DATA_DIR?"
        );
    }

    #[test]
    fn lists_are_written_in_any_way() {
        for text in [
            "a:1,b:2",
            "'a:1','b:2'",
            "[a:1, b:2]",
            "- a:1\n- b:2",
            " a:1 , b:2 ",
        ] {
            let items = parse_list(text, 7).unwrap();
            let json: Vec<_> = items.iter().map(Tree::to_json).collect();
            assert_eq!(json, ["a:1", "b:2"], "{text}");
        }
    }
}
