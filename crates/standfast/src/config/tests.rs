//! Every complaint about a configuration file, one by one.

use super::variables::Environment;
use super::*;
use crate::secret::ClusterSecret;
use expect_test::{Expect, expect};
use std::os::unix::fs::PermissionsExt as _;

mod layers;
mod mistakes;

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
fn a_file_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let absent = Config::load(&dir.path().join("absent.yml"), &homes()).unwrap_err();
    assert!(
        absent
            .to_string()
            .ends_with("absent.yml: can't be read: No such file or directory (os error 2)")
    );
    let directory = Config::load(dir.path(), &homes()).unwrap_err();
    assert!(
        directory
            .to_string()
            .ends_with("it holds no *.yml or *.yaml with text in it")
    );
    let large = load(&vec![b'#'; 2 << 20]).unwrap_err();
    assert!(
        large.to_string().contains("more than any configuration"),
        "{large}"
    );
    check_error("", expect!["f.yml: is empty"]);
    check_error(" \n\n", expect!["f.yml: is empty"]);
    check_error(
        "- a\n- b\n",
        expect!["f.yml: is not a mapping of keys to values"],
    );
    check_error(
        "just words\n",
        expect!["f.yml: is not a mapping of keys to values"],
    );
}

#[test]
fn encodings() {
    let with_bom = [b"\xEF\xBB\xBF".as_slice(), NODE.as_bytes()].concat();
    load(&with_bom).unwrap();
    let utf16: Vec<u8> = "\u{feff}scope: x"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let check = |bytes: &[u8], expected: Expect| {
        expected.assert_eq(&load(bytes).unwrap_err().to_string());
    };
    check(&utf16, expect!["f.yml: is UTF-16, save it as UTF-8"]);
    check(
        b"scope: x\nname: \xFF\n",
        expect!["f.yml: line 2: is not UTF-8 here, save the file as UTF-8"],
    );
}

#[test]
fn yaml_that_is_broken() {
    check_error(
        &format!("{NODE}scope: again\n"),
        expect!["f.yml: line 14: duplicate mapping key: scope"],
    );
    check_error(
        "scope: [1, 2\nname: x\n",
        expect!["f.yml: line 2: illegal placement of ':' indicator"],
    );
    check_error(
        "scope: x\n\tname: y\n",
        expect!["f.yml: line 1: while scanning a plain scalar, found a tab"],
    );
    check_error(
        "scope: *nobody\n",
        expect!["f.yml: line 1: alias references unknown anchor"],
    );
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
            "scope: demo\nnamspace: x\nwatchdog: {}\ncolour: blue",
        ),
        expect![[r#"
        line 2: namspace: unknown key, did you mean `namespace`?
        line 3: watchdog: has no effect in this version
        line 4: colour: unknown key, it has no effect"#]],
    );
    check_warning(
        &altered(
            "  data_dir: /srv/a",
            "  data_dir: /srv/a\n  data-dir: /srv/b\n  proxy_address: x",
        ),
        expect![[r#"
        line 14: postgresql.data-dir: unknown key, did you mean `data_dir`?
        line 15: postgresql.proxy_address: has no effect in this version"#]],
    );
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
fn settings_that_can_not_work() {
    for (setting, expected) in [
        (
            "ttl: 0",
            expect!["f.yml: line 11: bootstrap.dcs.ttl: must be at least 1 second"],
        ),
        (
            "ttl: -1",
            expect!["f.yml: line 11: bootstrap.dcs.ttl: -1 is not a number of seconds"],
        ),
        (
            "ttl: 1e99",
            expect!["f.yml: line 11: bootstrap.dcs.ttl: 1e+99 is not a number of seconds"],
        ),
        (
            "ttl: .inf",
            expect![[r#"f.yml: line 11: bootstrap.dcs.ttl: ".inf" is not a number of seconds"#]],
        ),
        (
            "ttl: '30'",
            expect![[r#"f.yml: line 11: bootstrap.dcs.ttl: "30" is not a number of seconds"#]],
        ),
        (
            "ttl: 30s",
            expect![[r#"f.yml: line 11: bootstrap.dcs.ttl: "30s" is not a number of seconds"#]],
        ),
        (
            "ttl: 2\n    beat: 1",
            expect![
                "f.yml: line 12: bootstrap.dcs.beat: must be at most a third of ttl, so that one lost beat is no failover"
            ],
        ),
        (
            "failure_timeout: 0.1",
            expect!["f.yml: line 11: bootstrap.dcs.failure_timeout: must be at least two beats"],
        ),
        (
            "maximum_lag_on_failover: -5",
            expect![
                "f.yml: line 11: bootstrap.dcs.maximum_lag_on_failover: -5 is not a whole number"
            ],
        ),
        (
            "synchronous_node_count: many",
            expect![[
                r#"f.yml: line 11: bootstrap.dcs.synchronous_node_count: "many" is not a whole number"#
            ]],
        ),
    ] {
        check_error(
            &altered(
                "synchronous_mode: quorum",
                &format!("synchronous_mode: quorum\n    {setting}"),
            ),
            expected,
        );
    }
    check_error(
        &altered("quorum", "quorrum"),
        expect![[
            r#"f.yml: line 10: bootstrap.dcs.synchronous_mode: "quorrum" is none of quorum, on, off"#
        ]],
    );
}

#[test]
fn tls_between_members_is_all_three_files_or_none() {
    let with = |tls: &str| altered("    join:", &format!("    tls: {tls}\n    join:"));
    let whole = "{cert_file: /x/a.crt, key_file: /x/a.key, ca_file: /x/ca.crt}";
    let expected = store::TlsOptions {
        certificate: "/x/a.crt".into(),
        key: "/x/a.key".into(),
        authority: "/x/ca.crt".into(),
        host: Some("127.0.0.1".to_owned()),
        required: true,
    };
    assert_eq!(
        sound(&with(whole)).raft().unwrap().tls.as_ref(),
        Some(&expected)
    );
    assert_eq!(sound(NODE).raft().unwrap().tls, None);
    let lenient = sound(&with(&whole.replace('}', ", required: false}")));
    assert!(
        lenient
            .raft()
            .unwrap()
            .tls
            .as_ref()
            .is_some_and(|tls| !tls.required)
    );
    check_error(
        &with("{cert_file: /x/a.crt, key_file: a.key}"),
        expect![[r#"
            f.yml: line 7: store.raft.tls.key_file: "a.key" is relative, write an absolute path
            f.yml: line 7: store.raft.tls.ca_file: is missing: the certificate in PEM that signed every member's"#]],
    );
    check_error(
        &with(""),
        expect![[r#"
        f.yml: line 7: store.raft.tls.cert_file: is missing: this node's certificate, in PEM
        f.yml: line 7: store.raft.tls.key_file: is missing: the private key of the certificate, in PEM
        f.yml: line 7: store.raft.tls.ca_file: is missing: the certificate in PEM that signed every member's"#]],
    );
    check_warning(
        &with(&whole.replace('}', ", keyfile: /y}")),
        expect!["line 7: store.raft.tls.keyfile: unknown key, did you mean `key_file`?"],
    );
}

#[test]
fn addresses() {
    for (listen, expected) in [
        (
            "127.0.0.1:0",
            expect![[
                r#"f.yml: line 4: restapi.listen: port "0" is not a number between 1 and 65535"#
            ]],
        ),
        (
            "127.0.0.1:70000",
            expect![[
                r#"f.yml: line 4: restapi.listen: port "70000" is not a number between 1 and 65535"#
            ]],
        ),
        (
            "127.0.0.1",
            expect![[r#"f.yml: line 4: restapi.listen: "127.0.0.1" has no port, write HOST:PORT"#]],
        ),
        (
            "::1:8008",
            expect![
                "f.yml: line 4: restapi.listen: an IPv6 address stands in brackets, as in [::1]:5432"
            ],
        ),
        (
            "0.0.0.0:8008",
            expect![
                "f.yml: line 3: restapi.connect_address: is missing: the address under which the others reach this node, as HOST:PORT"
            ],
        ),
        (
            "host=x options='-c a=b':8008",
            expect![[
                r#"f.yml: line 4: restapi.listen: "host=x options='-c a=b'" is not a host name or address"#
            ]],
        ),
    ] {
        check_error(
            &altered(
                "  listen: 127.0.0.1:8008",
                &format!("  listen: \"{listen}\""),
            ),
            expected,
        );
    }
    check_error(
        &altered("listen: 127.0.0.1:5432", "listen: 127.0.0.1:99999"),
        expect![[
            r#"f.yml: line 12: postgresql.listen: port "99999" is not a number between 1 and 65535"#
        ]],
    );
    check_error(
        &altered("listen: 127.0.0.1:5432", "listen: '*:5432'"),
        expect![
            "f.yml: line 11: postgresql.connect_address: is missing: the address under which the others reach this node, as HOST:PORT"
        ],
    );
    check_error(
        &altered("join: [127.0.0.1:6000]", "join: [nowhere]"),
        expect![[r#"f.yml: line 7: store.raft.join: "nowhere" has no port, write HOST:PORT"#]],
    );
    check_error(
        &altered("join: [127.0.0.1:6000]", "members: {a: 'x:1', b: 'y:1'}"),
        expect!["f.yml: line 7: store.raft.members: 2 voters: it must be one, three or five"],
    );
    check_error(
        &altered(
            "join: [127.0.0.1:6000]",
            "members: {a: 'x:1'}\n    join: [127.0.0.1:6000]",
        ),
        expect![
            "f.yml: line 7: store.raft.members: either a fixed list of members or join, not both"
        ],
    );
}

#[test]
fn names_stay_plain() {
    let long = "x".repeat(300);
    for name in [
        "'a\"b'",
        "'a,b'",
        "'*'",
        "\"a\\nb\"",
        "__placeholder",
        "''",
        long.as_str(),
    ] {
        let error = load(altered("name: a", &format!("name: {name}")).as_bytes()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("f.yml: line 2: name: node name "),
            "{error}"
        );
    }
    check_error(
        &altered("scope: demo", "scope: a/b"),
        expect!["f.yml: line 1: scope: must be 1 to 63 of `a-z A-Z 0-9 _ . -`"],
    );
    check_error(
        &altered("name: a", "name: on"),
        expect!["f.yml: line 2: name: true is not a text; quote it if you mean it as one"],
    );
}

#[test]
fn directories() {
    check_error(
        &altered("/srv/a", "srv/a"),
        expect![[
            r#"f.yml: line 13: postgresql.data_dir: "srv/a" is relative, write an absolute path"#
        ]],
    );
    check_error(
        &altered("/srv/a", "/srv/../etc"),
        expect!["f.yml: line 13: postgresql.data_dir: holds `..`, write the path that is meant"],
    );
    check_error(
        &altered("/srv/a", "/"),
        expect![
            "f.yml: line 13: postgresql.data_dir: is the root directory, name one of Postgres's own"
        ],
    );
    check_error(
        &altered("scope: demo", "scope: demo\nstate_dir: /srv/a/state"),
        expect![
            "f.yml: line 2: state_dir: must not lie inside postgresql.data_dir: a full data disk would silence the agent"
        ],
    );
}

#[test]
fn parameters_that_are_ours_or_lose_commits() {
    let with = |line: &str| format!("{NODE}  parameters:\n    {line}\n");
    check_warning(
        &with("synchronous_standby_names: x"),
        expect![
            "line 15: postgresql.parameters.synchronous_standby_names: is set by Standfast, this value is not used"
        ],
    );
    check_warning(
        &with("restart_after_crash: on"),
        expect![
            "line 15: postgresql.parameters.restart_after_crash: is set by Standfast, this value is not used"
        ],
    );
    check_warning(
        &with("hot_standby: off"),
        expect![
            "line 15: postgresql.parameters.hot_standby: is set by Standfast, this value is not used"
        ],
    );
    check_warning(
        &with("synchronous_commit: local"),
        expect![
            "line 15: postgresql.parameters.synchronous_commit: commits acknowledged before a standby has them may be lost in a failover"
        ],
    );
    check_warning(
        &with("Synchronous_Standby_Names: x"),
        expect![
            "line 15: postgresql.parameters.Synchronous_Standby_Names: is set by Standfast, this value is not used"
        ],
    );
    // What a standby does with its archive is the user's.
    check_warning(
        &with("archive_cleanup_command: pg_archivecleanup /archive %r"),
        expect![""],
    );
    check_error(
        &with("Full_Page_Writes: of"),
        expect![
            "f.yml: line 15: postgresql.parameters.Full_Page_Writes: off would lose acknowledged commits after a crash, remove it"
        ],
    );
    check_error(
        &with("fsync: off"),
        expect![
            "f.yml: line 15: postgresql.parameters.fsync: off would lose acknowledged commits after a crash, remove it"
        ],
    );
    check_error(
        &with("wal_level: minimal"),
        expect![
            "f.yml: line 15: postgresql.parameters.wal_level: minimal allows no standby, remove it or say replica or logical"
        ],
    );
    check_error(
        &with("work_mem: [1]"),
        expect!["f.yml: line 15: postgresql.parameters.work_mem: a list is not a single value"],
    );
    check_error(
        &with("work_mem: \"1\\n2\""),
        expect!["f.yml: line 15: postgresql.parameters.work_mem: must not hold line breaks"],
    );
}

#[test]
fn stores_and_witnesses() {
    check_error(
        &format!("{NODE}etcd3: {{hosts: ['a:2379']}}\n"),
        expect!["f.yml: line 14: etcd3: either this or store.raft, not both"],
    );
    check_error(
        &format!("{NODE}consul: {{host: 'a:8500'}}\n"),
        expect![
            "f.yml: line 14: consul: this store is not supported in this version, use etcd3 or store.raft"
        ],
    );
    check_error(
        &format!("{NODE}witness: true\n"),
        expect![
            "f.yml: line 14: witness: a witness has no Postgres: remove the key or the section postgresql"
        ],
    );
    let monitor = "scope: d\nname: m\nwitness: true\nrestapi: {listen: '127.0.0.1:6000'}\nbootstrap: {dcs: {synchronous_mode: quorum}}\n";
    assert!(sound(monitor).is_witness());
    assert_eq!(sound(monitor).raft().unwrap().start, RaftStart::Found);
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

/// The sound file with etcd as its store.
fn on_etcd(section: &str) -> String {
    let raft = "store:\n  raft:\n    join: [127.0.0.1:6000]\n";
    format!("{}{section}\n", altered(raft, ""))
}

fn etcd(section: &str) -> Etcd {
    match sound(&on_etcd(section)).store {
        StoreChoice::Etcd(etcd) => etcd,
        StoreChoice::Raft(raft) => panic!("{raft:?}"),
    }
}

#[test]
fn etcd_as_patroni_names_it() {
    let members = |section: &str| {
        let members = etcd(section).members;
        let members: Vec<_> = members.iter().map(Endpoint::to_string).collect();
        members.join(" ")
    };
    for (section, expected) in [
        (
            "etcd3: {hosts: ['a:2379', 'b:2379', 'a:2379']}",
            "a:2379 b:2379",
        ),
        ("etcd3: {hosts: 'a:2379, b:1,c'}", "a:2379 b:1 c:2379"),
        (
            "etcd3:\n  hosts:\n  - 10.0.0.1\n  - '[::1]'\n  - '[::2]:1'",
            "10.0.0.1:2379 [::1]:2379 [::2]:1",
        ),
        ("etcd3: {host: 'a:2379'}", "a:2379"),
        ("etcd3: {url: 'http://a:2379/'}", "a:2379"),
        ("etcd3: {proxy: 'http://a:80', hosts: 'b:1'}", "a:80"),
        ("store: {etcd: {hosts: 'a:2379'}}", "a:2379"),
    ] {
        assert_eq!(members(section), expected, "{section}");
    }
    assert!(etcd("etcd3: {host: a}").discover);
    assert!(!etcd("etcd3: {hosts: 'a,b', use_proxies: true}").discover);
    assert!(!etcd("etcd3: {proxy: 'http://a:80'}").discover);
    let whole = etcd(
        "etcd3: {hosts: a, protocol: https, cacert: /ca, cert: /c, key: /k, username: u, password: planted-hush}",
    );
    let tls = whole.tls.as_ref().unwrap();
    assert_eq!(tls.authority, Path::new("/ca"));
    assert_eq!(tls.client, Some(("/c".into(), "/k".into())));
    assert!(!format!("{whole:?}").contains("planted"), "{whole:?}");
    assert!(
        etcd("etcd3: {url: 'https://a:1', cacert: /ca}")
            .tls
            .is_some()
    );
    let config = sound(&on_etcd("store: {secret_file: /s}\netcd3: {host: a}"));
    assert_eq!(config.secret_file, Path::new("/s"));
    assert!(config.raft().is_none());
}

#[test]
fn etcd_that_could_not_work() {
    for (section, expected) in [
        (
            "etcd3: {}",
            expect![
                "f.yml: line 11: etcd3.hosts: is missing: the members of etcd, as a list of HOST:PORT"
            ],
        ),
        (
            "etcd3: {hosts: []}",
            expect![
                "f.yml: line 11: etcd3.hosts: is missing: the members of etcd, as a list of HOST:PORT"
            ],
        ),
        (
            "etcd3: {hosts: 'a:b'}",
            expect![[
                r#"f.yml: line 11: etcd3.hosts: port "b" is not a number between 1 and 65535"#
            ]],
        ),
        (
            "etcd3: {hosts: '0.0.0.0:1'}",
            expect![[r#"f.yml: line 11: etcd3.hosts: "0.0.0.0:1" names no machine"#]],
        ),
        (
            "etcd3: {url: 'a:2379'}",
            expect!["f.yml: line 11: etcd3.url: must begin with http:// or https://"],
        ),
        (
            "etcd3: {url: 'http://u:planted@a:2379'}",
            expect![
                "f.yml: line 11: etcd3.url: must not hold a user: there are username and password"
            ],
        ),
        (
            "etcd3: {srv: example.org}",
            expect!["f.yml: line 11: etcd3.srv: is not supported, name the members under hosts"],
        ),
        (
            "etcd3: {host: a, protocol: ftp}",
            expect![[r#"f.yml: line 11: etcd3.protocol: "ftp" is neither http nor https"#]],
        ),
        (
            "etcd3: {host: a, protocol: https}",
            expect![
                "f.yml: line 11: etcd3.cacert: is missing: the certificate in PEM that signed those of etcd; for a public authority, the system's bundle"
            ],
        ),
        (
            "etcd3: {host: a, protocol: https, cacert: ca.pem}",
            expect![[
                r#"f.yml: line 11: etcd3.cacert: "ca.pem" is relative, write an absolute path"#
            ]],
        ),
        (
            "etcd3: {host: a, protocol: https, cacert: /ca, cert: /c}",
            expect!["f.yml: line 11: etcd3.key: is missing: the private key of cert, in PEM"],
        ),
        (
            "etcd3: {host: a, username: u}",
            expect![
                "f.yml: line 11: etcd3.password: is missing: etcd lets nobody in by the name alone"
            ],
        ),
        (
            "etcd3: {host: a}\netcd: {host: a}",
            expect!["f.yml: line 12: etcd: either this or etcd3, not both"],
        ),
    ] {
        check_error(&on_etcd(section), expected);
    }
    check_warning(
        &on_etcd("etcd: {host: a}"),
        expect![
            "line 11: etcd: is served by etcd's v3 interface: its v2 interface, which Patroni uses for this section, is not supported; nodes that Patroni still runs must use etcd3 as well"
        ],
    );
    check_warning(
        &on_etcd("etcd3: {host: a, cacert: /ca, hots: b}"),
        expect![[r#"
            line 11: etcd3.hots: unknown key, did you mean `host`?
            line 11: etcd3.cacert: has no effect without `protocol: https`"#]],
    );
    let monitor =
        "scope: d\nname: m\nwitness: true\nrestapi: {listen: '127.0.0.1:6000'}\netcd3: {host: a}\n";
    check_error(
        monitor,
        expect![
            "f.yml: line 3: witness: a witness votes in store.raft: a cluster that has etcd needs none"
        ],
    );
}

#[test]
fn a_file_of_patroni_needs_no_secret_beside_its_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let text = |passwords: &str| {
        let store = format!(
            "store: {{secret_file: {}}}\netcd3: {{host: a}}",
            secret.display()
        );
        let text = on_etcd(&store);
        text.replace("  data_dir", &format!("{passwords}  data_dir"))
    };
    let both = "  authentication: {superuser: {password: one}, replication: {password: two}}\n";
    let of = |text: &str| ClusterSecret::of(&sound(text)).map(|it| it.password_of("x"));
    let derived = of(&text(both)).unwrap();
    assert_eq!(of(&text(both)).unwrap(), derived);
    assert_ne!(of(&text(&both.replace("two", "three"))).unwrap(), derived);
    let one = "  authentication: {superuser: {password: one}}\n";
    assert!(of(&text(one)).unwrap_err().to_string().contains("secret"));
    // A secret that is there counts, and one that others can read is no absent one.
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    of(&text(both)).unwrap_err();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(of(&text(both)).unwrap(), derived);
}
