//! A server without a port of its own: nobody outside finds it, and whatever makes it useful brings its port back.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use postgres::{Access, PostgresError, Stop};
use support::{LONG, Node, run};
use tokio::net::TcpStream;

async fn is_found(node: &Node) -> bool {
    let address = ("127.0.0.1", node.options.port);
    TcpStream::connect(address).await.is_ok()
}

async fn crashed_and_secluded(name: &str) -> Node {
    let node = Node::primary(name).await;
    node.insert(1).await;
    node.stop(Stop::Immediate).await;
    node.instance.start_secluded(LONG).await.unwrap();
    let end = node.instance.end_of_wal(LONG).await.unwrap();
    assert_eq!(end.lsn, node.probe().await.flushed, "it answers its agent");
    assert!(!is_found(&node).await);
    node
}

#[test]
fn it_has_its_port_once_it_follows() {
    run("it_has_its_port_once_it_follows", async {
        let primary = Node::primary("a").await;
        let standby = Node::standby("b", &primary).await;
        standby.stop(Stop::Fast).await;
        standby.instance.start_secluded(LONG).await.unwrap();
        assert!(!is_found(&standby).await);
        // Its agent is another one by now.
        let standby = standby.again();
        standby.instance.follow(primary.upstream()).await.unwrap();
        standby.streams().await;
        standby.client().await;
        assert!(standby.probe().await.in_recovery);
    });
}

#[test]
fn it_is_not_promoted_without_its_port() {
    run("it_is_not_promoted_without_its_port", async {
        let node = crashed_and_secluded("a").await;
        let refused = node.instance.promote(LONG).await;
        assert!(
            matches!(refused, Err(PostgresError::Refused(_))),
            "{refused:?}"
        );
        node.instance.be_reachable(LONG).await.unwrap();
        assert!(is_found(&node).await);
        let postmaster = node.instance.liveness();
        node.instance.be_reachable(LONG).await.unwrap();
        assert_eq!(node.instance.liveness(), postmaster, "started once");
        node.instance.end_of_wal(LONG).await.unwrap();
        node.instance.promote(LONG).await.unwrap();
        node.instance.access(Access::Open).await.unwrap();
        assert_eq!(node.instance.liveness(), postmaster, "a primary stays");
        node.insert(2).await;
        assert_eq!(node.count().await, 2);
    });
}

#[test]
fn it_has_its_port_once_it_is_opened() {
    run("it_has_its_port_once_it_is_opened", async {
        let node = crashed_and_secluded("a").await;
        node.instance.access(Access::Open).await.unwrap();
        node.client().await;
        assert!(node.probe().await.in_recovery);
    });
}
