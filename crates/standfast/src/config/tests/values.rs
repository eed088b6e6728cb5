//! Values that can not work, or not with each other.

use super::*;

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
            "hang_timeout: 0",
            expect!["f.yml: line 11: bootstrap.dcs.hang_timeout: must be at least 1 second"],
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

/// Who writes by hand writes quotes around a number as well.
#[test]
fn a_quoted_number_is_a_number() {
    let config = sound(&altered(
        "synchronous_mode: quorum",
        "synchronous_mode: quorum\n    ttl: '30'",
    ));
    assert_eq!(config.bootstrap.dcs.settings().unwrap().ttl.as_secs(), 30);
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
    check_error(
        &altered("join: [127.0.0.1:6000]", "members: {n1: 'x:1'}"),
        expect![
            "f.yml: line 7: store.raft.members: a, which is this node's name, is not among them"
        ],
    );
    check_warning(
        &altered("join: [127.0.0.1:6000]", "members: {a: 'x:1'}"),
        expect![
            "line 7: store.raft.members.a: the others look for this node there, and it says itself that it is at 127.0.0.1:8008"
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

/// Patroni: Configuration | `log`: `dir`, `file_num`, `file_size`, `mode`, `max_queue_size`; `format`,
///   `dateformat`; `loggers` | work; a form may name `asctime`, `levelname`, `message`, `name`, `process`,
///   `filename`, `lineno`; loggers are our parts, not Python's modules
/// Patroni: Configuration | `log`: `traceback_level`, `static_fields`, `deduplicate_heartbeat_logs` | no effect
#[test]
fn where_the_log_goes_and_how_it_looks() {
    let log = "log:
  type: plain
  dir: /var/log/shop
  mode: 0640
  file_size: 1000
  format: '%(levelname)s %(message)s'
  dateformat: '%Y'
  loggers: {store: debug, urllib3: WARNING}
  traceback_level: ERROR
";
    let text = format!("{NODE}{log}");
    check_warning(
        &text,
        expect![[r#"
        line 21: log.loggers.urllib3: has no effect: nothing here is called that; there are agent, api, guard, ha, hyper, openraft, postgres, reqwest, standfast, store, tokio_postgres
        line 22: log.traceback_level: has no effect in this version"#]],
    );
    let (config, _) = load(text.as_bytes()).unwrap();
    let to = config.log.to.clone().unwrap();
    assert_eq!((to.size_bytes, to.kept, to.mode), (1000, 4, Some(0o640)));
    assert_eq!(to.dir.display().to_string(), "/var/log/shop");
    assert_eq!(config.log.levels["store"], LogLevel::Debug);
    assert_eq!(config.log.form.date.as_deref(), Some("%Y"));
    assert!(config.log.form.pattern.is_some());
    let quoted = text.replace("0640", "'0640'");
    let (quoted, _) = load(quoted.as_bytes()).unwrap();
    assert_eq!(quoted.log.to, Some(to));

    let log = "log: {type: json, file_num: 3, format: x, level: warning}\n";
    check_warning(
        &format!("{NODE}{log}"),
        expect![[r#"
        line 14: log.format: has no effect: it is for `type: plain`
        line 14: log.file_num: has no effect without log.dir"#]],
    );
    let log = "log: {type: plain, dateformat: '%!', format: '%(levelname)s'}\n";
    check_warning(
        &format!("{NODE}{log}"),
        expect![[r#"
        line 14: log.format: is not used: a line without %(message)s says nothing
        line 14: log.dateformat: is not used: strftime formatting failed: found unrecognized specifier directive `!`"#]],
    );
    let log = "log: {dir: log, mode: 999, loggers: {store: loud}}\n";
    check_error(
        &format!("{NODE}{log}"),
        expect![[r#"
        f.yml: line 14: log.mode: must be an octal mode such as 0644
        f.yml: line 14: log.dir: "log" is relative, write an absolute path
        f.yml: line 14: log.loggers.store: "loud" is none of error, warn, info, debug, trace"#]],
    );
}

#[test]
fn a_watchdog_is_there_only_where_it_is_asked_for() {
    let read = |section: &str| {
        let (config, _) = load(format!("{NODE}{section}").as_bytes()).unwrap();
        config.watchdog
    };
    assert_eq!(read(""), None);
    assert_eq!(read("watchdog: {mode: off}\n"), None);
    let plain = read("watchdog: {}\n").unwrap();
    let margin = Some(Duration::from_secs(5));
    assert_eq!((plain.required, plain.margin), (false, margin));
    assert_eq!(plain.device, Path::new("/dev/watchdog"));
    let strict = "watchdog: {mode: required, device: /dev/watchdog1, safety_margin: -1}\n";
    let strict = read(strict).unwrap();
    assert_eq!((strict.required, strict.margin), (true, None));
    check_error(
        &format!("{NODE}watchdog: {{mode: sometimes, safety_margin: soon, driver: x}}\n"),
        expect![[r#"
            f.yml: line 14: watchdog.safety_margin: is neither a whole number of seconds nor -1, which is half of ttl
            f.yml: line 14: watchdog.driver: is neither default nor testing
            f.yml: line 14: watchdog.mode: is none of off, automatic, required"#]],
    );
}

#[test]
fn logins_connect_as_they_are_told_to() {
    let (config, warnings) = load(
        format!(
            "{NODE}  authentication:\n    superuser: {{sslmode: require, gssencmode: disable}}\n    replication: {{sslmode: \
             verify-full, sslcert: /c.crt, sslkey: /c.key, sslpassword: planted}}\n    rewind: {{sslmode: allow}}\n"
        )
        .as_bytes(),
    )
    .unwrap();
    let postgresql = config.postgresql.unwrap();
    let replication = &postgresql.replication.libpq;
    assert_eq!(replication.0["sslmode"], "verify-full");
    assert_eq!(replication.0["sslpassword"], "planted");
    assert_eq!(postgresql.rewind.libpq.0["sslmode"], "allow");
    assert!(!format!("{postgresql:?} {warnings:?}").contains("planted"));
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let told = told.join("\n");
    assert!(told.contains("gssencmode: has no effect"), "{told}");
    assert!(!told.contains("replication"), "{told}");
}
