//! What was typed, in patronictl's words.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Command-line interface for a cluster of Standfast, in Patroni's words
#[derive(Debug, Parser)]
#[command(name = "patronictl", disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Configuration file: of patronictl, of Patroni, or of a node of Standfast
    #[arg(
        short,
        long = "config-file",
        env = "PATRONICTL_CONFIG_FILE",
        overrides_with = "config_file",
        value_name = "FILE"
    )]
    pub(super) config_file: Option<PathBuf>,
    /// Where the cluster is: etcd3://HOST:PORT/NAMESPACE, or a member's REST interface, http://HOST:PORT
    #[arg(
        short,
        long = "dcs-url",
        visible_alias = "dcs",
        env = "DCS_URL",
        overrides_with = "dcs_url",
        value_name = "URL"
    )]
    pub(super) dcs_url: Option<String>,
    /// Allow connections to SSL sites without certs
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Demote cluster to a standby cluster
    DemoteCluster(DemoteCluster),
    /// Generate a dsn for the provided member, defaults to a dsn of the leader
    Dsn(Dsn),
    /// Edit cluster configuration
    EditConfig(EditConfig),
    /// Failover to a replica
    Failover(Failover),
    /// Discard scheduled events
    Flush(Flush),
    /// Show the history of failovers/switchovers
    History(History),
    /// List the members of a cluster
    List(List),
    /// Disable auto failover
    Pause(Pause),
    /// Promote cluster, make it run standalone
    PromoteCluster(PromoteCluster),
    /// Query a PostgreSQL member
    Query(Query),
    /// Reinitialize cluster member
    Reinit(Reinit),
    /// Reload cluster member configuration
    Reload(Reload),
    /// Remove cluster from DCS
    Remove(Remove),
    /// Restart cluster member
    Restart(Restart),
    /// Resume auto failover
    Resume(Pause),
    /// Show cluster configuration
    ShowConfig(OneCluster),
    /// Switchover to a replica
    Switchover(Switchover),
    /// Prints ASCII topology for given cluster
    Topology(Topology),
    /// Output version of patronictl command or of running members
    Version(Version),
}

/// Which members, by what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    Leader,
    Primary,
    StandbyLeader,
    Replica,
    Standby,
    Any,
}

impl Role {
    /// As it is typed.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Primary => "primary",
            Self::StandbyLeader => "standby-leader",
            Self::Replica => "replica",
            Self::Standby => "standby",
            Self::Any => "any",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Pretty,
    Tsv,
    Json,
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Debug, Default, Args)]
pub(super) struct Group {
    /// Citus group; there is only one, 0
    #[arg(long, value_name = "INTEGER")]
    pub(super) group: Option<u32>,
}

/// The cluster that a command is about; the configuration's if none is named.
#[derive(Debug, Args)]
pub(super) struct OneCluster {
    pub(super) cluster_name: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Watch {
    /// Auto update the screen every 2 seconds
    #[arg(short = 'W')]
    pub(super) often: bool,
    /// Auto update the screen every X seconds
    #[arg(short = 'w', long = "watch", value_name = "SECONDS")]
    pub(super) every: Option<f64>,
}

#[derive(Debug, Args)]
pub(super) struct Dsn {
    /// Give a dsn of any member with this role
    #[arg(short, long)]
    pub(super) role: Option<Role>,
    /// Generate a dsn for this member
    #[arg(short, long)]
    pub(super) member: Option<String>,
    #[command(flatten)]
    pub(super) cluster: OneCluster,
}

#[derive(Debug, Args)]
pub(super) struct EditConfig {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    /// Do not show changes
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Set specific configuration value. Can be specified multiple times
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Set specific PostgreSQL parameter value. Shorthand for -s postgresql.parameters
    #[arg(short, long = "pg", value_name = "KEY=VALUE")]
    pub(super) pg: Vec<String>,
    /// Apply configuration from file. Use - for stdin
    #[arg(long, value_name = "FILE")]
    pub(super) apply: Option<PathBuf>,
    /// Apply configuration from file, replacing existing configuration. Use - for stdin
    #[arg(long, value_name = "FILE")]
    pub(super) replace: Option<PathBuf>,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Force {
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Failover {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    /// The name of the candidate
    #[arg(long)]
    pub(super) candidate: Option<String>,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Switchover {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    /// The name of the current leader
    #[arg(long, visible_alias = "primary")]
    pub(super) leader: Option<String>,
    /// The name of the candidate
    #[arg(long)]
    pub(super) candidate: Option<String>,
    /// Timestamp of a scheduled switchover in unambiguous format (e.g. ISO 8601)
    #[arg(long)]
    pub(super) scheduled: Option<String>,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Flush {
    pub(super) cluster_name: String,
    /// Members, if not all, and then what to discard: restart or switchover
    #[arg(required = true, value_name = "MEMBER_NAMES... {restart|switchover}")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Flush only members with this role
    #[arg(short, long, default_value = "any")]
    pub(super) role: Role,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    /// Output format
    #[arg(short, long, default_value = "pretty")]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct List {
    pub(super) cluster_names: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Show some extra information
    #[arg(short, long)]
    pub(super) extended: bool,
    /// Print timestamp
    #[arg(short, long)]
    pub(super) timestamp: bool,
    /// Output format
    #[arg(short, long, default_value = "pretty")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) watch: Watch,
}

#[derive(Debug, Args)]
pub(super) struct Topology {
    pub(super) cluster_names: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    #[command(flatten)]
    pub(super) watch: Watch,
}

#[derive(Debug, Args)]
pub(super) struct DemoteCluster {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    #[command(flatten)]
    pub(super) force: Force,
    /// Address of the remote node
    #[arg(long)]
    pub(super) host: Option<String>,
    /// Port of the remote node
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Command to restore WAL records from the remote primary
    #[arg(long)]
    pub(super) restore_command: Option<String>,
    /// Name of the slot on the remote node to use for replication
    #[arg(long)]
    pub(super) primary_slot_name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PromoteCluster {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Pause {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    /// Wait until all nodes know of it
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Query {
    #[command(flatten)]
    pub(super) cluster: OneCluster,
    /// Output format
    #[arg(long, default_value = "tsv")]
    pub(super) format: Format,
    /// Execute the SQL commands from this file
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Force password prompt
    #[arg(long)]
    pub(super) password: bool,
    /// Database user name
    #[arg(short = 'U', long)]
    pub(super) username: Option<String>,
    #[command(flatten)]
    pub(super) watch: Watch,
    /// The role of the query
    #[arg(short, long)]
    pub(super) role: Option<Role>,
    /// Query a specific member
    #[arg(short, long)]
    pub(super) member: Option<String>,
    /// The column delimiter
    #[arg(long, default_value = "\t")]
    pub(super) delimiter: String,
    /// The SQL commands to execute
    #[arg(short, long)]
    pub(super) command: Option<String>,
    /// Database name to connect to
    #[arg(short, long)]
    pub(super) dbname: Option<String>,
}

/// Members of a cluster, all if none is named.
#[derive(Debug, Args)]
pub(super) struct Members {
    pub(super) cluster_name: String,
    pub(super) member_names: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
}

#[derive(Debug, Args)]
pub(super) struct Reinit {
    #[command(flatten)]
    pub(super) members: Members,
    #[command(flatten)]
    pub(super) force: Force,
    /// Get basebackup from leader
    #[arg(long)]
    pub(super) from_leader: bool,
    /// Wait until reinitialization completes
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    pub(super) members: Members,
    /// Reload only members with this role
    #[arg(short, long, default_value = "any")]
    pub(super) role: Role,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    pub(super) cluster_name: String,
    #[command(flatten)]
    pub(super) group: Group,
    /// Output format
    #[arg(short, long, default_value = "pretty")]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    pub(super) members: Members,
    /// Restart only members with this role
    #[arg(short, long, default_value = "any")]
    pub(super) role: Role,
    /// Restart a single member only
    #[arg(long)]
    pub(super) any: bool,
    /// Timestamp of a scheduled restart in unambiguous format (e.g. ISO 8601)
    #[arg(long)]
    pub(super) scheduled: Option<String>,
    /// Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)
    #[arg(long)]
    pub(super) pg_version: Option<String>,
    /// Restart if pending
    #[arg(long)]
    pub(super) pending: bool,
    /// Return error and fail over if necessary when restarting takes longer than this
    #[arg(long)]
    pub(super) timeout: Option<String>,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Version {
    pub(super) cluster_name: Option<String>,
    pub(super) member_names: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
}
