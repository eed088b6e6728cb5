//! Parameters that a standby must not have less of than its primary, raised and lowered in the wrong order.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper fails as its test does; figures are for whoever reads the output"
)]

mod support;

use postgres::{Access, Liveness, Started, Stop};
use support::{LONG, Node, run, wait};

const CHANGED: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

async fn ask_for(node: &Node, least: u64) {
    let mut parameters = node.options.parameters.clone();
    for (name, more) in CHANGED.iter().zip(0..) {
        parameters.insert((*name).to_owned(), (least + more).to_string());
    }
    let (hba, ident) = (node.options.pg_hba.clone(), node.options.pg_ident.clone());
    node.instance
        .configure(parameters, hba, ident)
        .await
        .unwrap();
}

async fn shown(node: &Node) -> Vec<u64> {
    let mut shown = Vec::new();
    for name in CHANGED {
        shown.push(node.sql(&format!("SHOW {name}")).await[0].parse().unwrap());
    }
    shown
}

/// As the agent restarts a primary: parked, then promoted.
async fn restart_as_primary(node: &Node) {
    node.stop(Stop::Fast).await;
    let started = node.instance.start_standby(None, LONG).await.unwrap();
    assert_eq!(started, Started::Accepting);
    node.instance.end_of_wal(LONG).await.unwrap();
    if node.instance.has_too_much().await {
        node.instance.start_for_promotion(LONG).await.unwrap();
    }
    node.instance.promote(LONG).await.unwrap();
    node.instance.access(Access::Open).await.unwrap();
}

async fn pending(node: &Node) -> Vec<String> {
    let pending = node.probe().await.pending_restart;
    let said = pending.iter();
    said.map(|it| format!("{} {} {}", it.name, it.running, it.wanted))
        .collect()
}

#[test]
fn what_a_primary_is_given_or_loses_never_stops_a_standby_for_good() {
    run(
        "what_a_primary_is_given_or_loses_never_stops_a_standby_for_good",
        async {
            let primary = Node::primary("a").await;
            ask_for(&primary, 70).await;
            restart_as_primary(&primary).await;
            let standby = Node::standby("b", &primary).await;
            assert_eq!(shown(&standby).await, [70, 71, 72, 73, 74]);

            // More, on the primary first: the standby can't go on with what it has.
            ask_for(&primary, 90).await;
            restart_as_primary(&primary).await;
            assert_eq!(shown(&primary).await, [90, 91, 92, 93, 94]);
            primary.insert(1).await;
            wait("the standby stops or starves", async || {
                match standby.instance.probe(LONG).await {
                    Ok(probe) => probe.starved.inspect(|why| println!("{why}")),
                    // Before 14 it ends.
                    Err(_) => (standby.instance.liveness() == Liveness::Down).then(String::new),
                }
            })
            .await;
            standby.stop(Stop::Fast).await;
            standby.start_following(&primary).await;
            assert_eq!(shown(&standby).await, [90, 91, 92, 93, 94]);
            wait("row", async || (standby.count().await == 1).then_some(())).await;
            assert_eq!(standby.probe().await.starved, None);

            // Less, on the standby first: it stays where the primary is, and no restart would change that.
            ask_for(&standby, 80).await;
            standby.stop(Stop::Fast).await;
            standby.start_following(&primary).await;
            assert_eq!(shown(&standby).await, [90, 91, 92, 93, 94]);
            assert_eq!(pending(&standby).await, [""; 0]);

            // Then on the primary, and the standby may follow.
            ask_for(&primary, 80).await;
            wait("a restart is pending on the primary", async || {
                let said = pending(&primary).await;
                (said.len() == 5 && said[0] == "max_connections 90 80").then_some(())
            })
            .await;
            restart_as_primary(&primary).await;
            assert_eq!(shown(&primary).await, [80, 81, 82, 83, 84]);
            primary.insert(2).await;
            wait("a restart is pending on the standby", async || {
                let said = pending(&standby).await;
                (said.len() == 5 && said[4] == "max_worker_processes 91 81").then_some(())
            })
            .await;
            standby.stop(Stop::Fast).await;
            standby.start_following(&primary).await;
            assert_eq!(shown(&standby).await, [80, 81, 82, 83, 84]);
            wait("rows", async || (standby.count().await == 2).then_some(())).await;
        },
    );
}

#[test]
fn what_prepared_transactions_need_is_not_taken_from_them() {
    run(
        "what_prepared_transactions_need_is_not_taken_from_them",
        async {
            let primary = Node::primary("a").await;
            ask_for(&primary, 40).await;
            restart_as_primary(&primary).await;
            for n in 0..3 {
                primary
                    .sql(&format!(
                        "BEGIN; INSERT INTO t VALUES ({n}); PREPARE TRANSACTION 'p{n}'"
                    ))
                    .await;
            }
            let mut parameters = primary.options.parameters.clone();
            parameters.insert("max_prepared_transactions".to_owned(), "1".to_owned());
            let hba = primary.options.pg_hba.clone();
            let configured = primary.instance.configure(parameters, hba, Vec::new());
            configured.await.unwrap();
            primary.stop(Stop::Fast).await;
            primary.instance.start_standby(None, LONG).await.unwrap();
            primary.instance.end_of_wal(LONG).await.unwrap();
            assert!(primary.instance.has_too_much().await);
            let started = primary.instance.start_for_promotion(LONG).await;
            let promoted = match started {
                Ok(()) => primary.instance.promote(LONG).await.map(drop),
                Err(error) => Err(error),
            };
            promoted.unwrap_err();
            // What the agent does next is not stopped by it again.
            primary.instance.start_standby(None, LONG).await.unwrap();
            assert!(!primary.instance.has_too_much().await);
            primary.instance.promote(LONG).await.unwrap();
            primary.sql("COMMIT PREPARED 'p2'").await;
            assert_eq!(primary.count().await, 1);
        },
    );
}
