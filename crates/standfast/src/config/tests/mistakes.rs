//! Files as people have them, copied from somewhere and half understood: they start, and every misunderstanding is said.

use super::*;
use postgres::Recovery;

/// Everything at once: no name, etcd's old section with an empty user, a login in the wrong place, a primary that is
/// configured, one line of pg_hba that lets no standby in, a recovery target among the parameters of the cluster.
const COPIED: &str = "\
scope: shop
namespace: /service/

restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.1.0.10:8008

etcd:
  hosts:
    - etcd-1:2379
    - etcd-2:2379
  protocol: http
  username:   # none
  password:

postgresql:
  listen: 0.0.0.0:5432
  connect_address: 10.1.0.10:5432
  data_dir: /var/lib/postgresql/14/main
  pg_hba:
    - host all all 0.0.0.0/0 md5
  parameters:
    max_connections: 100
    wal_level: replica
    hot_standby: \"on\"
    max_wal_senders: 10
  replication:
    type: pgstandard
    master:
      host: 10.1.0.10
      port: 5432
      user: replicator
      password: planted-password

bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        recovery_target_timeline: 'latest'
";

/// Patroni: Configuration | mistakes in the file | differently: each is answered with its line and the cure
#[test]
fn a_copied_file_is_understood_and_told_line_by_line() {
    let (config, warnings) = load(COPIED.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    let said = warnings
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    expect![[r#"
        line 1: name: is missing: this node is called after its host, "HOST"
        line 8: etcd: is served by etcd's v3 interface: its v2 interface, which Patroni uses for this section, is not supported; nodes that Patroni still runs must use etcd3 as well
        line 25: postgresql.parameters.hot_standby: is set by Standfast, this value is not used
        line 27: postgresql.replication: unknown key, nothing in it counts: the login that standbys replicate with is `postgresql.authentication.replication`
        line 28: postgresql.replication.type: unknown key, there is nothing to choose: standbys stream. Remove it
        line 29: postgresql.replication.master: unknown key: who is the primary is agreed in the store, never configured. Remove it, and write user and password as username and password of `postgresql.authentication.replication`
        line 36: bootstrap.dcs.synchronous_mode: not set, so commits are asynchronous, as Patroni has it; `quorum` protects them
        line 39: bootstrap.dcs.retry_timeout: has no effect: how long a leader may be without the store is its ttl, to the end
        line 45: bootstrap.dcs.postgresql.parameters.recovery_target_timeline: is set by Standfast, this value is not used"#]]
    .assert_eq(&said.replace(host, "HOST"));
    assert!(!said.contains("planted"), "{said}");
    assert_eq!(config.name.as_str(), host);
    let StoreChoice::Etcd(etcd) = &config.store else {
        panic!("{:?}", config.store)
    };
    assert_eq!((etcd.members.len(), &etcd.login), (2, &None));
    let pg = config.postgresql.unwrap();
    assert_eq!(pg.pg_hba, ["host all all 0.0.0.0/0 md5"]);
    assert_eq!(pg.parameters["max_connections"], "100");
}

/// Patroni: Configuration | `use_pg_rewind`, `use_slots`, `remove_data_directory_on_…` | always on: rewound, else
///   cloned, what only that node had is kept aside
#[test]
fn what_lost_its_indentation_is_told_where_it_belongs() {
    let text = "\
scope: shop
name: a
ttl: 30
restapi: {listen: '127.0.0.1:8008'}
etcd3: {host: a}
parameters: {work_mem: 8MB}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /srv/a
  use_slots: false
bootstrap:
  loop_wait: 10
  postgresql:
    use_pg_rewind: true
  dcs:
    synchronous_mode: quorum
    parameters: {work_mem: 8MB}
";
    check_warning(
        text,
        expect![[r#"
            line 3: ttl: unknown key here: it belongs under `bootstrap.dcs`; once the cluster exists it is changed with standfast edit-config or `PATCH /config`: ttl
            line 6: parameters: unknown key here: it belongs under `postgresql`, indent it
            line 10: postgresql.use_slots: has no effect: standbys always stream by slots
            line 12: bootstrap.loop_wait: unknown key here: it belongs under `bootstrap.dcs`; once the cluster exists it is changed with standfast edit-config or `PATCH /config`: loop_wait
            line 13: bootstrap.postgresql: unknown key here: what all nodes share belongs under `bootstrap.dcs.postgresql`, indent it below `dcs`
            line 17: bootstrap.dcs.parameters: unknown key here: it belongs under `bootstrap.dcs.postgresql.parameters`"#]],
    );
}

/// The slip is said beside what it makes missing.
#[test]
fn a_misspelt_section_is_named_beside_what_is_missing_for_it() {
    check_error(
        &altered("restapi:", "restapii:"),
        expect![[r#"
        f.yml: line 1: restapi.listen: is missing: HOST:PORT of the REST API, such as 127.0.0.1:8008
        f.yml: line 3: restapii: unknown key, did you mean `restapi`?"#]],
    );
}

/// Patroni: Configuration | `bootstrap.users` | no effect, as in Patroni since 4.0: a warning names
///   `bootstrap.post_bootstrap`, a program that makes them
/// Patroni: Configuration | `bootstrap.pg_hba` | no effect: a warning names `postgresql.pg_hba`, for one node, and
///   `bootstrap.dcs.postgresql.pg_hba`, for all
#[test]
fn users_and_lines_of_pg_hba_at_bootstrap_have_a_cure() {
    let text = altered(
        "    synchronous_mode: quorum",
        "    synchronous_mode: quorum\n  users: {ann: {password: x}}\n  pg_hba: [host all all all md5]",
    );
    check_warning(
        &text,
        expect![[r#"
        line 11: bootstrap.users: has no effect: make roles with a program, `bootstrap.post_bootstrap`
        line 12: bootstrap.pg_hba: has no effect: lines for one node belong under `postgresql.pg_hba`, those for all nodes under `bootstrap.dcs.postgresql.pg_hba`"#]],
    );
}

/// With one such line PostgreSQL takes none of the file.
#[test]
fn a_line_that_postgres_does_not_take_is_refused_with_its_place() {
    let node = |lines: &str| format!("{NODE}  pg_hba:\n{lines}");
    check_error(
        &node("    - local all all peer\n    - host all all 127.0.0.0/99 trust\n"),
        expect![[
            r#"f.yml: line 16: postgresql.pg_hba: "host all all 127.0.0.0/99 trust" is no line that PostgreSQL takes, and with it none counts, mend or remove it: "127.0.0.0/99" is no address with the length of its mask"#
        ]],
    );
    check_error(
        &format!("{NODE}  pg_ident:\n    - staff ann\n"),
        expect![[
            r#"f.yml: line 15: postgresql.pg_ident: "staff ann" is no line that PostgreSQL takes, and with it none counts, mend or remove it: it takes a map, a system user and a database user"#
        ]],
    );
    // Whoever runs PostgreSQL 18 may say so.
    load(node("    - include more.conf\n    - host all all all oauth scope=a\n").as_bytes())
        .unwrap();
}

#[test]
fn what_the_cluster_is_told_of_postgres_has_a_form() {
    let with = |line: &str| {
        altered(
            "    synchronous_mode: quorum",
            &format!("    synchronous_mode: quorum\n    postgresql:\n      {line}"),
        )
    };
    check_error(
        &with("parameters: {work_mem: [1]}"),
        expect![
            "f.yml: line 12: bootstrap.dcs.postgresql.parameters.work_mem: a list is not a single value"
        ],
    );
    check_error(
        &with("pg_hba: {a: b}"),
        expect![
            "f.yml: line 12: bootstrap.dcs.postgresql.pg_hba: a mapping is not a list of texts"
        ],
    );
    check_error(
        &with("parameters: {'work mem': 1}"),
        expect![
            "f.yml: line 11: bootstrap.dcs.postgresql: parameters.work mem: is no name of a parameter"
        ],
    );
    check_error(
        &with("parameters: {fsync: off}"),
        expect![
            "f.yml: line 12: bootstrap.dcs.postgresql.parameters.fsync: off would lose acknowledged commits after a crash, remove it"
        ],
    );
    check_warning(
        &with("pg_hba: [host all all all mdd5]"),
        expect![[
            r#"line 12: bootstrap.dcs.postgresql.pg_hba: "host all all all mdd5" is no line that PostgreSQL takes, so none of them counts: "mdd5" is no method"#
        ]],
    );
    check_warning(
        &with("parameter: {work_mem: 1}"),
        expect![
            "line 12: bootstrap.dcs.postgresql.parameter: unknown key, did you mean `parameters`?"
        ],
    );
}

/// Patroni: Configuration | `log` plain and json, `level` | works
#[test]
fn a_file_that_was_patronis_has_patronis_log() {
    let log = |name: &str, text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("{NODE}{text}")).unwrap();
        let (config, _) = Config::load_with(&file, &homes(), &Environment::new()).unwrap();
        (config.log.format, config.log.phrases)
    };
    assert_eq!(log("node.yml", ""), (LogFormat::Own, false));
    assert_eq!(
        log("node.yml", "log: {type: plain}\n"),
        (LogFormat::Patroni, true)
    );
    assert_eq!(
        log("node.yml", "log: {type: json}\n"),
        (LogFormat::Json, false)
    );
    assert_eq!(log("patroni.yml", ""), (LogFormat::Patroni, true));
    assert_eq!(log("patroni/config.yml", ""), (LogFormat::Patroni, true));
    assert_eq!(
        log("patroni.yml", "log: {type: json}\n"),
        (LogFormat::Json, true)
    );
    assert_eq!(
        log("patroni.yml", "log: {type: standfast}\n"),
        (LogFormat::Own, false)
    );
    // As `create` names it for a data directory of such a name.
    assert_eq!(
        log("patroni/data/standfast.yml", ""),
        (LogFormat::Own, false)
    );
}

/// Patroni: Configuration | `proxy_address` | works: `proxy_url` of the member's record
#[test]
fn programs_are_commands_with_arguments_and_a_pooler_has_an_address() {
    let with = |line: &str| format!("{NODE}  callbacks:\n    {line}\n");
    let config = sound(&with("on_role_change: /bin/sh -c 'move ip' x"));
    let callbacks = config.postgresql.unwrap().callbacks;
    assert_eq!(
        callbacks["on_role_change"],
        ["/bin/sh", "-c", "move ip", "x"]
    );
    let pooler = sound(&format!("{NODE}  proxy_address: '10.0.0.1:6432'\n"));
    let url = pooler.postgresql.unwrap().proxy_url();
    assert_eq!(url.as_deref(), Some("postgres://10.0.0.1:6432/postgres"));
    let hooks = format!("{NODE}  pre_promote: /bin/fence --all\n  before_stop: /bin/x\n");
    let hooks = sound(&hooks).postgresql.unwrap().hooks;
    assert_eq!(hooks.pre_promote, ["/bin/fence", "--all"]);
    assert_eq!(hooks.before_stop, ["/bin/x"]);
    check_error(
        &with("on_start: \"'open\""),
        expect!["f.yml: line 15: postgresql.callbacks.on_start: a quote is not closed"],
    );
    check_warning(
        &with("on_restart: /bin/x"),
        expect![
            "line 15: postgresql.callbacks.on_restart: has no effect: a restart is told as on_stop and on_start"
        ],
    );
    check_warning(
        &with("on_role_chnage: /bin/x"),
        expect![
            "line 15: postgresql.callbacks.on_role_chnage: unknown key, did you mean `on_role_change`?"
        ],
    );
}

fn imported(text: &str) -> (String, Config, Vec<Problem>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patroni.yml");
    std::fs::write(&file, text).unwrap();
    let written = import(&file, &homes()).unwrap_or_else(|error| panic!("{error}"));
    let (config, warnings) =
        load(written.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{written}"));
    let shown = written.replace(&dir.path().display().to_string(), "");
    (shown, config, warnings)
}

#[test]
fn an_imported_file_says_what_counts_and_what_was_left_out() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let (text, config, warnings) = imported(COPIED);
    expect![[r#"
        # Made by standfast config import from /patroni.yml.
        # Variables of the environment (PATRONI_…) are not in it: they go on counting over it.
        # - etcd is now etcd3: the same members, by their v3 interface
        # - user and password of postgresql.replication are now postgresql.authentication.replication: they must be the same on every node
        # - left out: line 25: postgresql.parameters.hot_standby: is set by Standfast, this value is not used
        # - left out: line 27: postgresql.replication: unknown key, nothing in it counts: the login that standbys replicate with is `postgresql.authentication.replication`
        # - left out: line 39: bootstrap.dcs.retry_timeout: has no effect: how long a leader may be without the store is its ttl, to the end
        # - left out: line 45: bootstrap.dcs.postgresql.parameters.recovery_target_timeline: is set by Standfast, this value is not used
        # - name was missing: it is the host's
        # - synchronous_mode was missing, so commits are asynchronous, and a failover may lose the last of them; quorum protects them

        # The cluster, and this node of it. The name must be unlike any other's.
        scope: shop
        namespace: /service/
        name: HOST

        # Health checks, patronictl and metrics, on Patroni's paths.
        restapi:
          connect_address: 10.1.0.10:8008
          listen: 0.0.0.0:8008

        # Where the cluster agrees: etcd, by its v3 interface. Keys and values are Patroni's.
        etcd3:
          hosts:
          - etcd-1:2379
          - etcd-2:2379
          protocol: http

        # Counts once, when the cluster is founded. Later dcs is changed with `patronictl edit-config` or PATCH /config,
        # for all nodes at once.
        bootstrap:
          dcs:
            loop_wait: 10
            maximum_lag_on_failover: 1048576
            postgresql:
              use_pg_rewind: true
              use_slots: true
            synchronous_mode: false
            ttl: 30

        # The instance. What is said here wins over bootstrap.dcs.postgresql; what Standfast sets itself wins over both.
        # The members of the cluster are always let in to replicate, whatever pg_hba says.
        postgresql:
          authentication:
            replication:
              password: planted-password
              username: replicator
          connect_address: 10.1.0.10:5432
          data_dir: /var/lib/postgresql/14/main
          listen: 0.0.0.0:5432
          parameters:
            max_connections: 100
            max_wal_senders: 10
            wal_level: replica
          pg_hba:
          - host all all 0.0.0.0/0 md5

        # plain is Patroni's form, standfast ours; json for programs.
        log:
          type: plain
    "#]].assert_eq(&text.replace(host.trim(), "HOST"));
    assert!(warnings.is_empty(), "{warnings:?}");
    let pg = config.postgresql.unwrap();
    assert_eq!(pg.replication.username, "replicator");
    assert_eq!(config.log.format, LogFormat::Patroni);
}

#[test]
fn an_imported_file_means_what_the_original_means() {
    let text = format!(
        "{NODE}  parameters: {{work_mem: 8MB, my.setting: a b, port: 1}}\n  pg_hba: ['local all all peer']\n  authentication:\n    superuser: {{password: 'it: \"is''s\"'}}\n    replication: {{password: x}}\ntags: {{nofailover: true, zone: a}}\ncolour: blue\n"
    );
    let (_, new, warnings) = imported(&text);
    assert!(warnings.is_empty(), "{warnings:?}");
    let (old, _) = load(text.as_bytes()).unwrap();
    let plain = |config: &Config| {
        let mut pg = config.postgresql.clone().unwrap();
        pg.parameters.remove("port");
        (
            config.scope.clone(),
            config.name.clone(),
            config.restapi.clone(),
            config.store.clone(),
            config.bootstrap.clone(),
            config.tags.clone(),
            pg,
        )
    };
    assert_eq!(plain(&new), plain(&old));
}

/// Patroni: Configuration | `basebackup` options | work
/// Patroni: Configuration | `pg_ctl_timeout` | works for stops and the checkpoint before; how long a start may take is
///   `primary_start_timeout`
/// Patroni: Configuration | `ignore_slots` | differently: none is dropped that Standfast has not made, whatever it is called, so there is nothing to name
#[test]
fn what_is_patronis_and_has_no_effect_here_is_said_with_its_line() {
    let text = altered(
        "    synchronous_mode: quorum\n",
        "    synchronous_mode: quorum\n  method: walg\n  walg: {command: /bin/x}\n  post_bootstrap: /bin/sh -c 'a b'\n",
    ) + "  create_replica_methods: [pgbackrest, basebackup]\n  basebackup: [max-rate: 100M]\n  pgpass: /tmp/pgpass\n  pg_ctl_timeout: 90\n"
        + "tags:\n  failover_priority: 300\n  nostream: true\n  clonefrom: true\n  replicatefrom: b\n  sync_priority: 0\n";
    check_warning(
        &text,
        expect![[r#"
            line 17: postgresql.create_replica_methods: "pgbackrest" is left out: it needs a section of its own, postgresql.pgbackrest, with its `command`
            line 22: tags.failover_priority: counts as 100, the highest that there is"#]],
    );
    let (config, _) = load(text.as_bytes()).unwrap();
    let restore = config.bootstrap.restore.unwrap();
    assert_eq!(
        (restore.name.as_str(), restore.recovery),
        ("walg", Recovery::None)
    );
    assert_eq!(config.bootstrap.post_bootstrap, ["/bin/sh", "-c", "a b"]);
    let postgresql = config.postgresql.unwrap();
    assert_eq!(postgresql.basebackup, ["--max-rate=100M"]);
    assert_eq!(postgresql.stops_within, Duration::from_secs(90));
    assert_eq!(postgresql.pgpass, Some("/tmp/pgpass".into()));
    assert_eq!((config.tags.priority(), config.tags.quorum()), (100, false));
}

/// Patroni: Configuration | `use_unix_socket`, `use_unix_socket_repl` | no effect: the agent always comes by a Unix
///   socket of its own
/// Patroni: Configuration | `bin_name` | not there: what is left of a dead server is told from other programs by the
///   name `postgres`
/// Patroni: Configuration | `recovery_conf` | works for `restore_command`, `archive_cleanup_command` and the like;
///   targets, the upstream and who is a standby are Standfast's
#[test]
fn what_can_be_done_one_way_only_is_said() {
    let text = altered(
        "  data_dir: /srv/a\n",
        "  data_dir: /srv/a\n  use_unix_socket: true\n  use_unix_socket_repl: true\n  bin_name: {postgres: my_postgres}\n  recovery_conf: {restore_command: cp /archive/%f %p, standby_mode: on, recovery_target_timeline: '7'}\n",
    );
    check_warning(
        &text,
        expect![[r#"
        line 14: postgresql.use_unix_socket: has no effect: the agent always comes by a Unix socket of its own
        line 15: postgresql.use_unix_socket_repl: has no effect: the agent always comes by a Unix socket of its own
        line 16: postgresql.bin_name: has no effect: a process is PostgreSQL's only if its program is called postgres; name a bin_dir in which the programs have their usual names
        line 17: postgresql.recovery_conf.standby_mode: has no effect: who is a standby is agreed in the store
        line 17: postgresql.recovery_conf.recovery_target_timeline: is set by Standfast, this value is not used"#]],
    );
    let (config, _) = load(text.as_bytes()).unwrap();
    let parameters = config.postgresql.unwrap().parameters;
    assert_eq!(parameters["restore_command"], "cp /archive/%f %p");
    assert!(!parameters.contains_key("standby_mode"));
}

#[test]
fn settings_of_patronis_that_nothing_here_needs_are_said_with_the_reason() {
    let text = altered(
        "    synchronous_mode: quorum\n",
        "    synchronous_mode: quorum\n    maximum_lag_on_syncnode: 1000\n    primary_stop_timeout: 5\n",
    );
    check_warning(
        &text,
        expect![
            "line 12: bootstrap.dcs.primary_stop_timeout: has no effect: a primary that is to hand over is not killed for being slow, and one whose lease ends is killed by its guard at that moment"
        ],
    );
}
