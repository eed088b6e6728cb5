//! One instance: made, started, asked, opened and closed, restarted as a standby and promoted.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper fails as its test does; figures are for whoever reads the output"
)]

mod support;

use postgres::{Access, DataDir, Instance, Liveness, PostgresError, Shared, Started, Stop};
use std::time::Duration;
use support::{LONG, Node, PASSWORD, run, wait};

#[test]
fn an_instance_is_made_and_lives() {
    run("an_instance_is_made_and_lives", async {
        let node = Node::new("n-1");
        let instance = &node.instance;
        assert_eq!(instance.data_dir().unwrap(), DataDir::Absent);
        assert_eq!(instance.liveness(), Liveness::Down);
        let system_id = instance.init().await.unwrap();
        let DataDir::Ready(control) = instance.data_dir().unwrap() else {
            panic!("not ready")
        };
        assert!(control.checksums && control.system_id == system_id);
        assert_eq!(instance.may_found(&control), Ok(()));
        assert!(matches!(
            instance.init().await,
            Err(PostgresError::Unusable { .. })
        ));

        let began = std::time::Instant::now();
        assert_eq!(
            instance.start_primary(LONG).await.unwrap(),
            Started::Accepting
        );
        println!("start: {:?}", began.elapsed());
        assert!(matches!(
            instance.liveness(),
            Liveness::Up { guarded: true, .. }
        ));
        // From now on it is a cluster's, and no other is made of it by itself.
        let why = instance.may_found(&control).unwrap_err();
        let word = instance.options().data_dir.join("standfast.found");
        assert!(why.contains(&word.display().to_string()), "{why}");
        std::fs::write(&word, "").unwrap();
        assert_eq!(instance.may_found(&control), Ok(()));
        std::fs::remove_file(&word).unwrap();
        let probe = node.probe().await;
        assert!(!probe.in_recovery && probe.timeline.0 == 1 && probe.flushed.0 > 0);
        assert!(probe.standbys.is_empty() && probe.receiver.is_none());
        assert_eq!(probe.sync_names, "");
        assert!(!probe.read_only && probe.overridden.is_empty());
        let began = std::time::Instant::now();
        for _ in 0..20 {
            node.probe().await;
        }
        println!("probe: {:?}", began.elapsed() / 20);
        assert_eq!(probe.version / 10_000, instance.binaries().major);

        // Twice: nothing to do is no error, and changes no verifier.
        instance.ensure_roles(LONG).await.unwrap();
        let stored = "SELECT rolpassword FROM pg_authid WHERE rolname = 'replicator'";
        let first = node.sql(stored).await;
        instance.ensure_roles(LONG).await.unwrap();
        assert_eq!(first, node.sql(stored).await);
        assert!(node.try_client("rewind user", Some(PASSWORD)).await.is_ok());
        assert!(node.try_client("rewind user", Some("wrong")).await.is_err());

        instance.probe_write(LONG).await.unwrap();
        instance.probe_wal(LONG).await.unwrap();
        tokio::time::timeout(LONG, instance.knock())
            .await
            .unwrap()
            .unwrap();

        // An agent that comes later finds the guard, and does not start a second server.
        let later = Instance::open(node.options.clone()).unwrap();
        assert_eq!(later.liveness(), instance.liveness());
        assert!(!later.probe(LONG).await.unwrap().in_recovery);
        let again = later.start_standby(None, LONG).await;
        assert!(
            matches!(again, Err(PostgresError::Running { .. })),
            "{again:?}"
        );

        node.stop(Stop::Fast).await;
        assert_eq!(instance.liveness(), Liveness::Down);
        let again = instance.start_primary(LONG).await;
        assert!(matches!(again, Err(PostgresError::Refused(_))), "{again:?}");
        secrets_stay_secret(&node);
    });
}

/// The password is in no file but the pass files, in no process title and in no debug output.
fn secrets_stay_secret(node: &Node) {
    assert!(!format!("{:?} {:?}", node.instance, node.options).contains("4711"));
    assert!(!node.log().contains("4711"));
    for entry in std::fs::read_dir(&node.options.state_dir)
        .unwrap()
        .flatten()
    {
        let text = std::fs::read(entry.path()).unwrap_or_default();
        let holds = String::from_utf8_lossy(&text).contains("4711");
        assert!(
            !holds || entry.path().extension().is_some_and(|e| e == "passfile"),
            "{entry:?}"
        );
    }
}

#[test]
fn it_restarts_as_a_standby_and_is_promoted() {
    run("it_restarts_as_a_standby_and_is_promoted", async {
        let node = Node::primary("n1").await;
        node.insert(1).await;
        assert!(node.options.data_dir.join("standby.signal").exists());
        node.stop(Stop::Immediate).await;
        let started = node.instance.start_standby(None, LONG).await.unwrap();
        assert_eq!(started, Started::Accepting);
        let probe = node.probe().await;
        assert!(probe.in_recovery && !probe.has_upstream && probe.timeline.0 == 1);
        let end = node.instance.end_of_wal(LONG).await.unwrap();
        assert_eq!(end.timeline.0, 1);
        let took = node.instance.promote(LONG).await.unwrap();
        println!("promote: {took:?}");
        let probe = node.probe().await;
        assert!(!probe.in_recovery && probe.timeline.0 == 2, "{probe:?}");
        assert!(node.options.data_dir.join("standby.signal").exists());
        assert_eq!(node.count().await, 1);
        let history = node
            .instance
            .timeline_history(probe.timeline)
            .unwrap()
            .unwrap();
        assert!(history.switches[0].end >= end.lsn, "{history:?} {end:?}");

        // The postmaster's death is told at once, and nothing of it is left.
        let died = {
            let instance = node.instance.clone();
            tokio::spawn(async move { instance.postmaster_died().await })
        };
        node.stop(Stop::Fast).await;
        tokio::time::timeout(LONG, died).await.unwrap().unwrap();
    });
}

#[test]
fn closed_lets_nobody_in() {
    run("closed_lets_nobody_in", async {
        let node = Node::primary("n1").await;
        let open = node.client().await;
        node.instance.access(Access::Closed).await.unwrap();
        wait("closed", async || node.try_client("app", None).await.err()).await;
        // Sessions stay; our own logins come in.
        open.simple_query("SELECT 1").await.unwrap();
        node.sql("SELECT 1").await;
        assert!(node.try_client("rewind user", Some(PASSWORD)).await.is_ok());
        assert!(node.try_client("postgres", Some(PASSWORD)).await.is_err());
        node.instance.disconnect_clients(LONG).await.unwrap();
        wait("ended", async || open.is_closed().then_some(())).await;
        node.instance.access(Access::Open).await.unwrap();
        wait("open", async || node.try_client("app", None).await.ok()).await;
        // A start begins closed.
        node.stop(Stop::Fast).await;
        node.instance.start_standby(None, LONG).await.unwrap();
        assert!(node.try_client("app", None).await.is_err());
    });
}

#[test]
fn alter_system_does_not_override_ours() {
    run("alter_system_does_not_override_ours", async {
        let node = Node::primary("n1").await;
        for sql in [
            "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
            "ALTER SYSTEM SET restart_after_crash = on",
            "ALTER SYSTEM SET listen_addresses = '*'",
            "ALTER SYSTEM SET work_mem = '7MB'",
        ] {
            node.sql(sql).await;
        }
        node.sql("SELECT pg_reload_conf()").await;
        let seen = wait("overridden", async || {
            let probe = node.probe().await;
            (probe.sync_names == "nobody").then_some(probe)
        })
        .await;
        assert_eq!(seen.overridden, ["synchronous_standby_names"]);
        node.instance.repair_overrides().await.unwrap();
        wait("repaired", async || {
            let probe = node.probe().await;
            (probe.sync_names.is_empty() && probe.overridden.is_empty()).then_some(())
        })
        .await;
        assert_eq!(node.sql("SHOW restart_after_crash").await, ["off"]);

        node.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            .await;
        node.stop(Stop::Immediate).await;
        node.instance.start_standby(None, LONG).await.unwrap();
        node.instance.end_of_wal(LONG).await.unwrap();
        node.instance.promote(LONG).await.unwrap();
        assert_eq!(node.sql("SHOW synchronous_standby_names").await, [""]);
        assert_eq!(node.sql("SHOW restart_after_crash").await, ["off"]);
        assert_eq!(node.sql("SHOW listen_addresses").await, ["127.0.0.1"]);
        assert_eq!(node.sql("SHOW work_mem").await, ["7MB"]);
    });
}

#[test]
fn parameters_change_by_reload() {
    run("parameters_change_by_reload", async {
        let node = Node::primary("n1").await;
        let mut parameters = node.options.parameters.clone();
        parameters.insert("work_mem".to_owned(), "9MB".to_owned());
        parameters.insert("shared_buffers".to_owned(), "17MB".to_owned());
        parameters.insert("restart_after_crash".to_owned(), "on".to_owned());
        parameters.insert("search_path".to_owned(), r#""it's", public"#.to_owned());
        node.instance
            .configure(parameters, node.options.pg_hba.clone(), Vec::new())
            .await
            .unwrap();
        wait("reloaded", async || {
            (node.sql("SHOW work_mem").await == ["9MB"]).then_some(())
        })
        .await;
        assert_eq!(node.sql("SHOW search_path").await, [r#""it's", public"#]);
        assert_eq!(node.sql("SHOW restart_after_crash").await, ["off"]);
        wait("pending restart", async || {
            let probe = node.probe().await;
            let pending = probe.pending_restart.iter();
            let pending: Vec<&str> = pending.map(|it| it.name.as_str()).collect();
            (pending == ["shared_buffers"]).then_some(())
        })
        .await;
        tokio::time::timeout(Duration::from_secs(5), node.instance.checkpoint(LONG))
            .await
            .unwrap()
            .unwrap();
    });
}

#[test]
fn a_line_that_postgres_does_not_take_is_found() {
    run("a_line_that_postgres_does_not_take_is_found", async {
        let node = Node::primary("n1").await;
        node.instance.access(Access::Open).await.unwrap();
        let reload = async |line: &str| {
            let parameters = node.options.parameters.clone();
            let mut lines = node.options.pg_hba.clone();
            lines.push(line.to_owned());
            let configured = node.instance.configure(parameters, lines, Vec::new());
            configured.await.unwrap();
            let found = node.instance.hba_trouble().await;
            assert_eq!(node.instance.hba_refused(), found);
            found
        };
        // There are no such connections here, and the file is taken all the same.
        assert_eq!(reload("hostssl all all all md5").await, None);
        assert_eq!(reload("host all all \"all\" \"md5").await, None);
        let bad = "host all all all md5 no_such=1";
        let (line, why) = reload(bad).await.unwrap();
        assert_eq!(line, bad);
        assert!(why.contains("no_such"), "{why}");
        // What is mended is forgotten.
        assert_eq!(reload("host all all all md5").await, None);
    });
}

fn shared(parameters: &[(&str, &str)], pg_hba: &[&str]) -> Shared {
    let parameters = parameters.iter();
    Shared {
        parameters: parameters
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        pg_hba: pg_hba.iter().map(|line| (*line).to_owned()).collect(),
        pg_ident: vec!["somebody a b".to_owned()],
    }
}

/// Patroni: Configuration | `/config`: `postgresql.parameters`, `pg_hba`, `pg_ident` | works; a node's own file
///   wins, also for what Patroni takes from `/config` only; what PostgreSQL refuses is left out
/// Patroni: Configuration | `custom_conf` | works
#[test]
fn what_the_cluster_says_is_under_the_nodes_own_and_breaks_nothing() {
    run(
        "what_the_cluster_says_is_under_the_nodes_own_and_breaks_nothing",
        async {
            let dir = tempfile::tempdir_in("/tmp").unwrap();
            let mut options = Node::options("n1", &dir);
            options.pg_hba = Vec::new();
            options.parameters.remove("max_connections");
            let custom = dir.path().join("custom.conf");
            std::fs::write(&custom, "deadlock_timeout = 3s\nwork_mem = 6MB\n").unwrap();
            options.base_config = Some(custom);
            for (name, value) in [("Work_Mem", "7MB"), ("wrong_name", "1")] {
                options.parameters.insert(name.to_owned(), value.to_owned());
            }
            let node = Node::with_options(options, dir);
            let hba = "host all all 127.0.0.2/32 md5";
            let said = shared(
                &[
                    ("work_mem", "5MB"),
                    ("maintenance_work_mem", "33MB"),
                    ("max_connections", "77"),
                    ("wrk_mem", "1MB"),
                    ("random_page_cost", "cheap"),
                    ("fsync", "off"),
                    ("restart_after_crash", "on"),
                ],
                &[hba],
            );
            node.instance.share(&said).await.unwrap();
            node.instance.init().await.unwrap();
            node.instance.start_primary(LONG).await.unwrap();
            let show = async |name: &str| node.sql(&format!("SHOW {name}")).await.remove(0);
            assert_eq!(show("work_mem").await, "7MB", "the node's own");
            assert_eq!(show("deadlock_timeout").await, "3s", "the user's own file");
            assert_eq!(show("maintenance_work_mem").await, "33MB");
            assert_eq!(show("max_connections").await, "77");
            assert_eq!(show("fsync").await, "on");
            assert_eq!(show("restart_after_crash").await, "off");
            node.instance.access(Access::Open).await.unwrap();
            let rules = "SELECT address || ' ' || auth_method FROM pg_hba_file_rules WHERE address = '127.0.0.2'";
            wait("the line is there", async || {
                (node.sql(rules).await == ["127.0.0.2 md5"]).then_some(())
            })
            .await;
            assert_eq!(
                node.sql("SELECT setting FROM pg_file_settings WHERE error IS NOT NULL")
                    .await,
                [] as [&str; 0]
            );

            // A change: what needs a restart is said, also of what is on the command line.
            let changed = shared(
                &[
                    ("maintenance_work_mem", "44MB"),
                    ("max_connections", "88"),
                    ("max_wal_senders", "33"),
                    ("wrk_mem", "1MB"),
                ],
                &[hba, "hosts all all all md5"],
            );
            node.instance.share(&changed).await.unwrap();
            wait("reloaded", async || {
                (show("maintenance_work_mem").await == "44MB").then_some(())
            })
            .await;
            wait("pending restart", async || {
                let pending = node.probe().await.pending_restart;
                let said: Vec<String> = pending
                    .iter()
                    .map(|it| format!("{} {} {}", it.name, it.running, it.wanted))
                    .collect();
                (said == ["max_connections 77 88", "max_wal_senders 16 33"]).then_some(())
            })
            .await;
            assert_eq!(
                node.sql(rules).await,
                ["127.0.0.2 md5"],
                "the lines from before"
            );

            // An agent that comes after this one starts it the same, before it has met the store.
            node.stop(Stop::Fast).await;
            let again = Instance::open(node.options.clone()).unwrap();
            again.start_standby(None, LONG).await.unwrap();
            again.end_of_wal(LONG).await.unwrap();
            again.promote(LONG).await.unwrap();
            assert_eq!(show("max_connections").await, "88");
            assert_eq!(show("max_wal_senders").await, "33");
        },
    );
}

#[test]
fn a_state_directory_with_a_long_path_has_its_socket_elsewhere() {
    run(
        "a_state_directory_with_a_long_path_has_its_socket_elsewhere",
        async {
            let dir = tempfile::tempdir_in("/tmp").unwrap();
            let mut options = Node::options("a", &dir);
            options.state_dir = dir.path().join("long".repeat(40));
            let node = Node::with_options(options, dir);
            node.instance.init().await.unwrap();
            let started = node.instance.start_primary(LONG).await.unwrap();
            assert_eq!(started, Started::Accepting);
            // Over the private socket, and by the next agent too.
            node.instance.ensure_roles(LONG).await.unwrap();
            let next = Instance::open(node.options.clone()).unwrap();
            next.ensure_roles(LONG).await.unwrap();
            let socket = format!(".s.PGSQL.{}", node.options.port);
            let user = rustix::process::geteuid().as_raw();
            let places = std::fs::read_dir(format!("/tmp/standfast-{user}")).unwrap();
            let place = places
                .flatten()
                .map(|entry| entry.path())
                .find(|place| place.join(&socket).exists())
                .unwrap();
            drop((node, next));
            std::fs::remove_dir_all(place).unwrap();
        },
    );
}

#[test]
fn what_a_person_starts_and_stops_by_hand_is_seen() {
    run("what_a_person_starts_and_stops_by_hand_is_seen", async {
        let node = Node::primary("n1").await;
        let pg_ctl = |args: &[&str]| {
            let status = std::process::Command::new(node.instance.binaries().dir.join("pg_ctl"))
                .arg("-D")
                .arg(&node.options.data_dir)
                .args(args)
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "pg_ctl {args:?}");
        };
        pg_ctl(&["stop", "-m", "fast"]);
        node.instance.wait_until_empty(LONG).await.unwrap();
        // By hand it comes up as a standby: nobody writes to it behind the leader's back.
        let log = node.options.state_dir.join("by-hand.log");
        let socket_dir = &node.options.parameters["unix_socket_directories"];
        let options = format!(
            "-p {} -k {socket_dir} -h 127.0.0.1 -c max_wal_senders=16",
            node.options.port
        );
        pg_ctl(&["start", "-w", "-o", &options, "-l", log.to_str().unwrap()]);
        let Liveness::Up { guarded, .. } = node.instance.liveness() else {
            panic!("not seen")
        };
        assert!(!guarded);
        let probe = node.probe().await;
        assert!(probe.in_recovery && probe.timeline.0 == 1, "{probe:?}");
        assert!(node.instance.postmaster_pidfd().is_some());
        let detached = node.instance.detach(LONG).await.unwrap();
        assert_eq!(detached.timeline.0, 1);
        node.stop(Stop::Fast).await;
        assert_eq!(node.instance.liveness(), Liveness::Down);
        node.instance.start_standby(None, LONG).await.unwrap();
        node.stop(Stop::Immediate).await;
    });
}

/// Its own never gets that far: until it has its sockets, whoever answers on its port is another one.
#[test]
fn a_server_that_holds_its_port_is_not_taken_for_it() {
    run("a_server_that_holds_its_port_is_not_taken_for_it", async {
        let (mut one, two) = (Node::new("one"), Node::new("two"));
        let all = "host all all 127.0.0.1/32 scram-sha-256".to_owned();
        one.options.pg_hba.push(all);
        let one = Node::started(one.again()).await;
        let mut options = two.options.clone();
        options.port = one.options.port;
        let late = Instance::open(options).unwrap();
        late.init().await.unwrap();
        for _ in 0..5 {
            let start = late.start_primary(LONG);
            tokio::pin!(start);
            let started = loop {
                tokio::select! {
                    started = &mut start => break started,
                    probe = late.probe(LONG) => assert!(probe.is_err(), "{probe:?}"),
                }
            };
            assert!(started.is_err(), "{started:?}");
        }
        one.stop(Stop::Fast).await;
    });
}
