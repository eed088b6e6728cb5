//! Flags as pg_autoctl takes them.

use super::meant::{
    Ask, Command, Consent, DropNodeOrder, NodeProperty, NodeValue, Which, WhichNode, WhichUri, mean,
};
use super::typed::Arguments;
use crate::client::Named;
use crate::config::Endpoint;
use crate::create::{MonitorRequest, PostgresRequest, StoreFiles};
use crate::exit::{ExitCode, Failure};
use api::v1::Action;
use clap::Parser as _;
use ha::NodeName;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;

fn try_meaning(line: &str) -> Result<Command, Failure> {
    let words = std::iter::once("standfast").chain(line.split_whitespace());
    let arguments =
        Arguments::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
    mean(arguments)
}

fn meaning(line: &str) -> Command {
    try_meaning(line).unwrap_or_else(|failure| panic!("{line}: {failure}"))
}

fn refused(line: &str) -> Failure {
    match try_meaning(line) {
        Err(failure) => failure,
        Ok(command) => panic!("{line}: {command:?}"),
    }
}

fn asked(line: &str) -> (Named, Ask) {
    match meaning(line) {
        Command::Ask(named, ask) => (named, ask),
        other => panic!("{line}: {other:?}"),
    }
}

fn created(line: &str) -> PostgresRequest {
    match meaning(line) {
        Command::CreatePostgres(request) => *request,
        other => panic!("{line}: {other:?}"),
    }
}

fn monitor(line: &str) -> MonitorRequest {
    match meaning(line) {
        Command::CreateMonitor(request) => request,
        other => panic!("{line}: {other:?}"),
    }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

#[test]
fn a_node_with_a_file_of_its_users_is_named_by_that() {
    let (named, _) = asked("status --config /etc/standfast/n1.yml");
    assert_eq!(named.file, Some(PathBuf::from("/etc/standfast/n1.yml")));
    assert_eq!(named.pgdata, std::env::var_os("PGDATA").map(PathBuf::from));
    // A flag or none: both are the file, wherever no word of the command's own could be meant.
    for command in [
        "status",
        "explain",
        "show state",
        "show events",
        "show uri",
        "show settings",
        "show standby-names",
        "show haproxy",
        "watch",
        "run",
        "stop",
        "reload",
        "config check",
        "store recover",
        "proxy",
    ] {
        let [flag, bare] =
            ["--config n1.yml", "n1.yml"].map(|it| meaning(&format!("{command} {it}")));
        assert_eq!(flag, bare, "{command}");
        assert!(format!("{bare:?}").contains("/n1.yml\""), "{bare:?}");
        refused(&format!("{command} n1.yml --config n2.yml"));
    }
    refused("proxy");
    let command = meaning("show uri --config /etc/standfast/n1.yml");
    assert!(command.becomes_another_user(), "its files are its user's");
}

#[test]
fn the_definition_of_the_flags_is_sound() {
    use clap::CommandFactory as _;
    Arguments::command().debug_assert();
}

#[test]
fn the_walkthrough_of_1_0_is_understood() {
    let request = monitor("create monitor --pgdata /m --pgport 6000 --nodename node.example");
    assert_eq!(
        (request.port, request.host.as_deref()),
        (6000, Some("node.example"))
    );
    assert_eq!((request.name, request.run), (name("monitor"), false));
    assert!(request.without_effect.is_empty());

    let request = created(
        "create postgres --pgdata /a --pgport 6010 --nodename 127.0.0.1 --pgctl /usr/bin/pg_ctl \
         --monitor postgres://autoctl_node@127.0.0.1:6000/pg_auto_failover",
    );
    assert_eq!(request.pgdata, PathBuf::from("/a"));
    assert_eq!(
        (request.port, request.host.as_deref()),
        (6010, Some("127.0.0.1"))
    );
    assert_eq!(request.monitor, [Endpoint::new("127.0.0.1", 6000)]);
    assert_eq!(
        (request.name, request.database.as_str()),
        (None, "postgres")
    );
    assert_eq!((request.priority, request.quorum), (50, true));

    assert_eq!(
        meaning("run --pgdata /a"),
        Command::Run(Which::Pgdata("/a".into()))
    );
    let (named, ask) = asked("show state --pgdata /m");
    assert_eq!(named.pgdata, Some("/m".into()));
    assert_eq!(ask, Ask::State { json: false });
    assert_eq!(
        asked("show events --pgdata /m").1,
        Ask::Events {
            count: 10,
            json: false
        }
    );
    let (named, ask) = asked("show uri --formation default --pgdata /m");
    assert_eq!(named.formation.as_deref(), Some("default"));
    assert_eq!(
        ask,
        Ask::Uri {
            which: WhichUri::Formation,
            json: false
        }
    );
}

#[test]
fn create_takes_the_flags_of_2_x() {
    let request = monitor(
        "create monitor --pgdata /m --pgport 6000 --hostname h --auth trust --ssl-self-signed --run",
    );
    assert!(request.run);
    assert_eq!(request.without_effect, ["--ssl-self-signed"]);
    assert!(
        monitor("create monitor --pgdata /m --no-ssl --name w")
            .without_effect
            .is_empty()
    );

    let request = created(
        "create postgres --pgdata /a --pgport 6010 --hostname h --listen 127.0.0.1,10.0.0.1 --name a \
         --formation default --group 0 --dbname app --username boss --auth scram-sha-256 --no-ssl \
         --pg-hba-lan --candidate-priority 0 --replication-quorum false --maximum-backup-rate 20M \
         --region r --monitor http://m:6000 --run",
    );
    assert_eq!(
        (request.name, request.database.as_str()),
        (Some(name("a")), "app")
    );
    assert_eq!(
        (request.priority, request.quorum, request.run),
        (0, false, true)
    );
    assert_eq!(request.access.method, Some("scram-sha-256"));
    assert!(request.access.lan && !request.access.skip);
    assert_eq!(
        (request.superuser.as_str(), request.backup_rate.as_deref()),
        ("boss", Some("20M"))
    );
    assert_eq!(request.without_effect, ["--region"]);
    assert!(
        created("create postgres --pgdata /a --monitor m:1 --skip-pg-hba")
            .access
            .skip
    );
}

#[test]
fn certificates_for_the_store_are_three_files() {
    let files = "--store-cert-file /x/a.crt --store-key-file /x/a.key --store-ca-file /x/ca.crt";
    let expected = StoreFiles {
        certificate: "/x/a.crt".into(),
        key: "/x/a.key".into(),
        authority: "/x/ca.crt".into(),
    };
    let request = monitor(&format!("create monitor --pgdata /m {files}"));
    assert_eq!(request.certificates.as_ref(), Some(&expected));
    let request = created(&format!(
        "create postgres --pgdata /a --monitor m:1 {files}"
    ));
    assert_eq!(request.certificates.as_ref(), Some(&expected));
    assert_eq!(
        monitor("create monitor --pgdata /m --server-cert /x").certificates,
        None
    );
    assert!(monitor(&format!("create monitor --pgdata /m {files} --rest-tls")).rest_tls);
    assert!(!request.rest_tls);
    for some in [
        "--store-cert-file /x/a.crt",
        "--store-key-file /x/a.key",
        "--store-cert-file /x/a.crt --store-ca-file /x/ca.crt",
    ] {
        refused(&format!("create monitor --pgdata /m {some}"));
    }
}

#[test]
fn words_of_pg_autoctl() {
    let perform = |line: &str| match asked(line).1 {
        Ask::Perform(order) => (order.action, order.to, order.wait, order.dry_run),
        other => panic!("{other:?}"),
    };
    let minute = Duration::from_secs(60);
    assert_eq!(
        perform("perform failover --pgdata /m"),
        (Action::Failover, None, minute, false)
    );
    assert_eq!(
        perform("perform switchover --monitor m:1 --wait 5 --dry-run"),
        (Action::Switchover, None, Duration::from_secs(5), true)
    );
    assert_eq!(
        perform("perform promotion --pgdata /m --name b"),
        (Action::Promotion, Some(name("b")), minute, false)
    );
    for (line, enabled) in [
        ("enable maintenance --pgdata /a", true),
        ("disable maintenance --pgdata /a", false),
    ] {
        assert!(matches!(asked(line).1, Ask::Maintenance(order) if order.enabled == enabled));
    }
    assert_eq!(
        asked("get node candidate-priority --pgdata /a").1,
        Ask::GetNode {
            node: None,
            property: NodeProperty::CandidatePriority,
            json: false
        }
    );
    assert_eq!(
        asked("set node candidate-priority --pgdata /a 70 --name b").1,
        Ask::SetNode {
            node: Some(name("b")),
            value: NodeValue::CandidatePriority(70),
            json: false
        }
    );
    assert_eq!(
        asked("set node replication-quorum --pgdata /a off").1,
        Ask::SetNode {
            node: None,
            value: NodeValue::ReplicationQuorum(false),
            json: false
        }
    );
    let consent = Consent {
        yes: false,
        dry_run: false,
    };
    assert_eq!(
        asked("drop node --monitor m:1 --hostname h --pgport 6011 --force").1,
        Ask::DropNode(DropNodeOrder {
            node: WhichNode::At(Endpoint::new("h", 6011)),
            destroy: false,
            force: true,
            consent,
        })
    );
    assert!(matches!(
        asked("watch --pgdata /m").1,
        Ask::Watch { count: 10 }
    ));
    assert_eq!(
        asked("show uri --monitor --pgdata /m").1,
        Ask::Uri {
            which: WhichUri::Monitor,
            json: false
        }
    );
    assert_eq!(
        asked("show uri --pgdata /m --json").1,
        Ask::Uri {
            which: WhichUri::All,
            json: true
        }
    );
    let (named, ask) = asked("show uri --monitor m:6000");
    assert_eq!(
        (named.monitor.len(), ask),
        (
            1,
            Ask::Uri {
                which: WhichUri::All,
                json: false
            }
        )
    );
}

#[test]
fn a_node_of_ones_own_file_is_stopped_reloaded_and_recovered_by_it() {
    let file = || Which::File("/etc/n1.yml".into());
    assert_eq!(
        meaning("stop /etc/n1.yml"),
        Command::Stop {
            which: file(),
            signal: Signal::TERM
        }
    );
    assert_eq!(meaning("reload /etc/n1.yml"), Command::Reload(file()));
    assert_eq!(
        meaning("store recover /etc/n1.yml --yes"),
        Command::RecoverStore {
            which: file(),
            yes: true
        }
    );
}

#[test]
fn stop_sends_what_pg_ctl_would() {
    for (line, signal) in [
        ("stop --pgdata /a", Signal::TERM),
        ("stop --fast --pgdata /a", Signal::INT),
        ("stop --immediate --pgdata /a", Signal::QUIT),
    ] {
        assert_eq!(
            meaning(line),
            Command::Stop {
                which: Which::Pgdata("/a".into()),
                signal
            }
        );
    }
    assert_eq!(
        refused("stop --fast --immediate --pgdata /a").code,
        ExitCode::Usage
    );
}

#[test]
fn what_can_not_be_meant_is_a_usage_error() {
    for line in [
        "",
        "creat monitor",
        "create monitor --pgdata /m --pgport 0",
        "create monitor --pgdata /m --pgport 70000",
        "create monitor --pgdata /m --pgport x",
        "create monitor --pgdata /m --name a,b",
        "create postgres --pgdata /a --monitor ftp://m:1",
        "create postgres --pgdata /a --monitor m",
        "create postgres --pgdata /a --monitor m:1 --candidate-priority 101",
        "create postgres --pgdata /a --monitor m:1 --replication-quorum perhaps",
        "create postgres --pgdata /a --monitor m:1 --maximum-backup-rate fast",
        "create postgres --pgdata /a --monitor m:1 --auth ident",
        "create postgres --pgdata /a --monitor m:1 --name __placeholder",
        "show events --pgdata /m --count 0",
        "set node candidate-priority --pgdata /a",
        "drop node --pgdata /a --hostname h",
        "perform promotion --pgdata /m --name *",
    ] {
        assert_eq!(refused(line).code, ExitCode::Usage, "{line}");
    }
    assert_eq!(
        refused("show state --pgdata /m --group 1").code,
        ExitCode::Unknown
    );
}

#[test]
fn create_postgres_without_a_monitor_says_what_is_missing() {
    let failure = refused("create postgres --pgdata /a");
    assert!(
        failure.message.contains("--monitor is missing"),
        "{failure}"
    );
    assert!(failure.hint.is_some());
}
