//! What was typed. Words and flags are pg_autoctl's where the meaning is pg_autoctl's, those of its 1.0 included.

mod create;

pub(crate) use create::{Auth, Create, CreateMonitor, CreatePostgres, StoreFiles};

use crate::config::LogLevel;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

/// Keeps PostgreSQL available by itself
#[derive(Debug, Parser)]
#[command(name = "standfast", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How much to log on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, display_order = 900, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// Log more; twice for everything
    #[arg(short, long, global = true, display_order = 900, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,
    /// Started as root: the user to run as
    #[arg(
        long,
        global = true,
        display_order = 900,
        default_value = "postgres",
        value_name = "USER"
    )]
    pub(crate) user: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a monitor or a Postgres node
    #[command(subcommand)]
    Create(Create),
    /// Run a node: its agent and, beneath it, Postgres
    Run(Own),
    /// Show the cluster's state, events, settings and addresses
    #[command(subcommand)]
    Show(Show),
    /// One screen: the cluster, its nodes, and whether this node's agent runs
    Status(ShowTable),
    /// For every node: may it lead, and if not, why
    Explain(ShowTable),
    /// Change the primary
    #[command(subcommand)]
    Perform(Perform),
    /// Put a node into maintenance
    #[command(subcommand)]
    Enable(Enable),
    /// Take a node out of maintenance
    #[command(subcommand)]
    Disable(Disable),
    /// Print a property of a node
    #[command(subcommand)]
    Get(Get),
    /// Change a property of a node
    #[command(subcommand)]
    Set(Set),
    /// Remove a node or the monitor
    #[command(subcommand)]
    Drop(Drop),
    /// Show state and events, again and again
    Watch(Watch),
    /// Run a proxy: clients connect to it, and it knows where the primary is
    Proxy(Proxy),
    /// Stop this node's agent and its Postgres
    Stop(Stop),
    /// Make this node's agent read its configuration again
    Reload(Own),
    /// Configuration files
    #[command(subcommand)]
    Config(Config),
    /// Watch a cluster on this machine lose its primary and repair itself
    Demo(crate::demo::Options),
    /// Measure what clients see of faults
    #[command(subcommand)]
    Bench(crate::bench::Bench),
    /// Look into what a node has decided
    #[command(subcommand)]
    Debug(Debug),
    /// Repair the embedded store
    #[command(subcommand)]
    Store(Store),
    /// Print the version
    Version(Version),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Decide again what a node's journal has recorded, and show what is decided differently now
    Replay {
        /// A journal.jsonl of a node's state directory
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Go on with this node's member alone, after a majority is lost for good; the agent must be stopped
    Recover {
        #[command(flatten)]
        own: Own,
        /// Do it: what only the lost members knew is lost
        #[arg(long)]
        yes: bool,
    },
}

/// Which node's files are meant
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Local {
    /// The node's data directory
    #[arg(long, env = "PGDATA", value_name = "DIR")]
    pub(crate) pgdata: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// The proxy's configuration file
    #[arg(required_unless_present = "config")]
    pub(crate) file: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) config: Option<PathBuf>,
}

/// Which node of this machine is meant
#[derive(Debug, Args)]
pub(crate) struct Own {
    /// The node's configuration file, when `create` did not write it
    pub(crate) file: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// Whom to ask
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) local: Local,
    /// Any member's address, as HOST:PORT, http://HOST:PORT, https://HOST:PORT or pg_autoctl's postgres:// form
    #[arg(long, env = "PG_AUTOCTL_MONITOR", value_name = "URL")]
    pub(crate) monitor: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Scope {
    /// The configuration file of a node of this machine, when `create` did not write it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The formation; there is one per cluster
    #[arg(long, value_name = "NAME")]
    pub(crate) formation: Option<String>,
    /// The group; there is only 0
    #[arg(long, value_name = "N")]
    pub(crate) group: Option<u32>,
    /// File of the cluster secret
    #[arg(long, env = "STANDFAST_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// The same file without a flag, where no word of the command's own could be meant
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Bare {
    /// The configuration file of a node of this machine, as with --config
    #[arg(conflicts_with = "config")]
    pub(crate) file: Option<PathBuf>,
}

/// What the configuration's `ctl` says otherwise
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Trust {
    /// The authorities of the members' REST certificates, in PEM
    #[arg(long, env = "STANDFAST_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate to show, where members ask for one; with its key, unless --key-file names that
    #[arg(long, env = "STANDFAST_CERT_FILE", value_name = "FILE")]
    pub(crate) cert_file: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(
        long,
        env = "STANDFAST_KEY_FILE",
        requires = "cert_file",
        value_name = "FILE"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Believe whoever answers by HTTPS
    #[arg(long, short = 'k')]
    pub(crate) insecure: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Show {
    /// Every node, what it reports and what is wanted of it
    State(ShowTable),
    /// What happened, and why
    Events(ShowEvents),
    /// The connection strings
    Uri(ShowUri),
    /// Replication settings
    Settings(ShowTable),
    /// synchronous_standby_names as it should be
    StandbyNames(ShowTable),
    /// A configuration of HAProxy for this cluster
    Haproxy(ShowHaproxy),
}

#[derive(Debug, Args)]
pub(crate) struct ShowHaproxy {
    #[command(flatten)]
    pub(crate) bare: Bare,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Where HAProxy shall listen
    #[arg(long, value_name = "ADDRESS", default_value = "*")]
    pub(crate) bind: String,
    /// Its port for the primary
    #[arg(long, value_name = "PORT", default_value_t = 5000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) primary_port: u16,
    /// Its port for the standbys, which only read
    #[arg(long, value_name = "PORT", default_value_t = 5001, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) standby_port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct ShowTable {
    #[command(flatten)]
    pub(crate) bare: Bare,
    #[command(flatten)]
    pub(crate) target: Target,
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
    /// Accepted for pg_autoctl's sake: the node's own API is asked first in any case
    #[arg(long, hide = true)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowEvents {
    #[command(flatten)]
    pub(crate) bare: Bare,
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many, newest last
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowUri {
    #[command(flatten)]
    pub(crate) bare: Bare,
    #[command(flatten)]
    pub(crate) local: Local,
    /// The monitor's own string; with a value, also whom to ask
    #[arg(long, env = "PG_AUTOCTL_MONITOR", value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub(crate) monitor: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Perform {
    /// Make another node the primary, the best one
    Failover(PerformArgs),
    /// Make another node the primary, in order
    Switchover(PerformArgs),
    /// Make this node the primary
    Promotion(PerformArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PerformArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The node that is to lead
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) patience: Patience,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Without a leader: the named node shall lead even if acknowledged commits are lost by it
    #[arg(long, requires = "name")]
    pub(crate) allow_data_loss: bool,
    /// Don't ask before accepting a loss
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enable {
    /// Postgres of the node is left alone until maintenance is disabled
    Maintenance(Maintenance),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Disable {
    /// The node takes part again
    Maintenance(Maintenance),
}

#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    #[command(flatten)]
    pub(crate) node: Node,
    /// A primary hands over first
    #[arg(long)]
    pub(crate) allow_failover: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Args)]
pub(crate) struct Patience {
    /// How many seconds to wait for the outcome
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) wait: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Get {
    /// A property of a node
    #[command(subcommand)]
    Node(GetNode),
}

#[derive(Debug, Subcommand)]
pub(crate) enum GetNode {
    /// 0: never leads; 100: preferred most
    CandidatePriority(NodeArgs),
    /// Whether commits may count on this node
    ReplicationQuorum(NodeArgs),
}

/// A node of the cluster
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The node; the one of --pgdata if none is given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) node: Node,
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Set {
    /// A property of a node
    #[command(subcommand)]
    Node(SetNode),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetNode {
    /// 0: never leads; 100: preferred most
    CandidatePriority {
        #[command(flatten)]
        node: NodeArgs,
        #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
        value: u32,
    },
    /// Whether commits may count on this node
    ReplicationQuorum {
        #[command(flatten)]
        node: NodeArgs,
        #[arg(value_name = "BOOL", value_parser = boolean, action = ArgAction::Set)]
        value: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Drop {
    /// Remove a node from the cluster; its data stay unless --destroy
    Node(Box<DropNode>),
    /// Remove the monitor of this machine
    Monitor(DropMonitor),
}

#[derive(Debug, Args)]
pub(crate) struct DropNode {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The node by its name
    #[arg(long, value_name = "NAME", conflicts_with = "hostname")]
    pub(crate) name: Option<String>,
    /// The node by its host, with --pgport
    #[arg(long, alias = "nodename", value_name = "HOST", requires = "pgport")]
    pub(crate) hostname: Option<String>,
    /// The node's port
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub(crate) pgport: Option<u16>,
    /// Remove the data directory too
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Remove a node that can't be reached, at once
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct DropMonitor {
    #[command(flatten)]
    pub(crate) local: Local,
    /// Remove its directory too
    #[arg(long)]
    pub(crate) destroy: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Consent {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) bare: Bare,
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many events to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Disconnect clients and stop in order
    #[arg(long, conflicts_with = "immediate")]
    pub(crate) fast: bool,
    /// Stop as a crash would
    #[arg(long)]
    pub(crate) immediate: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a configuration file and say everything that is wrong with it
    Check {
        #[command(flatten)]
        own: Own,
    },
    /// Write a commented file of Standfast's from one of Patroni's
    Import {
        /// patroni.yml, or a directory of such files
        file: PathBuf,
        /// Where to; standard output if it is not given. A file that is there is not replaced
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Version {
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

fn port(text: &str) -> Result<u16, String> {
    crate::config::parse_port(text).map_err(|bad| bad.to_string())
}

/// As pg_autoctl takes them.
fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}
