//! Every complaint about a configuration file, one by one.

use super::variables::Environment;
use super::*;
use crate::secret::ClusterSecret;
use expect_test::{Expect, expect};
use std::os::unix::fs::PermissionsExt as _;

mod etcd;
mod layers;
mod methods;
mod mistakes;
mod ports;
mod text;
mod values;

const NODE: &str = "\
scope: demo
name: a
restapi:
  listen: 127.0.0.1:8008
store:
  raft:
    join: [127.0.0.1:6000]
bootstrap:
  dcs:
    synchronous_mode: quorum
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /srv/a
";

fn homes() -> Homes {
    Homes {
        config: "/home/c".into(),
        state: "/home/s".into(),
    }
}

fn load(text: &[u8]) -> Result<(Config, Vec<Problem>), ConfigError> {
    load_with_mode(text, 0o600)
}

fn load_with_mode(text: &[u8], mode: u32) -> Result<(Config, Vec<Problem>), ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("standfast.yml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    Config::load_with(&file, &homes(), &Environment::new()).map_err(|error| ConfigError {
        file: "f.yml".into(),
        ..error
    })
}

fn sound(text: &str) -> Config {
    let (config, warnings) = load(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

/// `from` in the sound file becomes `to`.
fn altered(from: &str, to: &str) -> String {
    assert!(NODE.contains(from), "{from:?}");
    NODE.replace(from, to)
}

fn check_error(text: &str, expected: Expect) {
    expected.assert_eq(&load(text.as_bytes()).unwrap_err().to_string());
}

fn check_warning(text: &str, expected: Expect) {
    let (_, warnings) = load(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<String> = warnings.iter().map(Problem::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_small_file_is_complete() {
    let config = sound(NODE);
    let pg = config.postgresql.as_ref().unwrap();
    assert_eq!(
        (config.scope.as_str(), config.namespace.as_str()),
        ("demo", "service")
    );
    assert_eq!(config.state_dir, Path::new("/home/s/srv/a"));
    assert_eq!(
        config.raft().unwrap().data_dir,
        Path::new("/home/s/srv/a/raft")
    );
    assert_eq!(config.secret_file, Path::new("/home/c/secret"));
    assert_eq!(
        config.raft().unwrap().advertise.to_string(),
        "127.0.0.1:8008"
    );
    assert_eq!(config.raft().unwrap().listen, None);
    assert_eq!(config.api_url(), "http://127.0.0.1:8008");
    assert_eq!((pg.listen.as_str(), pg.port), ("127.0.0.1", 5432));
    assert_eq!(pg.replication.username, "replicator");
    assert_eq!((config.tags.priority(), config.tags.quorum()), (50, true));
    assert!(!config.is_witness());
}

/// Patroni: Configuration | `bootstrap.initdb` | works
#[test]
fn a_file_of_patroni_is_understood() {
    let (config, warnings) = load(
        br#"
scope: batman
namespace: /service/
name: postgresql0
restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.1:8008
  authentication: { username: admin, password: hush }
store:
  raft:
    members: { postgresql0: 10.0.0.1:2380, b: 10.0.0.2:2380, c: 10.0.0.3:2380 }
    listen: 0.0.0.0:2380
    advertise: 10.0.0.1:2380
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    synchronous_mode: on
    postgresql:
      use_pg_rewind: true
      parameters: { max_connections: 100 }
  initdb:
  - encoding: UTF8
  - data-checksums
postgresql:
  listen: "*:5432"
  connect_address: 10.0.0.1:5432
  data_dir: /data/patroni/
  bin_dir: /usr/lib/postgresql/15/bin
  authentication:
    replication: { username: repl, password: rep-pass }
    superuser: { username: postgres, password: zalando }
  pg_hba:
  - host all all 0.0.0.0/0 md5
  parameters:
    unix_socket_directories: '..'
    jit: off
    work_mem: 16MB
    random_page_cost: 1.1
tags:
  nofailover: yes
  nosync: false
  noloadbalance: false
log: { level: WARNING, type: json }
"#,
    )
    .unwrap();
    expect![[r#"
        line 18: bootstrap.dcs.retry_timeout: has no effect: how long a leader may be without the store is its ttl, to the end"#]]
    .assert_eq(&warnings.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"));
    let pg = config.postgresql.as_ref().unwrap();
    assert_eq!(config.namespace, "service");
    assert_eq!(
        config.bootstrap.initdb,
        ["--encoding=UTF8", "--data-checksums"]
    );
    assert_eq!(config.bootstrap.dcs.settings().unwrap().ttl.as_secs(), 30);
    assert_eq!(pg.data_dir, Path::new("/data/patroni"));
    assert_eq!(pg.parameters["jit"], "off");
    assert_eq!(pg.parameters["random_page_cost"], "1.1");
    assert_eq!(pg.listen, "*");
    assert_eq!(
        (config.tags.priority(), config.log.level),
        (0, LogLevel::Warn)
    );
    assert!(
        matches!(&config.raft().unwrap().start, RaftStart::Members(listed) if listed.len() == 3)
    );
    let printed = format!("{config:?}");
    for secret in ["hush", "rep-pass", "zalando"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn unknown_keys_name_their_line_and_the_nearest_key() {
    check_warning(
        &altered(
            "synchronous_mode: quorum",
            "synchronous_mode: quorum\n    synchonous_node_count: 1",
        ),
        expect![
            "line 11: bootstrap.dcs.synchonous_node_count: unknown key, did you mean `synchronous_node_count`?"
        ],
    );
    check_warning(
        &altered(
            "scope: demo",
            "scope: demo\nnamspace: x\ncitus: {}\ncolour: blue",
        ),
        expect![[r#"
        line 2: namspace: unknown key, did you mean `namespace`?
        line 3: citus: has no effect in this version
        line 4: colour: unknown key, it has no effect"#]],
    );
    check_warning(
        &altered(
            "  data_dir: /srv/a",
            "  data_dir: /srv/a\n  data-dir: /srv/b\n  use_unix_socket: true",
        ),
        expect![[r#"
            line 14: postgresql.data-dir: unknown key, did you mean `data_dir`?
            line 15: postgresql.use_unix_socket: has no effect: the agent always comes by a Unix socket of its own"#]],
    );
}

#[test]
fn certificates_of_commands_are_those_of_ctl_or_of_the_rest_interface() {
    let rest = "certfile: /r.crt, keyfile: /r.key, cafile: /r.ca";
    let node = |more: &str, ctl: &str| {
        let text = altered("restapi:\n", &format!("ctl: {{{ctl}}}\nrestapi:\n"));
        let listen = "  listen: 127.0.0.1:8008\n";
        assert!(text.contains(listen), "{text}");
        text.replace(listen, &format!("{listen}{more}"))
    };
    let lines = format!("  {}\n", rest.replace(", ", "\n  "));
    let (crt, key) = ("/r.crt".into(), "/r.key".into());
    let trust = sound(&node(&lines, "")).trust;
    assert_eq!(trust.authority, Some("/r.ca".into()));
    assert_eq!(trust.own, Some((crt, key)));
    assert!(!trust.insecure);
    let own = "cacert: /c.ca, certfile: /c.pem, insecure: true, authentication: {username: u, password: p}";
    let config = sound(&node(&lines, own));
    assert_eq!(config.trust.authority, Some("/c.ca".into()));
    // Both in one file.
    assert_eq!(config.trust.own, Some(("/c.pem".into(), "/c.pem".into())));
    assert!(config.trust.insecure);
    assert_eq!(config.api_url(), "https://127.0.0.1:8008");
    let locked = Some(certs::Passphrase::new("planted"));
    let config = sound(&node(&format!("{lines}  keyfile_password: planted\n"), ""));
    let rest = config.restapi.certificate.expect("a certificate");
    assert_eq!(
        (&rest.passphrase, &config.trust.passphrase),
        (&locked, &locked)
    );
    assert!(!format!("{:?}", config.trust).contains("planted"));
    let own = "certfile: /c.pem, keyfile_password: planted";
    assert_eq!(sound(&node(&lines, own)).trust.passphrase, locked);
    let open = sound(&node(
        &format!("{lines}  keyfile_password: planted\n"),
        "certfile: /c.pem",
    ));
    assert_eq!(open.trust.passphrase, None);
    check_warning(
        &node("", "cacrt: /x"),
        expect!["line 3: ctl.cacrt: unknown key, did you mean `cacert`?"],
    );
}

#[test]
fn an_allowlist_has_addresses_networks_and_names() {
    let with = |list: &str| {
        altered(
            "  listen: 127.0.0.1:8008\n",
            &format!("  listen: 127.0.0.1:8008\n  allowlist: [{list}]\n"),
        )
    };
    let gate = sound(&with("10.0.0.0/8, '::1', admin, db-1.example.org"))
        .restapi
        .gate;
    assert_eq!(gate.allowlist.len(), 2);
    assert_eq!(gate.allowed_names, ["admin", "db-1.example.org"]);
    for bad in ["10.0.0.0/33", "10.0.0", "10.0.0.256", "a b", "'a:80'"] {
        let error = load(with(bad).as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("line 5: restapi.allowlist"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn an_absent_synchronous_mode_is_patronis_and_said_so() {
    let text = altered("    synchronous_mode: quorum", "    ttl: 3");
    check_warning(
        &text,
        expect![
            "line 9: bootstrap.dcs.synchronous_mode: not set, so commits are asynchronous, as Patroni has it; `quorum` protects them"
        ],
    );
    let (config, _) = load(text.as_bytes()).unwrap();
    assert_eq!(
        config.bootstrap.dcs.settings().unwrap().sync_mode,
        ha::SyncMode::Off
    );
}

/// Patroni: Configuration | tags `nofailover`, `failover_priority`, `nosync`, `sync_priority: 0`, `noloadbalance`,
///   a user's own | work; priorities up to 100
#[test]
fn tags_are_shown_as_patroni_shows_them() {
    let shown = |tags: &str| {
        let (config, _) = load(format!("{NODE}tags: {{ {tags} }}\n").as_bytes()).unwrap();
        serde_json::Value::Object(config.tags.shown).to_string()
    };
    assert_eq!(
        shown("nofailover: yes, nosync: false, noloadbalance: no, zone: a, rack: 7"),
        r#"{"nofailover":true,"rack":7,"zone":"a"}"#
    );
    // Which of the two counts is seen only where both are.
    assert_eq!(
        shown("nofailover: false, failover_priority: 1, nosync: off, sync_priority: 2"),
        r#"{"failover_priority":1,"nofailover":false,"nosync":false,"sync_priority":2}"#
    );
}

#[test]
fn wrong_types_and_missing_keys_are_all_said_at_once() {
    check_error(
        "name: yes\npostgresql: 5\nstore: {}\ntags: { nofailover: perhaps }\n",
        expect![[r#"
        f.yml: line 1: scope: is missing: the name of the cluster
        f.yml: line 1: name: true is not a text; quote it if you mean it as one
        f.yml: line 1: postgresql: is missing: the instance, or `witness: true` for a monitor
        f.yml: line 1: restapi.listen: is missing: HOST:PORT of the REST API, such as 127.0.0.1:8008
        f.yml: line 2: postgresql: 5 is not a mapping of keys to values
        f.yml: line 4: tags.nofailover: "perhaps" is not true or false"#]],
    );
}

#[test]
fn a_password_of_the_wrong_type_is_not_repeated() {
    let text =
        format!("{NODE}  authentication:\n    superuser: {{password: [planted-password]}}\n");
    let error = load(text.as_bytes()).unwrap_err().to_string();
    assert!(
        error.contains("password") && !error.contains("planted"),
        "{error}"
    );
}

#[test]
fn passwords_that_others_can_read_are_warned_of() {
    let text = format!("{NODE}  authentication:\n    superuser: {{password: hush}}\n");
    let (_, warnings) = load_with_mode(text.as_bytes(), 0o644).unwrap();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.what.contains("chmod 600")),
        "{warnings:?}"
    );
}
