//! Who has the newest WAL and does not start, and who starts and cannot join.

use crate::node::{Wishes, free_ports, until, wishing};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;
use store::MemoryStore;
use store::layout::Keys;

/// Both have stopped in order, a last: it has its own last words in the WAL that b has not. It promises them as it lies
/// there, and can't be started, as somebody else has its port. Its word must not keep b from leading for ever.
pub(crate) async fn the_newest_does_not_start(root: &Path, limit: Duration) {
    let store = MemoryStore::new();
    let keys = Keys::new("service", "lies");
    let ports: [u16; 2] = free_ports();
    let start = async |name: &str, port: usize| {
        let wishes = Wishes {
            bootstrap: serde_json::json!({"synchronous_mode": false}),
            ..Wishes::default()
        };
        wishing(root, &store, &keys, name, ports[port], wishes).await
    };
    let a = start("a", 0).await;
    until("a leads", limit, || a.is_open_primary()).await;
    let b = start("b", 1).await;
    a.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .expect("a row");
    let rows = || b.psql("SELECT count(*) FROM t");
    until("b has it", limit, || rows().as_deref() == Some("1")).await;
    b.handle.stop(agent::StopOrder::InOrder);
    b.task.await.expect("b stops");
    a.handle.stop(agent::StopOrder::InOrder);
    a.task.await.expect("a stops");

    let taken = TcpListener::bind(("127.0.0.1", ports[0])).expect("its port");
    let a = start("a", 0).await;
    let b = start("b", 1).await;
    until("b leads", limit, || b.is_open_primary()).await;
    drop(taken);
    until("a follows b", limit, || {
        a.state() == Some(ha::NodeState::Standby)
    })
    .await;
}

/// It began while nobody led, with a port. It can't write down whose WAL it would take: until it can, clients that know
/// several hosts must find nobody there, as they take the refusal of a node that lets nobody in for an answer.
pub(crate) async fn who_cannot_join_is_not_in_the_way(root: &Path, limit: Duration) {
    let store = MemoryStore::new();
    let keys = Keys::new("service", "away");
    let ports: [u16; 2] = free_ports();
    let start = async |name: &str, port: usize, tags: serde_json::Value| {
        let wishes = Wishes {
            bootstrap: serde_json::json!({"synchronous_mode": false}),
            tags,
            ..Wishes::default()
        };
        wishing(root, &store, &keys, name, ports[port], wishes).await
    };
    let never = serde_json::json!({"nofailover": true});
    let b = start("b", 1, serde_json::json!({})).await;
    until("b leads", limit, || b.is_open_primary()).await;
    let a = start("a", 0, never.clone()).await;
    until("a follows b", limit, || {
        a.state() == Some(ha::NodeState::Standby)
    })
    .await;
    for node in [a, b] {
        node.handle.stop(agent::StopOrder::InOrder);
        node.task.await.expect("it stops");
    }
    let obstacle = root.join("a/data/standfast.tmp");
    std::fs::create_dir(&obstacle).expect("a directory where the note is to be written");
    let is_there = || TcpStream::connect(("127.0.0.1", ports[0])).is_ok();
    let a = start("a", 0, never).await;
    until("a has a port, as nobody leads", limit, is_there).await;
    let b = start("b", 1, serde_json::json!({})).await;
    until("b leads", limit, || b.is_open_primary()).await;
    until("a is not in the way", limit, || !is_there()).await;
    std::fs::remove_dir(&obstacle).expect("it goes");
    until("a follows b", limit, || {
        a.state() == Some(ha::NodeState::Standby)
    })
    .await;
    assert!(is_there());
}
