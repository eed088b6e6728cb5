//! A cluster as the commands see it: two nodes are created, live, change and go.

use crate::home::{Home, free_port};
use api::{Api, Options, Served, Token};
use ha::quorum::{Setting, SyncRecord};
use ha::{Epoch, Instant, Lsn, NodeName, NodeState, SystemId, Timeline};
use serde::Serialize;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use store::layout::{EpochRecord, Keys, MemberExtra, MemberRecord, SyncValue, read_cluster};
use store::{MemoryStore, Store, Txn};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The monitor's API, served from a store that the test writes.
struct Monitor {
    home: Home,
    port: u16,
    store: MemoryStore,
    keys: Keys,
    runtime: Option<Runtime>,
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn now() -> Instant {
    Instant(guard::boottime_ns())
}

impl Monitor {
    fn start() -> Self {
        let home = Home::new();
        let port = free_port();
        home.expect(
            0,
            &format!("create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1"),
        );
        let (store, keys) = (MemoryStore::new(), Keys::new("service", "default"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let token = Token::derive(&home.secret());
        runtime.block_on(serve(store.clone(), keys.clone(), token, port));
        Self {
            home,
            port,
            store,
            keys,
            runtime: Some(runtime),
        }
    }

    fn run(&self, code: i32, line: &str) -> (String, String) {
        let said = self.home.expect(code, line);
        (said.out, said.err)
    }

    fn create(&self, dir: &str, port: u16, more: &str) -> String {
        let monitor = self.port;
        format!(
            "create postgres --pgdata {dir} --pgport {port} --nodename 127.0.0.1 \
             --monitor postgres://autoctl_node@127.0.0.1:{monitor}/pg_auto_failover {more}"
        )
    }

    fn write(&self, txn: Txn) {
        let runtime = self.runtime.as_ref().unwrap();
        assert!(
            runtime
                .block_on(self.store.commit(txn))
                .unwrap()
                .is_committed()
        );
    }

    /// `node_1` leads, `node_2` follows; both live.
    fn come_alive(&self, ports: [u16; 2]) {
        let sync = SyncRecord::of(Setting::quorum(name("node_1"), [name("node_2")].into(), 1));
        let mut txn = Txn::new()
            .put(self.keys.initialize(), SystemId(42).to_string())
            .put(self.keys.leader(), "node_1")
            .put(
                self.keys.epoch(),
                text(&EpochRecord::new(Epoch(1), name("node_1"))),
            )
            .put(self.keys.sync(), text(&SyncValue::from(&sync)));
        let states = [
            ("node_1", NodeState::Primary),
            ("node_2", NodeState::Standby),
        ];
        for ((node, state), port) in states.into_iter().zip(ports) {
            txn = txn.put(self.keys.member(&name(node)), text(&member(port, state)));
        }
        self.write(txn);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

fn member(port: u16, state: NodeState) -> MemberRecord {
    let (role, patroni_state) = state.patroni();
    MemberRecord {
        conn_url: format!("postgres://127.0.0.1:{port}/postgres"),
        api_url: format!("http://127.0.0.1:{}", port + 1000),
        state: patroni_state.to_owned(),
        role: role.to_owned(),
        version: "0.1.0".to_owned(),
        xlog_location: Lsn(0x3000060),
        timeline: Timeline(1),
        standfast: Some(MemberExtra {
            host: "127.0.0.1".to_owned(),
            port,
            state,
            assigned: state,
            reason: "as it should be".to_owned(),
            rule: "steady".to_owned(),
            unfit: None,
            stream_says: None,
            troubles: Vec::new(),
            identity: "x".to_owned(),
            server_version: 150_018,
            ties: ha::Ties::default(),
            remembers: None,
        }),
        ..MemberRecord::default()
    }
}

/// With this key the monitor says that the store is silent.
fn silence(keys: &Keys) -> String {
    format!("{}silence", keys.prefix())
}

/// The API of a monitor that publishes what the store holds.
async fn serve(store: MemoryStore, keys: Keys, token: Token, port: u16) {
    let mut served = Served::new("default", name("monitor"));
    served.witness = true;
    let (publish, receiver) = watch::channel(Arc::new(served.clone()));
    let mut view = store.view(keys.prefix());
    let read = keys.clone();
    tokio::spawn(async move {
        loop {
            let snapshot = Arc::clone(&view.borrow_and_update());
            served.cluster = Some(read_cluster(&read, &snapshot).unwrap());
            let silent = snapshot.value(&silence(&read)).is_some();
            served.store_silent_for = silent.then_some(Duration::from_secs(5));
            served.snapshot = snapshot;
            served.loop_at = now();
            if publish.send(Arc::new(served.clone())).is_err() || view.changed().await.is_err() {
                return;
            }
        }
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let options = Options {
        keys,
        store: Arc::new(store),
        token,
        basic_auth: None,
        served: receiver,
        errands: None,
        reload: Arc::default(),
        certificate: None,
        gate: api::Gate::default(),
        certificates: Vec::new(),
        holding: None,
        log: None,
        membership: None,
        not_taken: api::NotTaken {
            parameter: |_, _| None,
            pg_hba: |_, _| None,
            major: 15,
        },
    };
    tokio::spawn(Api::new(options).listen(listener, std::future::pending()));
}

#[test]
fn two_nodes_are_created_shown_changed_and_dropped() {
    let monitor = Monitor::start();
    let (a, b) = (free_port(), free_port());

    let (out, err) = monitor.run(0, &monitor.create("node_a", a, ""));
    assert!(
        out.is_empty() && err.contains("registered node_1 as node 1"),
        "{err}"
    );
    assert!(err.contains("warning: --auth trust"), "{err}");
    assert!(
        !monitor.home.path("node_a").exists(),
        "the data are made by run"
    );
    let again = monitor.run(0, &monitor.create("node_a", a, "")).1;
    assert!(again.contains("node_1 is created already"), "{again}");
    let (_, err) = monitor.run(
        0,
        &monitor.create("node_b", b, "--auth scram-sha-256 --ssl-self-signed"),
    );
    assert!(err.contains("registered node_2 as node 2"), "{err}");
    assert!(
        err.contains("note: --ssl-self-signed has no effect") && !err.contains("trust"),
        "{err}"
    );
    let secret = String::from_utf8(monitor.home.secret()).unwrap();
    let file = std::fs::read_to_string(monitor.home.config_file("node_b")).unwrap();
    assert!(
        file.contains("name: node_2") && file.contains("scram-sha-256"),
        "{file}"
    );
    assert!(
        !file.contains(&secret) && !file.contains("password"),
        "{file}"
    );
    monitor.run(0, "config check --pgdata node_b");

    monitor.come_alive([a, b]);
    let (out, _) = monitor.run(0, "show state --pgdata monitor");
    let lines: Vec<&str> = out.lines().collect();
    let header = "  Name |  Node |       Host:Port |       TLI: LSN |   Connection |      Reported State |      Assigned State";
    assert_eq!(lines[0], header, "{out}");
    assert_eq!(
        lines[2],
        format!(
            "node_1 |     1 | 127.0.0.1:{a} |   1: 0/3000060 |   read-write |             primary |             primary"
        )
    );
    assert_eq!(
        lines[3],
        format!(
            "node_2 |     2 | 127.0.0.1:{b} |   1: 0/3000060 |    read-only |           secondary |           secondary"
        )
    );

    let (out, _) = monitor.run(0, "show uri --formation default --pgdata monitor");
    assert_eq!(
        out,
        format!(
            "postgres://127.0.0.1:{a},127.0.0.1:{b}/postgres?target_session_attrs=read-write\n"
        )
    );
    let (out, _) = monitor.run(0, "show state --json --pgdata node_a");
    let documents: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(documents[1]["current_group_state"], "secondary");
    assert_eq!(
        monitor.run(0, "show standby-names --pgdata monitor").0,
        "'ANY 1 (node_2)'\n"
    );
    assert!(
        monitor
            .run(0, "show settings --pgdata monitor")
            .0
            .contains("number_sync_standbys | 1")
    );
    monitor.run(0, "show events --pgdata monitor");
    assert!(
        monitor
            .run(0, "status --pgdata monitor")
            .0
            .contains("Leader:  node_1, epoch 1")
    );
    assert!(
        monitor
            .run(0, "explain --pgdata monitor")
            .0
            .contains("node_2")
    );
    monitor.run(0, "watch --pgdata monitor");
    monitor.run(3, "show state --pgdata monitor --formation other");

    assert_eq!(
        monitor
            .run(0, "get node candidate-priority --pgdata node_b")
            .0,
        "50\n"
    );
    assert_eq!(
        monitor
            .run(0, "set node candidate-priority --pgdata node_b 70")
            .0,
        "70\n"
    );
    assert_eq!(
        monitor
            .run(
                0,
                "get node candidate-priority --pgdata monitor --name node_2"
            )
            .0,
        "70\n"
    );
    assert_eq!(
        monitor
            .run(0, "set node replication-quorum --pgdata node_b false")
            .0,
        "false\n"
    );
    monitor.run(
        3,
        "get node candidate-priority --pgdata monitor --name nobody",
    );

    let (_, err) = monitor.run(5, "enable maintenance --pgdata node_a");
    assert!(err.contains("--allow-failover"), "{err}");
    monitor.run(6, "enable maintenance --pgdata node_b --wait 1");
    monitor.run(3, "perform promotion --pgdata monitor --name nobody");
    let (_, err) = monitor.run(5, "perform switchover --pgdata monitor --wait 1");
    assert!(err.contains("node_2 is in maintenance"), "{err}");
    monitor.run(0, "disable maintenance --pgdata node_b");
    monitor.run(0, "perform switchover --pgdata monitor --dry-run");
    monitor.run(6, "perform switchover --pgdata monitor --wait 1");

    let (_, err) = monitor.run(5, "drop node --pgdata node_b --destroy");
    assert!(err.contains("repeat it with --yes"), "{err}");
    let (out, _) = monitor.run(0, "drop node --pgdata node_b --destroy --dry-run");
    assert!(
        out.starts_with("would remove the node node_2 and everything in "),
        "{out}"
    );
    monitor.run(
        2,
        &format!("drop node --pgdata monitor --hostname 127.0.0.1 --pgport {b} --destroy"),
    );
    // The same node by a file of its user's, which is not ours to remove.
    let own = monitor.home.path("own.yml");
    std::fs::copy(monitor.home.config_file("node_b"), &own).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (out, _) = monitor.run(0, "get node candidate-priority --config own.yml");
    assert_eq!(out, "70\n");
    let (out, _) = monitor.run(0, "status --config own.yml");
    assert!(out.starts_with("Agent:   node_2 does not run\n"), "{out}");
    // Its agent is gone, and so is its record when the lease is over: it can't leave by itself, and is made to.
    monitor.write(Txn::new().delete(monitor.keys.member(&name("node_2"))));
    let (_, err) = monitor.run(0, "drop node --config own.yml --destroy --yes");
    assert!(err.contains("own.yml: `create` did not write it"), "{err}");
    assert!(own.exists() && !monitor.home.path("node_b").exists());
    monitor.run(0, "drop node --pgdata node_b --destroy --yes");
    assert!(!monitor.home.config_file("node_b").exists());
    monitor.run(3, "show state --pgdata node_b");
    let (out, _) = monitor.run(0, "show state --pgdata monitor");
    assert!(!out.contains("node_2"), "{out}");
}

#[test]
fn what_can_not_join_is_refused_and_leaves_no_configuration() {
    let monitor = Monitor::start();
    let port = free_port();
    let none = |dir: &str| assert!(!monitor.home.config_file(dir).exists(), "{dir}");

    monitor.run(0, &monitor.create("a", port, "--name first"));
    let (_, err) = monitor.run(5, &monitor.create("b", free_port(), "--name first"));
    assert!(err.contains("first"), "{err}");
    none("b");
    monitor.run(5, &monitor.create("a", port, "--name other"));
    let (_, err) = monitor.run(3, &monitor.create("b", free_port(), "--formation other"));
    assert!(err.contains("formation"), "{err}");
    none("b");

    let open = monitor.home.path("open-secret");
    std::fs::write(&open, "a secret that others can read").unwrap();
    monitor.run(
        1,
        &monitor.create("b", free_port(), "--secret-file open-secret"),
    );
    let stranger = Home::new();
    let port = free_port();
    stranger.expect(
        0,
        &format!("create monitor --pgdata m --pgport {port} --hostname 127.0.0.1"),
    );
    let theirs = format!(
        "--secret-file {}",
        stranger.path("config/standfast/secret").display()
    );
    let (_, err) = monitor.run(1, &monitor.create("b", free_port(), &theirs));
    assert!(err.contains("not this cluster's"), "{err}");
    let (_, err) = monitor.run(1, &monitor.create("b", free_port(), "--secret-file absent"));
    assert!(err.contains("copy it from the monitor's machine"), "{err}");
    none("b");

    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap().port();
    let (_, err) = monitor.run(1, &monitor.create("b", taken, ""));
    assert!(err.contains("is taken by another program"), "{err}");
    none("b");

    let foreign = monitor.home.path("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "dear").unwrap();
    let (_, err) = monitor.run(5, &monitor.create("foreign", free_port(), ""));
    assert!(err.contains("it is left as it is"), "{err}");
    assert!(foreign.join("letter.txt").exists());
    none("foreign");
    let (_, err) = monitor.run(1, &monitor.create("b", free_port(), "--pgctl /usr/bin/env"));
    assert!(err.contains("PostgreSQL"), "{err}");
    none("b");
}

#[test]
fn another_member_answers_when_the_own_one_does_not() {
    let monitor = Monitor::start();
    let (a, b) = (free_port(), free_port());
    monitor.run(0, &monitor.create("node_a", a, ""));
    monitor.run(0, &monitor.create("node_b", b, ""));
    // No agent of node_a runs: its own API is silent, the monitor it joined by is not.
    assert!(
        monitor
            .run(0, "show state --pgdata node_a")
            .0
            .contains("node_2")
    );
    let Monitor { home, .. } = &monitor;
    let (_, err) = monitor.run(1, "stop --pgdata node_a");
    assert!(err.contains("does not run"), "{err}");
    assert!(home.path("config").exists());
}

/// What a member without its store still shows is no success: a script would take it for the truth.
#[test]
fn what_a_silent_store_said_last_is_shown_with_an_error() {
    let monitor = Monitor::start();
    let (a, b) = (free_port(), free_port());
    monitor.run(0, &monitor.create("node_a", a, ""));
    monitor.run(0, &monitor.create("node_b", b, ""));
    monitor.come_alive([a, b]);
    monitor.write(Txn::new().put(silence(&monitor.keys), "5"));
    for (command, shows) in [
        ("show state", "node_2"),
        ("show state --json", "node_2"),
        ("status", "node_2"),
        ("explain", "node_2"),
    ] {
        let (out, err) = monitor.run(4, &format!("{command} --pgdata node_a"));
        assert!(out.contains(shows), "{command}: {out}");
        assert!(err.contains("silent for 5."), "{command}: {err}");
    }
    let (out, _) = monitor.run(4, "explain --pgdata node_a");
    assert!(!out.contains("| yes"), "{out}");
    assert!(
        out.contains("nobody can claim the leadership before it answers"),
        "{out}"
    );
    let url = format!("http://127.0.0.1:{}", monitor.port);
    for (command, shows) in [
        ("list", "node_2"),
        ("topology", "node_2"),
        ("list -f json", "node_2"),
    ] {
        let said = monitor.home.patronictl(&format!("-d {url} {command}"));
        assert_eq!(said.code, 4, "{command}: {said:?}");
        assert!(said.out.contains(shows), "{command}: {said:?}");
        assert!(said.err.contains("silent for 5."), "{command}: {said:?}");
    }
    monitor.write(Txn::new().delete(silence(&monitor.keys)));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let said = monitor.home.patronictl(&format!("-d {url} list"));
        if said.code == 0 {
            assert_eq!(said.err, "", "{said:?}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{said:?}");
    }
}
