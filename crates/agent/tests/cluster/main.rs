//! Agents with real PostgreSQL on one store in memory: a cluster in one process, without networks and consensus.
//!
//! Has a `main` of its own, because the guard is this very program started again.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test with a main of its own"
)]

mod abroad;
mod cascade;
mod lies;
mod logical;
mod node;
mod troupe;
mod watched;

use node::{Node, Wishes, free_ports, start, until, wishing};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use store::layout::{Keys, MemberRecord};
use store::{MemoryStore, Store, Txn};

/// What is played, in a process of its own each: a story that dies leaves the others alone.
const STORIES: [&str; 9] = [
    "standbys_behind_a_standby",
    "a_standby_of_the_archive",
    "a_standby_cluster_with_an_archive",
    "a_node_that_must_be_watched",
    "a_logical_slot_goes_on",
    "a_failover_slot_goes_on",
    "the_newest_does_not_start",
    "who_cannot_join_is_not_in_the_way",
    "a_pair",
];

/// Tells a process of ours which of them it plays.
const PLAYED: &str = "STANDFAST_TEST_STORY";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == "guard") {
        return guard::main(args[2..].to_vec());
    }
    let Ok(name) = std::env::var(PLAYED) else {
        return troupe::play(&STORIES);
    };
    // Dropped behind the runtime, and the agents in it: they would start anew what is ended here.
    let root = Root::of(std::process::id());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(story(&name, &root.0));
    ExitCode::SUCCESS
}

/// Where everything lies that a story makes. Dropped, it goes with all processes that work there: a story that
/// panics leaves guards behind, which look after their Postgres for as long as they may.
struct Root(PathBuf);

impl Root {
    /// Of the process that plays the story.
    fn of(pid: u32) -> Self {
        Self(std::env::temp_dir().join(format!("sf-{pid}")))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let left = lab::Selection::Directory(self.0.clone());
        if let Err(error) = left.kill_all(Duration::from_secs(20)) {
            println!("left behind: {error:#}");
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn story(name: &str, root: &Path) {
    let level = match std::env::var_os("RUST_LOG") {
        Some(_) => tracing::Level::DEBUG,
        None => tracing::Level::INFO,
    };
    tracing_subscriber::fmt().with_max_level(level).init();
    std::fs::create_dir_all(root).expect("a directory");
    let limit = Duration::from_secs(30);
    match name {
        "standbys_behind_a_standby" => cascade::standbys_behind_a_standby(root, limit).await,
        "a_standby_of_the_archive" => cascade::a_standby_of_the_archive(root, limit).await,
        "a_standby_cluster_with_an_archive" => {
            abroad::a_standby_cluster_with_an_archive(root, limit).await;
        }
        "a_node_that_must_be_watched" => watched::a_node_that_must_be_watched(root, limit).await,
        "a_logical_slot_goes_on" => logical::a_logical_slot_goes_on(root, None, limit).await,
        "a_failover_slot_goes_on" => {
            let newer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/postgres/17/bin");
            if newer.is_dir() {
                logical::a_logical_slot_goes_on(root, Some(&newer), limit).await;
            } else {
                assert!(std::env::var_os("CI").is_none(), "no PostgreSQL 17");
            }
        }
        "the_newest_does_not_start" => lies::the_newest_does_not_start(root, limit).await,
        "who_cannot_join_is_not_in_the_way" => {
            lies::who_cannot_join_is_not_in_the_way(root, limit).await;
        }
        "a_pair" => a_pair(root, limit).await,
        other => panic!("there is no story {other}"),
    }
}

async fn a_pair(root: &Path, limit: Duration) {
    let store = MemoryStore::new();
    let keys = Keys::new("service", "test");
    let [port_a, port_b] = free_ports();
    let a = start(root, &store, &keys, "a", port_a).await;
    until("a founds the cluster", limit, || a.is_open_primary()).await;
    let b = start(root, &store, &keys, "b", port_b).await;
    until("b is a synchronous standby", limit, || {
        a.state() == Some(ha::NodeState::Primary) && b.state() == Some(ha::NodeState::Standby)
    })
    .await;
    a_stranger_with_a_nodes_name_is_ended(&a, limit).await;
    a.psql("CREATE TABLE t (n int)").expect("a table");
    a.psql("INSERT INTO t VALUES (1)").expect("a row");
    let view = store.view(keys.prefix());
    let record = |node: &Node| -> Option<MemberRecord> {
        let snapshot = view.borrow();
        serde_json::from_str(snapshot.value(&keys.member(&node.name))?).ok()
    };
    until("both members show the LSN to the byte", limit, || {
        let end = a.psql("SELECT pg_current_wal_flush_lsn()");
        [&a, &b].map(|node| record(node).map(|it| it.xlog_location.to_string()))
            == [end.clone(), end]
    })
    .await;
    for node in [&a, &b] {
        let tags = record(node).and_then(|it| it.tags).expect("tags");
        assert_eq!(tags["zone"], node.name.as_str());
    }
    a.kill_postmaster();
    until("b leads after a's postmaster was killed", limit, || {
        b.is_open_primary()
    })
    .await;
    assert_eq!(b.psql("SELECT count(*) FROM t").as_deref(), Some("1"));
    until("a is a standby again", limit, || {
        a.state() == Some(ha::NodeState::Standby) && b.state() == Some(ha::NodeState::Primary)
    })
    .await;
    b.psql("INSERT INTO t VALUES (2)").expect("a row");
    a_namesake_stays_out(root, &store, &keys, &b, limit).await;
    spoilt_settings_stop_nobody(&store, &keys, &a, &b, limit).await;
    what_nobody_can_read_keeps_no_office(&store, &keys, &a, &b, limit).await;
    let leader = who_has_left_unknowingly_ends(&store, &keys, a, b, limit).await;
    leader.handle.stop(agent::StopOrder::InOrder);
    let ended = tokio::time::timeout(limit, leader.task).await;
    println!("{} ended: {ended:?}", leader.name);
    a_lost_cluster_is_not_begun_anew(root, limit).await;
}

/// Somebody starts another node by the name of the leader `b`.
async fn a_namesake_stays_out(
    root: &Path,
    store: &MemoryStore,
    keys: &Keys,
    b: &Node,
    limit: Duration,
) {
    let view = store.view(keys.prefix());
    let leads = || {
        view.borrow()
            .entries
            .get(&keys.leader())
            .map(|it| it.modified)
    };
    let before = leads().expect("a leader");
    let wishes = Wishes {
        twin: true,
        ..Wishes::default()
    };
    let [port] = free_ports();
    let twin = wishing(root, store, keys, "b", port, wishes).await;
    until("it has looked and decides nothing", limit, || {
        let shown = twin.shown.borrow();
        shown.loop_at > ha::Instant::default() && shown.decision.is_none()
    })
    .await;
    let turns = Instant::now();
    until("more than a turn has passed", limit, || {
        turns.elapsed() > Duration::from_secs(2)
    })
    .await;
    assert_eq!(leads(), Some(before), "it took the leader key");
    assert!(!twin.instance.options().data_dir.exists(), "it made a copy");
    twin.handle.stop(agent::StopOrder::InOrder);
    let ended = tokio::time::timeout(limit, twin.task).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(leads(), Some(before), "it took the leader key along");
    assert!(b.is_open_primary());
}

/// The leader `b` dies while its settings can't be read: `a` takes over by those that it knew.
async fn spoilt_settings_stop_nobody(
    store: &MemoryStore,
    keys: &Keys,
    a: &Node,
    b: &Node,
    limit: Duration,
) {
    let config = store
        .view(keys.prefix())
        .borrow()
        .value(&keys.config())
        .map(str::to_owned);
    write(store, Txn::new().put(keys.config(), r#"{"ttl":0.1}"#)).await;
    b.kill_postmaster();
    until("a leads though nobody can read the settings", limit, || {
        a.is_open_primary()
    })
    .await;
    until("b is a standby", limit, || {
        b.state() == Some(ha::NodeState::Standby)
    })
    .await;
    let mended = match config {
        Some(config) => Txn::new().put(keys.config(), config),
        None => Txn::new().delete(keys.config()),
    };
    write(store, mended).await;
}

/// Nothing can be decided: a working primary goes on, a dead one's leadership ends, and the mended record is all that an
/// election needs.
async fn what_nobody_can_read_keeps_no_office(
    store: &MemoryStore,
    keys: &Keys,
    a: &Node,
    b: &Node,
    limit: Duration,
) {
    until("all is well", limit, || {
        a.state() == Some(ha::NodeState::Primary)
    })
    .await;
    write(store, Txn::new().put(keys.failover(), "{")).await;
    let view = store.view(keys.prefix());
    let beat = || {
        view.borrow()
            .entries
            .get(&keys.status())
            .map_or(0, |entry| entry.modified)
    };
    let (mut last, mut beats) = (beat(), 0);
    while beats < 16 {
        until("a beats on", limit, || beat() != last).await;
        (last, beats) = (beat(), beats + 1);
    }
    assert_eq!(view.borrow().value(&keys.leader()), Some("a"));
    a.psql("INSERT INTO t VALUES (3)").expect("a row");
    a.kill_postmaster();
    until("the dead primary's leadership ends", limit, || {
        view.borrow().value(&keys.leader()).is_none()
    })
    .await;
    write(store, Txn::new().delete(keys.failover())).await;
    until("one leads again", limit, || {
        a.is_open_primary() || b.is_open_primary()
    })
    .await;
}

/// The record of the standby is gone, and its agent was not told. Returns the leader.
async fn who_has_left_unknowingly_ends(
    store: &MemoryStore,
    keys: &Keys,
    a: Node,
    b: Node,
    limit: Duration,
) -> Node {
    let is_whole = |leader: &Node, standby: &Node| {
        leader.state() == Some(ha::NodeState::Primary)
            && standby.state() == Some(ha::NodeState::Standby)
    };
    until("both are there", limit, || {
        is_whole(&a, &b) || is_whole(&b, &a)
    })
    .await;
    let (leader, standby) = if a.is_open_primary() { (a, b) } else { (b, a) };
    write(store, Txn::new().delete(keys.node(&standby.name))).await;
    let ended = tokio::time::timeout(limit, standby.task).await;
    assert!(matches!(ended, Ok(Ok(agent::Ended::Dropped))), "{ended:?}");
    let left = standby.instance.liveness();
    assert_eq!(left, postgres::Liveness::Down);
    leader
}

async fn write(store: &MemoryStore, txn: Txn) {
    let outcome = store.commit(txn).await.expect("the store answers");
    assert!(outcome.is_committed());
}

/// Postgres counts every walsender of a name. One that streams as `b` and does not hold `b`'s slot is ended; one with
/// the node's plain name counts for nobody.
async fn a_stranger_with_a_nodes_name_is_ended(a: &Node, limit: Duration) {
    let sync = "SELECT string_agg(application_name || ' ' || sync_state, ', ' ORDER BY application_name COLLATE \"C\") \
                FROM (SELECT application_name, sync_state FROM pg_stat_replication) r";
    until("b counts under its stream's name", limit, || {
        a.psql(sync).as_deref() == Some("b_e1 quorum")
    })
    .await;
    let binaries = a.instance.binaries().dir.clone();
    let receive = |name: &str| {
        let dir = std::env::temp_dir().join(format!("sf-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let child = Command::new(binaries.join("pg_receivewal"))
            .args(["--synchronous", "--no-loop", "-D"])
            .arg(&dir)
            .arg("-d")
            .arg(format!(
                "host=127.0.0.1 port={} user=replicator application_name={name}",
                a.port
            ))
            .env("PGPASSWORD", "rep")
            .spawn()
            .expect("pg_receivewal");
        (child, dir)
    };
    let (mut plain, plain_dir) = receive("b");
    until("a stranger named b counts for nobody", limit, || {
        a.psql(sync).as_deref() == Some("b async, b_e1 quorum")
    })
    .await;
    let (mut copy, copy_dir) = receive("b_e1");
    until("a stranger with b's stream's name is ended", limit, || {
        copy.try_wait().expect("its status").is_some()
    })
    .await;
    until("b alone counts", limit, || {
        a.psql(sync).as_deref() == Some("b async, b_e1 quorum")
    })
    .await;
    plain.kill().expect("killed");
    let _ = plain.wait();
    for dir in [plain_dir, copy_dir] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// The store and the notes are lost: no copy of the data becomes a new cluster by itself, until a person says so.
async fn a_lost_cluster_is_not_begun_anew(root: &Path, limit: Duration) {
    let store = MemoryStore::new();
    let keys = Keys::new("service", "test");
    std::fs::remove_dir_all(root.join("a/state")).expect("a's state directory");
    let [port] = free_ports();
    let a = start(root, &store, &keys, "a", port).await;
    let waits = || {
        let served = a.shown.borrow();
        let reason = served.decision.as_ref().map(|it| it.reason.as_str());
        reason.is_some_and(|reason| reason.contains("can't found the cluster"))
    };
    until("a does not begin a new cluster", limit, waits).await;
    let word = root.join("a/data/standfast.found");
    std::fs::write(&word, "").expect("a file in the data directory");
    until("a begins anew by a person's word", limit, || {
        a.is_open_primary()
    })
    .await;
    assert!(!word.exists(), "the word is used up");
    assert!(a.psql("SELECT count(*) FROM t").is_some(), "with its data");
    a.handle.stop(agent::StopOrder::InOrder);
    let ended = tokio::time::timeout(limit, a.task).await;
    println!("{} ended: {ended:?}", a.name);
}
