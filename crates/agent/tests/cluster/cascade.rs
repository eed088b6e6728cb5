//! Tags: a standby behind a standby, copies of a standby, and a circle.

use crate::node::{Node, Wishes, free_ports, until, wishing};
use api::errand::{Ask, Errand};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use store::layout::{Keys, MemberRecord};
use store::{MemoryStore, Store as _};

/// Patroni: Configuration | tag `replicatefrom` | works: by way of that standby while it streams from the leader itself,
///   else from the leader; no commit waits for a standby behind another; tags in a circle count for nothing
/// Patroni: Configuration | tag `clonefrom` | works: base backups are made of such a standby; programs of
///   `create_replica_methods` are told of the leader
/// Patroni: REST | `POST /reinitialize` with `from_leader` | works: the base backup is the leader's, whoever offers itself
/// Patroni: patronictl | `checkpoint_after_promote` in a member's key | works: Patroni's nodes wait for it before they rewind
pub(crate) async fn standbys_behind_a_standby(root: &Path, limit: Duration) {
    let store = MemoryStore::new();
    let keys = Keys::new("service", "cascade");
    let ports: [u16; 4] = free_ports();
    let start = async |name: &str, port: usize, tags: serde_json::Value| {
        let wishes = Wishes {
            tags,
            ..Wishes::default()
        };
        wishing(root, &store, &keys, name, ports[port], wishes).await
    };
    let a = start("a", 0, json!({})).await;
    until("a founds the cluster", limit, || a.is_open_primary()).await;
    let b = start("b", 1, json!({"clonefrom": true})).await;
    until("b counts", limit, || counted(&a).contains('b')).await;
    until("b offers itself", limit, || serves(&store, &keys, "b")).await;
    a.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .expect("a row");
    let c = start("c", 2, json!({"replicatefrom": "b"})).await;
    until("c streams from b", limit, || streams(&b, "c")).await;
    assert!(origin(&c).contains("BACKUP FROM: standby"));
    a.psql("INSERT INTO t VALUES (2)").expect("a row");
    until("what a writes arrives at c", limit, || rows(&c) == 2).await;
    assert!(!streams(&a, "c"));
    assert!(!counted(&a).contains('c'), "{}", counted(&a));
    until("c is a standby", limit, || {
        c.state() == Some(ha::NodeState::Standby)
    })
    .await;
    let retag = |tags: serde_json::Value| {
        let tags = tags.as_object().expect("a map").clone();
        c.handle.retag(tags);
    };
    retag(json!({"zone": "z"}));
    until("c streams from a, by other tags", limit, || {
        streams(&a, "c") && tags_of(&store, &keys, "c") == Some(json!({"zone": "z"}))
    })
    .await;
    let (answer, done) = tokio::sync::oneshot::channel();
    let ask = Ask::Reinitialize {
        force: false,
        from_leader: true,
    };
    let errand = Errand { ask, answer };
    c.errands.send(errand).await.expect("c listens");
    done.await.expect("an answer").expect("begun");
    until("c is a base backup of a", limit, || {
        origin(&c).contains("BACKUP FROM: primary") && streams(&a, "c")
    })
    .await;
    retag(json!({"replicatefrom": "b"}));
    until("c streams from b again", limit, || streams(&b, "c")).await;
    the_leader_keeps_no_wal_for_one_that_streams_elsewhere(&a, limit).await;
    let d = start("d", 3, json!({"replicatefrom": "a"})).await;
    until("d streams from a, which leads", limit, || streams(&a, "d")).await;

    // So much that the checkpoint behind the promotion lasts: of a short one nobody needs to be told.
    let much = "CREATE TABLE much AS SELECT n, repeat('x', 100) FROM generate_series(1, 300000) n";
    a.psql(much).expect("a table");
    until("b has it all", limit, || {
        b.psql("SELECT count(*) FROM much").as_deref() == Some("300000")
    })
    .await;
    // On a thread of its own: what is told for a moment only is missed where psql holds up the others.
    let telling = checkpoint_told(store.clone(), keys.member(&b.name));
    let here = tokio::runtime::Handle::current();
    let told = tokio::task::spawn_blocking(move || here.block_on(telling));
    a.kill_postmaster();
    until("b leads", limit, || b.is_open_primary()).await;
    let told = tokio::time::timeout(limit, told).await;
    told.expect("in time").expect("told");
    b.psql("INSERT INTO t VALUES (3)").expect("a row");
    until("c has it, from b itself", limit, || {
        rows(&c) == 3 && streams(&b, "c")
    })
    .await;
    until("d streams from a, which leads no more", limit, || {
        streams(&a, "d") && !streams(&b, "d")
    })
    .await;
    assert!(!counted(&b).contains('d'), "{}", counted(&b));

    // d's agent hangs, so d streams on from whoever lets it. What it gets must be of the epoch that its note names.
    d.task.abort();
    b.kill_postmaster();
    until("another leads", limit, || {
        a.is_open_primary() || c.is_open_primary()
    })
    .await;
    let leader = if a.is_open_primary() { &a } else { &c };
    until("a gives d no WAL of the new epoch", limit, || {
        let slot = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'd_e2'";
        a.psql(slot).as_deref() == Some("0")
    })
    .await;
    leader.psql("INSERT INTO t VALUES (4)").expect("a row");
    assert_eq!(rows(&d), 3);
    let timeline = "SELECT max(received_tli) FROM pg_stat_wal_receiver WHERE received_tli > 2";
    assert_eq!(d.psql(timeline).as_deref(), Some(""));
    d.instance
        .stop(postgres::Stop::Immediate, limit)
        .await
        .expect("stopped");
    for node in [b, c, a] {
        node.handle.stop(agent::StopOrder::AtOnce);
        let ended = tokio::time::timeout(limit, node.task).await;
        println!("{} ended: {ended:?}", node.name);
    }
}

/// Who streams from a node's leader by a slot that nobody uses would keep all WAL there for ever.
async fn the_leader_keeps_no_wal_for_one_that_streams_elsewhere(a: &Node, limit: Duration) {
    let begin = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'c\\_e%'";
    let at = a.psql(begin);
    until("c's slot on the leader moves on", limit, || {
        a.psql("INSERT INTO t SELECT 4 FROM generate_series(1, 10); DELETE FROM t WHERE n = 4");
        let now = a.psql(begin);
        now.is_some_and(|lsn| !lsn.is_empty()) && a.psql(begin) != at
    })
    .await;
}

/// The label of the base backup that it was made of.
fn origin(node: &Node) -> String {
    let label = node.instance.options().data_dir.join("backup_label.old");
    std::fs::read_to_string(label).unwrap_or_default()
}

/// A member has said that its checkpoint is not done, and then no more.
async fn checkpoint_told(store: MemoryStore, key: String) {
    let mut view = store.view(&key);
    for wanted in [Some(false), None] {
        let told = view.wait_for(|seen| {
            let member = seen.value(&key).unwrap_or_default();
            let member: Option<MemberRecord> = serde_json::from_str(member).ok();
            member.is_some_and(|it| it.checkpoint_after_promote == wanted)
        });
        told.await.expect("the store lives");
    }
}

fn streams(source: &Node, name: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' \
         AND application_name LIKE '{name}\\_e%'"
    );
    source.psql(&sql).as_deref() == Some("1")
}

fn counted(leader: &Node) -> String {
    leader
        .psql("SHOW synchronous_standby_names")
        .unwrap_or_default()
}

fn rows(node: &Node) -> usize {
    let count = node.psql("SELECT count(*) FROM t");
    count.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn tags_of(store: &MemoryStore, keys: &Keys, name: &str) -> Option<serde_json::Value> {
    use store::Store as _;
    let view = store.view(keys.prefix());
    let snapshot = view.borrow();
    let name = ha::NodeName::new(name).expect("a plain name");
    let record = snapshot.value(&keys.member(&name))?;
    let record: MemberRecord = serde_json::from_str(record).ok()?;
    record.tags
}

fn serves(store: &MemoryStore, keys: &Keys, name: &str) -> bool {
    use store::Store as _;
    let view = store.view(keys.prefix());
    let snapshot = view.borrow();
    let name = ha::NodeName::new(name).expect("a plain name");
    let cluster = store::layout::read_cluster(keys, &snapshot).expect("readable");
    let epoch = cluster.current_epoch();
    let member = cluster.members.get(&name);
    member.is_some_and(|member| member.ties.serves == Some(epoch))
}

/// Patroni: Configuration | tag `nostream` | works: never counted, never a candidate; when the tag is gone, its WAL is
///   compared with the leader's before it streams
pub(crate) async fn a_standby_of_the_archive(root: &Path, limit: Duration) {
    let archive = root.join("archive");
    std::fs::create_dir_all(&archive).expect("a directory");
    let store = MemoryStore::new();
    let keys = Keys::new("service", "archive");
    let ports: [u16; 2] = free_ports();
    let copy = |from: &str, to: &str| -> &'static str {
        Box::leak(format!("cp {from} {to}").into_boxed_str())
    };
    let file = format!("{}/%f", archive.display());
    let parameters = vec![
        ("archive_mode", "on"),
        ("archive_command", copy("%p", &file)),
        ("restore_command", copy(&file, "%p")),
    ];
    let start = async |name: &str, port: usize, tags: serde_json::Value| {
        let wishes = Wishes {
            tags,
            parameters: parameters.clone(),
            ..Wishes::default()
        };
        wishing(root, &store, &keys, name, ports[port], wishes).await
    };
    let a = start("a", 0, json!({})).await;
    until("a leads", limit, || a.is_open_primary()).await;
    a.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .expect("a row");
    let b = start("b", 1, json!({"nostream": true})).await;
    until("b is open", limit, || rows(&b) == 1).await;
    let rule = |node: &Node, rule: &str| {
        let served = node.shown.borrow();
        served.decision.as_ref().is_some_and(|it| it.rule == rule)
    };
    until("b takes WAL from the archive alone", limit, || {
        rule(&b, "archive") && b.psql("SHOW primary_conninfo").as_deref() == Some("")
    })
    .await;
    let view = store.view(keys.prefix());
    until("everybody is told", limit, || {
        let snapshot = view.borrow();
        let record = snapshot.value(&keys.member(&b.name)).unwrap_or_default();
        record.contains(r#""replication_state":"in archive recovery""#)
    })
    .await;
    a.psql("INSERT INTO t VALUES (2)").expect("a row");
    assert_eq!(rows(&b), 1, "what is not archived is not there");
    a.psql("SELECT pg_switch_wal()").expect("archived");
    until("b has what was archived", limit, || rows(&b) == 2).await;
    assert_eq!(counted(&a), "");
    a.kill_postmaster();
    until("a leads on, for b vouches for nothing", limit, || {
        a.is_open_primary() && rows(&a) == 2
    })
    .await;
    assert!(!b.is_open_primary());
    until("no WAL is kept for b", limit, || {
        a.psql("SELECT count(*) FROM pg_replication_slots")
            .as_deref()
            == Some("0")
    })
    .await;
    for node in [b, a] {
        node.handle.stop(agent::StopOrder::AtOnce);
        let ended = tokio::time::timeout(limit, node.task).await;
        println!("{} ended: {ended:?}", node.name);
    }
}
