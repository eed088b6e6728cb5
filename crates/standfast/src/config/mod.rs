//! What a node is told before it starts: YAML, with Patroni's keys where the meaning is Patroni's, and the environment
//! over it.
//!
//! **Invariant:** a [`Config`] holds no value that could not work: what is wrong is refused with its line, all at
//! once, before anything is touched. No password of it has a printable form.
//!
//! It is plain data. It does not know the components whose options it becomes.

mod asked;
mod client;
mod cures;
mod import;
mod machine;
mod postgres_rules;
mod problem;
mod proxy;
mod read;
mod section;
mod sources;
mod tree;
mod values;
mod variables;
mod words;
mod write;

pub(crate) use asked::Asked;
pub(crate) use client::{Client, yaml_to_json};
pub(crate) use import::import;
pub(crate) use problem::{ConfigError, Problem};
pub(crate) use proxy::{ProxyConfig, ProxySection, ProxySource};
pub(crate) use section::nearest;
pub(crate) use sources::files as source_files;
pub(crate) use values::{
    BadEndpoint, Endpoint, Password, RestAddress, check_host, is_loopback, parse_port,
};
pub(crate) use write::{write_file, write_private};

use crate::logging::Pattern;
use crate::paths::Homes;
use ha::NodeName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::layout::ConfigRecord;

/// A node's configuration, complete: defaults are filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where it was read from, a file or a directory of them; read again on SIGHUP.
    pub(crate) file: PathBuf,
    /// Name of the cluster.
    pub(crate) scope: String,
    /// First part of the store's keys.
    pub(crate) namespace: String,
    pub(crate) name: NodeName,
    /// The node's own files: pid file, identity, journal, caches, the store's log.
    pub(crate) state_dir: PathBuf,
    pub(crate) restapi: RestApi,
    /// For what this node and its commands ask other members by HTTPS.
    pub(crate) trust: api::client::TrustOptions,
    pub(crate) store: StoreChoice,
    /// What every node of the cluster knows and nobody else.
    pub(crate) secret_file: PathBuf,
    /// `None`: a monitor, a voter without Postgres.
    pub(crate) postgresql: Option<Postgresql>,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) tags: Tags,
    pub(crate) log: Log,
    pub(crate) guard: Guard,
    /// A proxy in the node's own process.
    pub(crate) proxy: Option<ProxySection>,
}

impl Config {
    /// A monitor: a voter without Postgres.
    pub(crate) fn is_witness(&self) -> bool {
        self.postgresql.is_none()
    }

    /// The embedded store, if that is the one.
    pub(crate) fn raft(&self) -> Option<&Raft> {
        match &self.store {
            StoreChoice::Raft(raft) => Some(raft),
            StoreChoice::Etcd(_) => None,
        }
    }

    /// The address under which other members reach this node's API.
    pub(crate) fn api_url(&self) -> String {
        self.api_address().url()
    }

    pub(crate) fn api_address(&self) -> RestAddress {
        RestAddress {
            https: self.restapi.certificate.is_some(),
            endpoint: self.restapi.connect_address.clone(),
        }
    }

    /// Reads and checks a file, or a directory of files, and the environment over it. What is odd and harmless comes
    /// back beside it.
    pub(crate) fn load(file: &Path, homes: &Homes) -> Result<(Self, Vec<Problem>), ConfigError> {
        let (config, mut warnings) = Self::load_with(file, homes, &variables::own())?;
        warnings.extend(machine::secret_in_etcd(&config));
        Ok((config, warnings))
    }

    fn load_with(
        file: &Path,
        homes: &Homes,
        environment: &variables::Environment,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        let layers = sources::read(file, environment)?;
        let (config, mut warnings) = read::read(file, layers, homes)?;
        warnings.extend(machine::readable_passwords(&config));
        Ok((config, warnings))
    }

    /// What stands in the way on this machine, as far as looking without touching tells.
    pub(crate) fn check_machine(&self) -> Vec<Problem> {
        machine::check(self)
    }

    /// Whether the file itself holds a password.
    fn holds_passwords(&self) -> bool {
        let logins = self
            .postgresql
            .iter()
            .flat_map(|pg| [&pg.superuser, &pg.replication, &pg.rewind]);
        let etcd = match &self.store {
            StoreChoice::Raft(_) => None,
            StoreChoice::Etcd(etcd) => etcd.login.as_ref(),
        };
        self.restapi.authentication.is_some()
            || etcd.is_some()
            || logins.into_iter().any(|login| login.password.is_some())
    }
}

/// The REST API. Store peers are served on the same port unless [`Raft::listen`] names another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestApi {
    pub(crate) listen: Endpoint,
    pub(crate) connect_address: Endpoint,
    /// Basic authentication for the verbs that change something, beside the cluster secret's token.
    pub(crate) authentication: Option<BasicAuth>,
    /// HTTPS.
    pub(crate) certificate: Option<api::CertificateOptions>,
    pub(crate) gate: api::Gate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BasicAuth {
    pub(crate) username: String,
    pub(crate) password: Password,
}

/// Where the cluster agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    Raft(Raft),
    Etcd(Etcd),
}

/// The user's own etcd, by its v3 interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Etcd {
    /// At least one, or there is a domain.
    pub(crate) members: Vec<Endpoint>,
    pub(crate) srv: Option<store::EtcdSrv>,
    /// Whether the cluster is asked for its other members.
    pub(crate) discover: bool,
    pub(crate) tls: Option<store::EtcdTls>,
    pub(crate) login: Option<BasicAuth>,
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raft {
    /// A port of its own; `None`: shares the REST API's.
    pub(crate) listen: Option<Endpoint>,
    /// Under which other members reach this member's store.
    pub(crate) advertise: Endpoint,
    pub(crate) data_dir: PathBuf,
    pub(crate) start: RaftStart,
    /// Certificates for the connections between members, for the host of `advertise`.
    pub(crate) tls: Option<store::TlsOptions>,
}

/// How a member without data comes to its cluster. One with data needs none of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RaftStart {
    /// Founds a store with itself as the only voter.
    Found,
    /// A fixed list of voters that found the store together.
    Members(BTreeMap<NodeName, Endpoint>),
    /// Asks one of these to be let in.
    Join(Vec<Endpoint>),
}

/// The instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Postgresql {
    /// `listen_addresses`, comma separated.
    pub(crate) listen: String,
    pub(crate) port: u16,
    /// Under which clients and standbys reach it.
    pub(crate) connect_address: Endpoint,
    /// Of what stands before this Postgres, a pooler say. Others read it in the store.
    pub(crate) proxy_address: Option<Endpoint>,
    pub(crate) data_dir: PathBuf,
    /// Looked for when `None`.
    pub(crate) bin_dir: Option<PathBuf>,
    /// Lines of `pg_hba.conf`; none: the data directory's own file.
    pub(crate) pg_hba: Vec<String>,
    /// Lines of `pg_ident.conf`; none: the data directory's own file.
    pub(crate) pg_ident: Vec<String>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) superuser: Login,
    pub(crate) replication: Login,
    pub(crate) rewind: Login,
    /// The database that the agent's own connections and `show uri` use.
    pub(crate) database: String,
    /// The user's own main configuration file, when it is not in the data directory.
    pub(crate) custom_conf: Option<PathBuf>,
    /// Where the user's own files are, if not in the data directory.
    pub(crate) config_dir: Option<PathBuf>,
    /// More arguments for pg_basebackup.
    pub(crate) basebackup: Vec<String>,
    /// How a copy of the leader is made; pg_basebackup comes last, said or not.
    pub(crate) copies: Vec<postgres::Copying>,
    /// A pass file for the user's own programs.
    pub(crate) pgpass: Option<PathBuf>,
    /// How long Postgres may take to stop cleanly.
    pub(crate) stops_within: Duration,
    /// Programs that are told what becomes of Postgres.
    pub(crate) callbacks: agent::Programs,
    /// Programs that Postgres waits for.
    pub(crate) hooks: agent::Hooks,
}

impl Postgresql {
    /// Where the user's pooler is, as the member record has it.
    pub(crate) fn proxy_url(&self) -> Option<String> {
        let address = self.proxy_address.as_ref()?;
        Some(format!("postgres://{address}/{}", self.database))
    }
}

/// A role; without a password it has the one derived from the cluster secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: Option<Password>,
    /// How it connects to another node, in libpq's words.
    pub(crate) libpq: postgres::Libpq,
}

impl Login {
    /// The password of this role in a cluster with this secret.
    pub(crate) fn password(&self, secret: &crate::secret::ClusterSecret) -> Password {
        self.password
            .clone()
            .unwrap_or_else(|| secret.password_of(&self.username))
    }
}

/// What the first node of a new cluster writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bootstrap {
    /// The cluster-wide settings; legal by [`ConfigRecord::settings`].
    pub(crate) dcs: ConfigRecord,
    /// More arguments for initdb.
    pub(crate) initdb: Vec<String>,
    /// What is run on the cluster that was founded.
    pub(crate) post_bootstrap: Vec<String>,
    /// Where the first data directory comes from, if initdb does not make it.
    pub(crate) restore: Option<postgres::Restore>,
}

/// The machine's watchdog device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watchdog {
    pub(crate) device: PathBuf,
    /// Without it the node never leads.
    pub(crate) required: bool,
    /// How long before the end of the lease it fires; none: half of the lease's time.
    pub(crate) margin: Option<Duration>,
    /// It is only written to: a pipe in place of a device, for tests.
    pub(crate) is_pipe: bool,
}

/// What this node may be used for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tags {
    pub(crate) nofailover: bool,
    pub(crate) failover_priority: Option<u32>,
    pub(crate) nosync: bool,
    /// What the member record and the REST API show.
    pub(crate) shown: serde_json::Map<String, serde_json::Value>,
}

impl Tags {
    /// pg_auto_failover's candidate priority: 0 never leads, 100 is preferred most.
    pub(crate) fn priority(&self) -> u32 {
        match self.failover_priority {
            Some(priority) => priority.min(100),
            None if self.nofailover => 0,
            None => 50,
        }
    }

    /// Whether the node's acknowledgement counts.
    pub(crate) fn quorum(&self) -> bool {
        !self.nosync
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) level: LogLevel,
    pub(crate) format: LogFormat,
    /// Also what Patroni says every ten seconds, in its words, for programs that look for them.
    pub(crate) phrases: bool,
    pub(crate) form: Form,
    /// Of parts that have one of their own.
    pub(crate) levels: BTreeMap<String, LogLevel>,
    /// Where it goes, if not to standard error.
    pub(crate) to: Option<LogFile>,
}

/// How a line of Patroni's looks, if it was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) pattern: Option<Pattern>,
    /// As strftime has it.
    pub(crate) date: Option<String>,
}

/// A log in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) dir: PathBuf,
    /// At so many bytes another file is begun; 0: never.
    pub(crate) size_bytes: u64,
    /// How many of the older ones are kept; 0: the file grows.
    pub(crate) kept: u64,
    pub(crate) mode: Option<u32>,
    /// How many may wait to be written.
    pub(crate) lines_waiting: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl std::str::FromStr for LogLevel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "error" | "critical" | "fatal" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(format!(
                "{text:?} is none of error, warn, info, debug, trace"
            )),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// `HH:MM:SS.mmm pid LEVEL text key=value`
    #[default]
    Own,
    /// Patroni's: `YYYY-MM-DD HH:MM:SS,mmm LEVEL: text key=value`
    Patroni,
    Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    /// A version 2 cgroup in which the guard may create children.
    pub(crate) cgroup: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
