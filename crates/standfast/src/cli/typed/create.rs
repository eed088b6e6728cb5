//! The flags of `create`.

use super::{Local, Trust, boolean, port};
use clap::{ArgAction, Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Create {
    /// Create a monitor: a voter without Postgres
    Monitor(Box<CreateMonitor>),
    /// Create a Postgres node
    Postgres(Box<CreatePostgres>),
}

#[derive(Debug, Args)]
pub(crate) struct CreateMonitor {
    #[command(flatten)]
    pub(crate) member: Member,
    /// The port that the monitor listens on
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub(crate) pgport: Option<u16>,
    /// The monitor's name among the members
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CreatePostgres {
    #[command(flatten)]
    pub(crate) member: Member,
    /// The port of Postgres
    #[arg(long, env = "PGPORT", value_name = "PORT", value_parser = port)]
    pub(crate) pgport: Option<u16>,
    /// Where Postgres listens
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) listen: Option<String>,
    /// The node's name; node_<id> if none is given
    #[arg(long, env = "PG_AUTOCTL_NODE_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// pg_ctl of the Postgres to run
    #[arg(long, value_name = "FILE")]
    pub(crate) pgctl: Option<PathBuf>,
    /// The monitor's address, as HOST:PORT, http://HOST:PORT, https://HOST:PORT or pg_autoctl's postgres:// form
    #[arg(long, env = "PG_AUTOCTL_MONITOR", value_name = "URL")]
    pub(crate) monitor: Option<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// The formation to join
    #[arg(long, value_name = "NAME")]
    pub(crate) formation: Option<String>,
    /// The group to join; there is only 0
    #[arg(long, value_name = "N")]
    pub(crate) group: Option<u32>,
    /// The superuser of the instance
    #[arg(long, value_name = "ROLE")]
    pub(crate) username: Option<String>,
    /// The database that `show uri` names
    #[arg(long, value_name = "NAME")]
    pub(crate) dbname: Option<String>,
    /// Leave pg_hba.conf to its owner
    #[arg(long)]
    pub(crate) skip_pg_hba: bool,
    /// With trust, let clients in from the networks of this machine too
    #[arg(long)]
    pub(crate) pg_hba_lan: bool,
    /// 0: never leads; 100: preferred most
    #[arg(long, env = "PG_AUTOCTL_CANDIDATE_PRIORITY", value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) candidate_priority: u32,
    /// Whether commits may count on this node
    #[arg(long, env = "PG_AUTOCTL_REPLICATION_QUORUM", value_name = "BOOL", default_value = "true", value_parser = boolean, action = ArgAction::Set)]
    pub(crate) replication_quorum: bool,
    /// Limits the rate of a base backup, such as 100M
    #[arg(long, value_name = "RATE")]
    pub(crate) maximum_backup_rate: Option<String>,
    /// Accepted for pg_autoctl's sake
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) region: Option<String>,
    /// Accepted for pg_autoctl's sake
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) pghost: Option<String>,
}

/// What every new member says
#[derive(Debug, Args)]
pub(crate) struct Member {
    #[command(flatten)]
    pub(crate) local: Local,
    /// Under which clients and the other members reach this machine
    #[arg(long, alias = "nodename", value_name = "HOST")]
    pub(crate) hostname: Option<String>,
    /// How clients prove who they are; of a monitor without effect
    #[arg(long, value_name = "METHOD")]
    pub(crate) auth: Option<Auth>,
    /// File of the cluster secret; create monitor makes it if there is none
    #[arg(long, env = "STANDFAST_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Run it at once
    #[arg(long)]
    pub(crate) run: bool,
    #[command(flatten)]
    pub(crate) store: StoreFiles,
    #[command(flatten)]
    pub(crate) tls: Tls,
}

/// Certificates for the connections between the store's members
#[derive(Debug, Default, Args)]
pub(crate) struct StoreFiles {
    /// This node's certificate for the connections between members, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["store_key_file", "store_ca_file"])]
    pub(crate) store_cert_file: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(long, value_name = "FILE", requires = "store_cert_file")]
    pub(crate) store_key_file: Option<PathBuf>,
    /// The certificate that signed every member's
    #[arg(long, value_name = "FILE", requires = "store_cert_file")]
    pub(crate) store_ca_file: Option<PathBuf>,
    /// HTTPS at the REST port, by the same certificate
    #[arg(long)]
    pub(crate) rest_tls: bool,
}

/// pg_autoctl's choices of TLS
#[derive(Debug, Default, Args)]
pub(crate) struct Tls {
    /// Without TLS
    #[arg(long)]
    pub(crate) no_ssl: bool,
    /// Accepted for pg_autoctl's sake, without effect in this version
    #[arg(long, hide = true)]
    pub(crate) ssl_self_signed: bool,
    #[arg(long, hide = true, value_name = "MODE")]
    pub(crate) ssl_mode: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) ssl_ca_file: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) ssl_crl_file: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) server_cert: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) server_key: Option<PathBuf>,
}

impl Tls {
    /// The flags that have no effect.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let given = [
            ("--ssl-self-signed", self.ssl_self_signed),
            ("--ssl-mode", self.ssl_mode.is_some()),
            ("--ssl-ca-file", self.ssl_ca_file.is_some()),
            ("--ssl-crl-file", self.ssl_crl_file.is_some()),
            ("--server-cert", self.server_cert.is_some()),
            ("--server-key", self.server_key.is_some()),
        ];
        given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(flag, _)| flag)
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    Trust,
    Md5,
    #[value(name = "scram-sha-256", alias = "scram")]
    Scram,
    Cert,
    Skip,
}
