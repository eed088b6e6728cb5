//! What a command line means: paths made absolute, addresses read, names checked, defaults filled in.
//!
//! **Invariant:** nothing is opened or asked here except the working directory and the name of the user.

mod create;

use super::monitor_url::{self, Monitor};
use super::typed::{
    self, Arguments, Create, Disable, Drop, Enable, Get, GetNode, Perform, Set, SetNode, Show, Verb,
};
use crate::client::Named;
use crate::config::{Endpoint, Log, LogLevel, check_host};
use crate::create::{MonitorRequest, PostgresRequest};
use crate::exit::Failure;
use crate::paths::absolute;
use api::client::TrustOptions;
use api::v1::Action;
use ha::NodeName;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// pg_autoctl's monitors and nodes listen here unless told otherwise.
const DEFAULT_PORT: u16 = 5432;

/// A command, understood.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Run(Which),
    /// With this file.
    Proxy(PathBuf),
    CreateMonitor(MonitorRequest),
    CreatePostgres(Box<PostgresRequest>),
    Ask(Named, Ask),
    Stop {
        which: Which,
        signal: Signal,
    },
    Reload(Which),
    CheckConfig(Which),
    ImportConfig {
        file: PathBuf,
        output: Option<PathBuf>,
    },
    Demo(crate::demo::Options),
    Bench(crate::bench::Bench),
    Replay(PathBuf),
    RecoverStore {
        which: Which,
        yes: bool,
    },
    Version {
        json: bool,
    },
}

impl Command {
    /// Whether it touches a node's files, or runs Postgres: neither is root's business.
    pub(crate) fn becomes_another_user(&self) -> bool {
        match self {
            Self::Run(_)
            | Self::Proxy(_)
            | Self::CreateMonitor(_)
            | Self::CreatePostgres(_)
            | Self::Stop { .. }
            | Self::Reload { .. }
            | Self::RecoverStore { .. }
            | Self::CheckConfig(Which::Pgdata(_)) => true,
            Self::Ask(named, _) => named.pgdata.is_some() || named.file.is_some(),
            // What is left writes nothing of a node's, or sees to its users itself.
            _ => false,
        }
    }
}

/// Which configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    File(PathBuf),
    Pgdata(PathBuf),
}

/// What a cluster is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
    State {
        json: bool,
    },
    Events {
        count: u32,
        json: bool,
    },
    Uri {
        which: WhichUri,
        json: bool,
    },
    Settings {
        json: bool,
    },
    StandbyNames {
        json: bool,
    },
    Haproxy(HaproxyOrder),
    Status {
        json: bool,
    },
    Explain {
        json: bool,
    },
    Perform(PerformOrder),
    Maintenance(MaintenanceOrder),
    GetNode {
        node: Option<NodeName>,
        property: NodeProperty,
        json: bool,
    },
    SetNode {
        node: Option<NodeName>,
        value: NodeValue,
        json: bool,
    },
    DropNode(DropNodeOrder),
    DropMonitor(DropMonitorOrder),
    Watch {
        count: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhichUri {
    All,
    Formation,
    Monitor,
}

/// Where HAProxy shall listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HaproxyOrder {
    pub(crate) bind: String,
    pub(crate) primary_port: u16,
    pub(crate) standby_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PerformOrder {
    pub(crate) action: Action,
    pub(crate) to: Option<NodeName>,
    pub(crate) wait: Duration,
    pub(crate) dry_run: bool,
    pub(crate) accept_loss: bool,
    pub(crate) yes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaintenanceOrder {
    pub(crate) enabled: bool,
    pub(crate) node: Option<NodeName>,
    pub(crate) allow_failover: bool,
    pub(crate) wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeProperty {
    CandidatePriority,
    ReplicationQuorum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeValue {
    CandidatePriority(u32),
    ReplicationQuorum(bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WhichNode {
    Own,
    Named(NodeName),
    At(Endpoint),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) yes: bool,
    pub(crate) dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DropNodeOrder {
    pub(crate) node: WhichNode,
    pub(crate) destroy: bool,
    pub(crate) force: bool,
    pub(crate) consent: Consent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DropMonitorOrder {
    pub(crate) destroy: bool,
    pub(crate) consent: Consent,
}

/// How much the command line wants logged; `None`: as the configuration says.
pub(crate) fn log_level(common: &typed::Common) -> Option<LogLevel> {
    if common.quiet {
        return Some(LogLevel::Error);
    }
    match common.verbose {
        0 => common.log_level,
        1 => Some(LogLevel::Debug),
        _ => Some(LogLevel::Trace),
    }
}

/// The configured log, unless the command line says otherwise.
pub(crate) fn log(configured: Log, level: Option<LogLevel>) -> Log {
    Log {
        level: level.unwrap_or(configured.level),
        ..configured
    }
}

/// The second step.
pub(crate) fn mean(arguments: Arguments) -> Result<Command, Failure> {
    Ok(match arguments.verb {
        Verb::Create(Create::Monitor(typed)) => Command::CreateMonitor(create::monitor(*typed)?),
        Verb::Create(Create::Postgres(typed)) => {
            Command::CreatePostgres(Box::new(create::postgres(*typed)?))
        }
        Verb::Run(own) => Command::Run(which(own, "run")?),
        Verb::Show(show) => self::show(show)?,
        Verb::Status(table) => {
            let target = with_file(table.target, table.bare);
            ask(target, Ask::Status { json: table.json })?
        }
        Verb::Explain(table) => {
            let target = with_file(table.target, table.bare);
            ask(target, Ask::Explain { json: table.json })?
        }
        Verb::Perform(Perform::Failover(args)) => perform(Action::Failover, args)?,
        Verb::Perform(Perform::Switchover(args)) => perform(Action::Switchover, args)?,
        Verb::Perform(Perform::Promotion(args)) => perform(Action::Promotion, args)?,
        Verb::Enable(Enable::Maintenance(args)) => maintenance(true, args)?,
        Verb::Disable(Disable::Maintenance(args)) => maintenance(false, args)?,
        Verb::Get(Get::Node(GetNode::CandidatePriority(args))) => {
            get(args, NodeProperty::CandidatePriority)?
        }
        Verb::Get(Get::Node(GetNode::ReplicationQuorum(args))) => {
            get(args, NodeProperty::ReplicationQuorum)?
        }
        Verb::Set(Set::Node(SetNode::CandidatePriority { node, value })) => {
            set(node, NodeValue::CandidatePriority(value))?
        }
        Verb::Set(Set::Node(SetNode::ReplicationQuorum { node, value })) => {
            set(node, NodeValue::ReplicationQuorum(value))?
        }
        Verb::Drop(Drop::Node(args)) => drop_node(*args)?,
        Verb::Drop(Drop::Monitor(args)) => {
            let consent = Consent {
                yes: args.consent.yes,
                dry_run: args.consent.dry_run,
            };
            let order = DropMonitorOrder {
                destroy: args.destroy,
                consent,
            };
            let named = Named {
                pgdata: Some(pgdata(&args.local)?),
                ..Named::default()
            };
            Command::Ask(named, Ask::DropMonitor(order))
        }
        Verb::Watch(args) => {
            let target = with_file(args.target, args.bare);
            ask(target, Ask::Watch { count: args.count })?
        }
        Verb::Proxy(typed::Proxy { file, config }) => {
            // One of them is required.
            let file = file.or(config).unwrap_or_default();
            Command::Proxy(made_absolute(&file)?)
        }
        Verb::Stop(args) => {
            let signal = match (args.fast, args.immediate) {
                (_, true) => Signal::QUIT,
                (true, _) => Signal::INT,
                (false, false) => Signal::TERM,
            };
            Command::Stop {
                which: which(args.own, "stop")?,
                signal,
            }
        }
        Verb::Reload(own) => Command::Reload(which(own, "reload")?),
        Verb::Config(typed::Config::Check { own }) => {
            Command::CheckConfig(which(own, "config check")?)
        }
        Verb::Config(typed::Config::Import { file, output }) => {
            Command::ImportConfig { file, output }
        }
        Verb::Demo(options) => Command::Demo(options),
        Verb::Bench(what) => Command::Bench(what),
        Verb::Debug(typed::Debug::Replay { file }) => {
            Command::Replay(absolute(&file).map_err(|error| {
                Failure::error(format!("can't make {} absolute: {error}", file.display()))
            })?)
        }
        Verb::Store(typed::Store::Recover { own, yes }) => Command::RecoverStore {
            which: which(own, "store recover")?,
            yes,
        },
        Verb::Version(args) => Command::Version { json: args.json },
    })
}

fn show(show: Show) -> Result<Command, Failure> {
    Ok(match show {
        Show::State(table) => {
            let target = with_file(table.target, table.bare);
            ask(target, Ask::State { json: table.json })?
        }
        Show::Events(args) => ask(
            with_file(args.target, args.bare),
            Ask::Events {
                count: args.count,
                json: args.json,
            },
        )?,
        Show::Settings(table) => {
            let target = with_file(table.target, table.bare);
            ask(target, Ask::Settings { json: table.json })?
        }
        Show::StandbyNames(table) => {
            let target = with_file(table.target, table.bare);
            ask(target, Ask::StandbyNames { json: table.json })?
        }
        Show::Haproxy(args) => {
            let order = HaproxyOrder {
                bind: args.bind,
                primary_port: args.primary_port,
                standby_port: args.standby_port,
            };
            ask(with_file(args.target, args.bare), Ask::Haproxy(order))?
        }
        Show::Uri(args) => {
            let bare = args.monitor.as_deref() == Some("");
            let mut scope = args.scope;
            // pg_autoctl's other way to ask for the monitor's string.
            let monitor_too = scope.formation.as_deref() == Some("monitor");
            if monitor_too {
                scope.formation = None;
            }
            let which = match (bare || monitor_too, scope.formation.is_some()) {
                (true, _) => WhichUri::Monitor,
                (false, true) => WhichUri::Formation,
                (false, false) => WhichUri::All,
            };
            let monitor = args.monitor.filter(|url| !url.is_empty());
            let target = typed::Target {
                local: args.local,
                monitor,
                scope,
            };
            ask(
                with_file(target, args.bare),
                Ask::Uri {
                    which,
                    json: args.json,
                },
            )?
        }
    })
}

fn perform(action: Action, args: typed::PerformArgs) -> Result<Command, Failure> {
    let order = PerformOrder {
        action,
        to: args.name.as_deref().map(node_name).transpose()?,
        wait: Duration::from_secs(args.patience.wait),
        dry_run: args.dry_run,
        accept_loss: args.allow_data_loss,
        yes: args.yes,
    };
    ask(args.target, Ask::Perform(order))
}

fn maintenance(enabled: bool, args: typed::Maintenance) -> Result<Command, Failure> {
    let order = MaintenanceOrder {
        enabled,
        node: args.node.name.as_deref().map(node_name).transpose()?,
        allow_failover: args.allow_failover,
        wait: Duration::from_secs(args.patience.wait),
    };
    ask(args.node.target, Ask::Maintenance(order))
}

fn get(args: typed::NodeArgs, property: NodeProperty) -> Result<Command, Failure> {
    let node = args.node.name.as_deref().map(node_name).transpose()?;
    ask(
        args.node.target,
        Ask::GetNode {
            node,
            property,
            json: args.json,
        },
    )
}

fn set(args: typed::NodeArgs, value: NodeValue) -> Result<Command, Failure> {
    let node = args.node.name.as_deref().map(node_name).transpose()?;
    ask(
        args.node.target,
        Ask::SetNode {
            node,
            value,
            json: args.json,
        },
    )
}

fn drop_node(args: typed::DropNode) -> Result<Command, Failure> {
    let node = match (&args.name, &args.hostname, args.pgport) {
        (Some(name), _, _) => WhichNode::Named(node_name(name)?),
        (None, Some(host), Some(port)) => {
            let host =
                check_host(host).map_err(|bad| Failure::usage(format!("--hostname: {bad}")))?;
            WhichNode::At(Endpoint::new(host, port))
        }
        _ => WhichNode::Own,
    };
    let consent = Consent {
        yes: args.consent.yes,
        dry_run: args.consent.dry_run,
    };
    let order = DropNodeOrder {
        node,
        destroy: args.destroy,
        force: args.force,
        consent,
    };
    ask(args.target, Ask::DropNode(order))
}

/// The file that was named without a flag is the one that --config names.
fn with_file(mut target: typed::Target, bare: typed::Bare) -> typed::Target {
    target.scope.config = target.scope.config.or(bare.file);
    target
}

fn ask(target: typed::Target, ask: Ask) -> Result<Command, Failure> {
    one_group(target.scope.group)?;
    let monitor = target.monitor.as_deref().map(monitor_address);
    let monitor = monitor.transpose()?.unwrap_or_default();
    let made = |path: Option<PathBuf>| path.map(|path| made_absolute(&path)).transpose();
    let named = Named {
        file: made(target.scope.config)?,
        pgdata: made(target.local.pgdata)?,
        monitor: monitor.endpoints,
        https: monitor.https,
        trust: trust(target.scope.trust)?,
        formation: target.scope.formation,
        secret_file: made(target.scope.secret_file)?,
    };
    Ok(Command::Ask(named, ask))
}

fn one_group(group: Option<u32>) -> Result<(), Failure> {
    match group {
        None | Some(0) => Ok(()),
        Some(group) => Err(Failure::unknown(format!(
            "there is no group {group}, only group 0"
        ))),
    }
}

/// `command` is what was typed, for who has named no node.
fn which(own: typed::Own, command: &str) -> Result<Which, Failure> {
    if let Some(file) = own.file.or(own.config) {
        return Ok(Which::File(made_absolute(&file)?));
    }
    if let Some(dir) = given(&own.local) {
        return Ok(Which::Pgdata(made_absolute(dir)?));
    }
    let missing = Failure::usage(format!("{command} wants a FILE: a node's configuration"));
    Err(missing.hint(format!(
        "standfast {command} /etc/standfast/n1.yml; or --pgdata DIR (PGDATA in the environment) for a node that \
         `standfast create` made"
    )))
}

fn given(local: &typed::Local) -> Option<&Path> {
    let dir = local.pgdata.as_deref();
    dir.filter(|dir| !dir.as_os_str().is_empty())
}

fn pgdata(local: &typed::Local) -> Result<PathBuf, Failure> {
    let Some(dir) = given(local) else {
        return Err(
            Failure::usage("--pgdata is missing: the node's data directory")
                .hint("PGDATA in the environment does as well"),
        );
    };
    made_absolute(dir)
}

fn made_absolute(path: &Path) -> Result<PathBuf, Failure> {
    absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// A certificate without a key of its own holds both.
fn trust(typed: typed::Trust) -> Result<TrustOptions, Failure> {
    let made = |file: Option<PathBuf>| file.map(|file| made_absolute(&file)).transpose();
    let (certificate, key) = (made(typed.cert_file)?, made(typed.key_file)?);
    Ok(TrustOptions {
        authority: made(typed.ca_file)?,
        own: certificate.map(|file| (file.clone(), key.unwrap_or(file))),
        insecure: typed.insecure,
        ..TrustOptions::default()
    })
}

fn monitor_address(text: &str) -> Result<Monitor, Failure> {
    monitor_url::parse(text).map_err(|bad| {
        Failure::usage(format!("--monitor: {bad}"))
            .hint("write HOST:PORT, http://HOST:PORT, https://HOST:PORT or postgres://autoctl_node@HOST:PORT/pg_auto_failover")
    })
}

fn node_name(text: &str) -> Result<NodeName, Failure> {
    NodeName::new(text).map_err(|bad| Failure::usage(format!("--name: {bad}")))
}

fn owned(words: Vec<&'static str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}
