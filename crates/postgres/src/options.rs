//! What the instance is told when it is opened.

use crate::error::PostgresError;
use crate::secret::Login;
use ha::{NodeName, Remote, SystemId, Timeline};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the instance needs to know and can't find out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Becomes the `cluster_name`, and with the epoch of the slot the `application_name` of the WAL receiver.
    pub node: NodeName,
    pub data_dir: PathBuf,
    /// Ours, outside of the data directory: generated configuration, pass files, private socket, notes, log.
    pub state_dir: PathBuf,
    /// Where the PostgreSQL programs are; looked for when `None`.
    pub bin_dir: Option<PathBuf>,
    /// `listen_addresses`, comma separated.
    pub listen: String,
    pub port: u16,
    /// The bootstrap superuser, used over the private socket by peer authentication, and with its password only
    /// where an instance was started by somebody else.
    pub superuser: Login,
    pub replication: Login,
    pub rewind: Login,
    /// The user's parameters (`postgresql.parameters`). Those that we own are ignored and named in a warning.
    pub parameters: BTreeMap<String, String>,
    /// The user's lines of `pg_hba.conf`; when empty, those of the data directory's own file.
    pub pg_hba: Vec<String>,
    /// The user's lines of `pg_ident.conf`; when empty, those of the data directory's own file.
    pub pg_ident: Vec<String>,
    /// The database that our connections use.
    pub database: String,
    /// libpq parameters by which it streams and is copied from an upstream (`sslmode`, `sslrootcert`, …), no passwords
    /// but that of a key, `sslpassword`.
    pub conninfo: Libpq,
    /// Those of pg_rewind.
    pub rewind_conninfo: Libpq,
    /// A pass file of all our logins, for the user's own programs; ours have others.
    pub pgpass: Option<PathBuf>,
    /// How long Postgres may take to stop cleanly, and to write the checkpoint before.
    pub stops_within: Duration,
    /// The user's own main configuration file, when it is not in the data directory.
    pub base_config: Option<PathBuf>,
    /// The user's own `pg_hba.conf`, when it is not in the data directory.
    pub base_hba: Option<PathBuf>,
    /// The user's own `pg_ident.conf`, when it is not in the data directory.
    pub base_ident: Option<PathBuf>,
    pub guard_exe: PathBuf,
    pub guard_args: Vec<OsString>,
    /// A version 2 cgroup in which the guard may create children.
    pub cgroup: Option<PathBuf>,
    /// The machine's watchdog device, for the guard to feed.
    pub watchdog: Option<guard::Watchdog>,
    /// More arguments for initdb.
    pub initdb_args: Vec<String>,
    /// More arguments for pg_basebackup, such as `--max-rate=100M`.
    pub basebackup_args: Vec<String>,
    /// How a copy of the leader is made, tried one after the other. None: by pg_basebackup.
    pub copies: Vec<Copying>,
    /// Where the first data directory of a new cluster comes from, if initdb does not make it.
    pub restore: Option<Restore>,
}

/// Parameters of a connection in libpq's words. The passphrase of a key among them has no printable form.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Libpq(pub BTreeMap<String, String>);

impl std::fmt::Debug for Libpq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.iter().map(|(key, value)| match key.as_str() {
            crate::config::KEY_PASSPHRASE => (key.as_str(), "…"),
            key => (key, value.as_str()),
        });
        f.debug_map().entries(shown).finish()
    }
}

/// A program that brings a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    pub name: String,
    /// With all its arguments.
    pub command: Vec<String>,
    pub recovery: Recovery,
}

/// A way to copy the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copying {
    Basebackup,
    Program(CopyMethod),
}

/// A program that brings a copy of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyMethod {
    pub name: String,
    /// With all its arguments but how to connect.
    pub command: Vec<String>,
    /// It begins with what is in the data directory.
    pub keep_data: bool,
    /// It is not told how to connect either.
    pub no_params: bool,
}

/// How what was restored becomes a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// By the WAL that is there.
    None,
    /// As the program has set it up in the directory.
    Kept,
    /// By these parameters, such as `restore_command` and `recovery_target_time`.
    Given(BTreeMap<String, String>),
}

impl Options {
    /// Options with nothing but what has no default.
    pub fn new(node: NodeName, data_dir: PathBuf, state_dir: PathBuf, guard_exe: PathBuf) -> Self {
        Self {
            node,
            data_dir,
            state_dir,
            bin_dir: None,
            listen: "127.0.0.1".to_owned(),
            port: 5432,
            superuser: Login::new("postgres", ""),
            replication: Login::new("replicator", ""),
            rewind: Login::new("rewind", ""),
            parameters: BTreeMap::new(),
            pg_hba: Vec::new(),
            pg_ident: Vec::new(),
            database: "postgres".to_owned(),
            conninfo: Libpq::default(),
            rewind_conninfo: Libpq::default(),
            pgpass: None,
            stops_within: Duration::from_secs(60),
            base_config: None,
            base_hba: None,
            base_ident: None,
            guard_exe,
            guard_args: Vec::new(),
            cgroup: None,
            watchdog: None,
            initdb_args: Vec::new(),
            basebackup_args: Vec::new(),
            copies: Vec::new(),
            restore: None,
        }
    }

    /// Refuses what could not work, or could be read in two ways by PostgreSQL's own parsers.
    pub(crate) fn check(&self) -> Result<(), PostgresError> {
        let bad = |what: &'static str, why: &'static str| PostgresError::Option { what, why };
        if !self.data_dir.is_absolute() {
            return Err(bad("data_dir", "must be an absolute path"));
        }
        if !self.state_dir.is_absolute() {
            return Err(bad("state_dir", "must be an absolute path"));
        }
        if self.state_dir.starts_with(&self.data_dir) {
            return Err(bad("state_dir", "must not lie inside the data directory"));
        }
        for path in [&self.data_dir, &self.state_dir] {
            if path.to_str().is_none_or(|text| text.contains(['\n', '\r'])) {
                return Err(bad(
                    "data_dir or state_dir",
                    "must be plain UTF-8 without line breaks",
                ));
            }
        }
        for login in [&self.superuser, &self.replication, &self.rewind] {
            if login.user.is_empty() || login.user.contains(['"', '\n', '\r', '\0']) {
                return Err(bad(
                    "user name",
                    "must not be empty or hold quotes or line breaks",
                ));
            }
            if login.password.expose().contains(['\n', '\r', '\0']) {
                return Err(bad("password", "must not hold line breaks"));
            }
        }
        let mut pairs = self.conninfo.0.iter().chain(&self.rewind_conninfo.0);
        if pairs.any(|(_, value)| value.contains(['\n', '\r', '\0'])) {
            return Err(bad("libpq parameters", "must not hold line breaks"));
        }
        if self.port == 0 {
            return Err(bad("port", "must not be 0"));
        }
        let plain = |text: &str| !text.contains(['\n', '\r', '\0']);
        if self
            .parameters
            .iter()
            .any(|(name, value)| !plain(name) || !plain(value))
        {
            return Err(bad("parameters", "must not hold line breaks"));
        }
        for (what, lines) in [("pg_hba", &self.pg_hba), ("pg_ident", &self.pg_ident)] {
            if !lines.iter().all(|line| plain(line)) {
                return Err(bad(what, "must not hold line breaks inside an entry"));
            }
        }
        Ok(())
    }
}

/// What the cluster's configuration says to the Postgres of every node. The node's own options win over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf`; none: every node's own.
    pub pg_hba: Vec<String>,
    /// Lines of `pg_ident.conf`; none: every node's own.
    pub pg_ident: Vec<String>,
}

/// A server to stream, clone or rewind from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub name: NodeName,
    pub host: String,
    pub port: u16,
    /// The physical slot on the upstream that is ours.
    pub slot: Option<String>,
    /// It is what a standby cluster follows, and this is all that is said of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// It is a standby itself, and has WAL of this timeline; its control file may not say so yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// Which standbys commits wait for: `needed` of `names`. No names: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNames {
    pub needed: usize,
    /// `application_name`s of WAL receivers.
    pub names: BTreeSet<String>,
}

impl SyncNames {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn any(needed: usize, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            needed,
            names: names.into_iter().map(Into::into).collect(),
        }
    }

    /// Commits wait, whoever streams: no receiver has this name.
    pub fn nobody() -> Self {
        Self::any(1, ["nobody until the lineage is published"])
    }

    /// The value of `synchronous_standby_names`.
    pub fn setting(&self) -> String {
        if self.needed == 0 || self.names.is_empty() {
            return String::new();
        }
        let names: Vec<String> = self
            .names
            .iter()
            .map(|name| format!("\"{}\"", name.replace('"', "\"\"")))
            .collect();
        format!("ANY {} ({})", self.needed, names.join(","))
    }
}

/// Whom the instance lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Our own logins only.
    #[default]
    Closed,
    /// Whom the user's lines let in.
    Open,
}

/// What a clone may do with what is in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: the directory must be absent, empty, or left by a clone or rewind that was cut off.
    Refuse,
    /// A cluster with this system identifier may be removed.
    Cluster(SystemId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_names_are_quoted() {
        let name = |text: &str| NodeName::new(text).unwrap();
        assert_eq!(SyncNames::none().setting(), "");
        let setting = SyncNames::any(1, [name("b-1"), name("a.x")]).setting();
        assert_eq!(setting, r#"ANY 1 ("a.x","b-1")"#);
    }
}
