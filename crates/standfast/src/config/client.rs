//! What a client needs of a file: patronictl's own, Patroni's of a node, or a node's of ours. The rest is passed over.

use super::problem::ConfigError;
use super::section::{Findings, Section};
use super::values::RestAddress;
use super::{BasicAuth, Etcd, Password, read, sources, tree};
use api::client::TrustOptions;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a cluster is reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) scope: Option<String>,
    /// Without slashes around it.
    pub(crate) namespace: Option<String>,
    pub(crate) etcd: Option<Etcd>,
    /// REST interfaces of members.
    pub(crate) members: Vec<RestAddress>,
    /// For HTTPS.
    pub(crate) trust: TrustOptions,
    /// `sslmode` and the like of the superuser, for SQL.
    pub(crate) ssl: BTreeMap<String, String>,
    /// For what changes something through them.
    pub(crate) login: Option<BasicAuth>,
    pub(crate) secret_file: Option<PathBuf>,
}

impl Client {
    /// # Errors
    /// The file can't be read, or says something of the store that can't be.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let layers = sources::read(file, &environment)?;
        let findings = Findings::default();
        let client = client(&Section::root(&layers.tree, &findings));
        let mut problems = findings.errors.into_inner();
        for problem in &mut problems {
            layers.places.resolve(problem);
        }
        match problems.is_empty() {
            true => Ok(client),
            false => Err(ConfigError {
                file: file.to_owned(),
                problems,
            }),
        }
    }
}

fn client(root: &Section<'_>) -> Client {
    let store = root.section("store");
    let sections = [
        root.section("etcd3"),
        root.section("etcd"),
        store.section("etcd"),
    ];
    let etcd = sections.iter().find(|section| !section.is_empty());
    let text = |section: &Section<'_>, key| section.text(key).map(|text| text.value);
    let login = |section: Section<'_>| {
        let login = section.section("authentication");
        Some(BasicAuth {
            username: text(&login, "username")?,
            password: Password::new(text(&login, "password")?),
        })
    };
    let secret = |section: &Section<'_>| text(section, "secret_file").map(PathBuf::from);
    let rest = root.section("restapi");
    let https = rest.is_given("certfile");
    let rest = text(&rest, "connect_address");
    let namespace = text(root, "namespace").map(|text| text.trim_matches('/').to_owned());
    let logins = root.section("postgresql").section("authentication");
    let superuser = logins.section("superuser");
    let keys = ["sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"];
    let ssl = keys
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), text(&superuser, key)?)));
    Client {
        scope: text(root, "scope"),
        namespace,
        etcd: etcd.and_then(|section| read::etcd(section)),
        members: rest
            .and_then(|text| RestAddress::parse(&text, https).ok())
            .into_iter()
            .collect(),
        trust: read::trust(root),
        ssl: ssl.collect(),
        login: login(root.section("ctl")).or_else(|| login(root.section("restapi"))),
        secret_file: secret(&store).or_else(|| secret(&store.section("raft"))),
    }
}

/// A value that somebody typed as YAML.
pub(crate) fn yaml_to_json(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let tree = tree::parse(text).map_err(|malformed| malformed.why)?;
    Ok(tree.to_json())
}
