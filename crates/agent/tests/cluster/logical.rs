//! A permanent logical slot over a change of leader, on the PostgreSQL of this machine and on one with failover slots.

use crate::node::{Node, Wishes, free_ports, until, wishing};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use store::MemoryStore;
use store::layout::Keys;

const SLOT: &str = "changes";

/// Patroni: Configuration | permanent `slots`, logical | works from PostgreSQL 17 on: as failover slots, whose readers
///   are held back by the synchronous standbys; on 13 to 16 a new primary makes the slot anew, and its reader misses
///   what it had not read by then
pub(crate) async fn a_logical_slot_goes_on(root: &Path, bin_dir: Option<&Path>, limit: Duration) {
    let store = MemoryStore::new();
    let keys = Keys::new("service", "logical");
    let ports: [u16; 2] = free_ports();
    let slots =
        json!({"changes": {"type": "logical", "database": "postgres", "plugin": "test_decoding"}});
    let start = async |name: &str, port: usize| {
        let wishes = Wishes {
            bin_dir: bin_dir.map(Path::to_owned),
            bootstrap: json!({"slots": slots}),
            parameters: vec![("wal_level", "logical")],
            ..Wishes::default()
        };
        wishing(root, &store, &keys, name, ports[port], wishes).await
    };
    let a = start("a", 0).await;
    until("a leads with its slot", limit, || has_slot(&a)).await;
    let b = start("b", 1).await;
    let counts = |leader: &Node, name: &str| {
        let names = leader.psql("SHOW synchronous_standby_names");
        names.is_some_and(|names| names.contains(&format!("{name}_e")))
    };
    until("b counts", limit, || counts(&a, "b")).await;
    a.psql("CREATE TABLE t (n int)").expect("a table");
    if bin_dir.is_some() {
        until("b has a copy of the slot", limit, || {
            let sql = "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = 'changes'";
            // The copy becomes durable when the primary's position is not before b's.
            let _ = a.psql("SELECT pg_logical_slot_get_changes('changes', NULL, NULL)");
            b.psql(sql).as_deref() == Some("t")
        })
        .await;
        until("readers wait for b", limit, || {
            a.psql("SHOW synchronized_standby_slots").as_deref() == Some("b_e1")
        })
        .await;
    }
    a.psql("INSERT INTO t VALUES (41)").expect("a row");
    a.kill_postmaster();
    until("b leads with the slot", limit, || {
        b.is_open_primary() && has_slot(&b)
    })
    .await;
    b.psql("INSERT INTO t VALUES (42)").expect("a row");
    let read = b
        .psql("SELECT data FROM pg_logical_slot_get_changes('changes', NULL, NULL)")
        .expect("changes");
    assert!(read.contains("n[integer]:42"), "{read}");
    assert_eq!(read.contains("n[integer]:41"), bin_dir.is_some(), "{read}");
    until("a follows", limit, || counts(&b, "a")).await;
    until("what a had as a primary is no more there", limit, || {
        let sql = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'";
        match bin_dir {
            None => a.psql(sql).as_deref() == Some("0"),
            Some(_) => a.psql(&format!("{sql} AND synced")).as_deref() == Some("1"),
        }
    })
    .await;
    for node in [a, b] {
        node.handle.stop(agent::StopOrder::AtOnce);
        let ended = tokio::time::timeout(limit, node.task).await;
        println!("{} ended: {ended:?}", node.name);
    }
}

fn has_slot(node: &Node) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND slot_type = 'logical'"
    );
    node.is_open_primary() && node.psql(&sql).as_deref() == Some("1")
}
