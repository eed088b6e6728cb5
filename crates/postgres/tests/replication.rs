//! Standbys: following by reload, detaching with proof, promotion, and the synchronous setting.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper fails as its test does; figures are for whoever reads the output"
)]

mod support;

use ha::{Lsn, NodeName};
use postgres::{PostgresError, SyncNames};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{LONG, Node, run, wait};

#[test]
fn a_detached_standby_receives_nothing_until_it_follows_again() {
    run(
        "a_detached_standby_receives_nothing_until_it_follows_again",
        async {
            let primary = Node::primary("a").await;
            let standby = Node::standby("b", &primary).await;
            primary.insert(1).await;
            wait("row", async || (standby.count().await == 1).then_some(())).await;
            let reader = standby.client().await;

            let began = Instant::now();
            let detached = standby.instance.detach(LONG).await.unwrap();
            println!("detach: {:?}", began.elapsed());
            assert_eq!(detached.timeline.0, 1);
            assert_eq!(detached.received_timeline.unwrap().0, 1);
            let end = standby.instance.end_of_wal(LONG).await.unwrap();
            println!("end of WAL: {:?}", began.elapsed());
            assert_eq!(end.lsn, detached.received);
            for n in 2..100 {
                primary.insert(n).await;
            }
            // Several times the retry interval, with a reload in it: nothing brings the receiver back.
            let end_of_watch = Instant::now() + Duration::from_millis(600);
            let mut reloaded = false;
            while Instant::now() < end_of_watch {
                let probe = standby.probe().await;
                assert!(probe.receiver.is_none() && !probe.has_upstream, "{probe:?}");
                assert_eq!(probe.flushed, detached.received);
                assert!(primary.probe().await.standbys.is_empty());
                if !reloaded {
                    standby.sql("SELECT pg_reload_conf()").await;
                    reloaded = true;
                }
            }
            standby.instance.follow(primary.upstream()).await.unwrap();
            wait("99 rows", async || {
                (standby.count().await == 99).then_some(())
            })
            .await;
            // The session has lived through all of it.
            let row = reader
                .query_one("SELECT count(*) FROM t", &[])
                .await
                .unwrap();
            assert_eq!(row.get::<_, i64>(0), 99);
            assert!(matches!(
                primary.instance.detach(LONG).await,
                Err(PostgresError::Refused(_))
            ));
        },
    );
}

#[test]
fn a_standby_is_promoted_and_another_follows_it() {
    run("a_standby_is_promoted_and_another_follows_it", async {
        let first = Node::primary("a").await;
        let (second, third) = tokio::join!(Node::standby("b", &first), Node::standby("c", &first));
        first.insert(1).await;
        for node in [&second, &third] {
            wait("row", async || (node.count().await == 1).then_some(())).await;
        }
        let session = third.client().await;
        first.stop(postgres::Stop::Immediate).await;
        let detached = second.instance.detach(LONG).await.unwrap();
        let end = second.instance.end_of_wal(LONG).await.unwrap();
        assert_eq!(end.lsn, detached.received);
        let took = second.instance.promote(LONG).await.unwrap();
        println!("promote: {took:?}");
        assert!(
            took < Duration::from_secs(3),
            "the retry interval of 5 s was waited for"
        );
        third.instance.follow(second.upstream()).await.unwrap();
        second.insert(2).await;
        wait("row", async || (third.count().await == 2).then_some(())).await;
        let probe = third.probe().await;
        assert_eq!(probe.timeline.0, 2);
        assert_eq!(probe.receiver.unwrap().timeline.unwrap().0, 2);
        session.simple_query("SELECT 1").await.unwrap();

        let info = third
            .instance
            .upstream_info(&second.upstream(), LONG)
            .await
            .unwrap();
        assert_eq!((info.timeline.0, info.in_recovery), (2, false));
        let switch = &info.history.switches[0];
        assert_eq!((switch.timeline.0, switch.end), (1, end.lsn));
    });
}

#[test]
fn the_synchronous_setting_is_in_force_when_applied() {
    run("the_synchronous_setting_is_in_force_when_applied", async {
        let primary = Node::primary("a").await;
        let (b, c) = tokio::join!(Node::standby("b.1", &primary), Node::standby("c", &primary));
        let apply = async |names: &SyncNames| {
            let applied = primary.instance.apply_sync(names, LONG).await.unwrap();
            println!("apply {:?}: {:?}", names.setting(), applied.took);
            assert!(applied.barrier <= primary.probe().await.flushed);
            assert_eq!(primary.probe().await.sync_names, names.setting());
        };
        apply(&Node::any_one(&[&b, &c])).await;
        primary.insert(1).await;
        // To nobody and back: the checkpointer must have noticed, or commits do not wait.
        let absent = SyncNames::any(1, [NodeName::new("absent").unwrap()]);
        for round in 0..20 {
            apply(&SyncNames::none()).await;
            primary.insert(round).await;
            apply(&absent).await;
            let client = primary.client().await;
            let cancel = client.cancel_token();
            let insert =
                tokio::spawn(async move { client.execute("INSERT INTO t VALUES (-1)", &[]).await });
            wait("a waiting commit", async || {
                assert!(
                    !insert.is_finished(),
                    "a commit did not wait for the absent standby"
                );
                (primary.probe().await.sync_waiters == 1).then_some(())
            })
            .await;
            if round == 19 {
                // Names that are there release it.
                apply(&Node::any_one(&[&b])).await;
                insert.await.unwrap().unwrap();
            } else {
                cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
                insert.await.unwrap().unwrap();
            }
        }
        apply(&SyncNames::any(2, [b.name(), c.name()])).await;
        primary.insert(2).await;
        let states = primary.probe().await.standbys;
        assert!(
            states
                .iter()
                .all(|s| s.sync_state.as_deref() == Some("quorum")),
            "{states:?}"
        );
        // A standby can be given its setting before it is promoted.
        b.instance
            .apply_sync(&Node::any_one(&[&c]), LONG)
            .await
            .unwrap();
    });
}

#[test]
fn the_setting_is_proven_with_a_standby_that_hangs_and_under_load() {
    run(
        "the_setting_is_proven_with_a_standby_that_hangs_and_under_load",
        async {
            let primary = Node::primary("a").await;
            let (b, c) = tokio::join!(Node::standby("b", &primary), Node::standby("c", &primary));
            primary
                .instance
                .apply_sync(&Node::any_one(&[&b, &c]), LONG)
                .await
                .unwrap();
            let load: Vec<_> = (0..3)
                .map(|_| {
                    let upstream = primary.upstream();
                    tokio::spawn(async move {
                        let config = format!(
                            "host=127.0.0.1 port={} user=app dbname=postgres",
                            upstream.port
                        );
                        let (client, connection) =
                            tokio_postgres::connect(&config, tokio_postgres::NoTls)
                                .await
                                .unwrap();
                        tokio::spawn(connection);
                        loop {
                            client
                                .execute("INSERT INTO t VALUES (7)", &[])
                                .await
                                .unwrap();
                        }
                    })
                })
                .collect();
            // The receiver of c stops in its tracks: it answers nothing, and its connection stays.
            let receiver = c.probe().await.receiver.unwrap().pid;
            let pid = rustix::process::Pid::from_raw(receiver).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            let checkpoint = primary.sql("CHECKPOINT");
            let apply = async {
                for names in [
                    Node::any_one(&[&b]),
                    Node::any_one(&[&c, &b]),
                    Node::any_one(&[&b]),
                ] {
                    let limit = Duration::from_secs(4);
                    let applied = primary.instance.apply_sync(&names, limit).await.unwrap();
                    println!("apply under load: {:?}", applied.took);
                }
            };
            tokio::join!(checkpoint, apply);
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
            for task in load {
                task.abort();
            }
        },
    );
}

#[test]
fn slots_are_kept_on_every_node() {
    run("slots_are_kept_on_every_node", async {
        let primary = Node::primary("a").await;
        let standby = Node::standby("b", &primary).await;
        primary
            .sql("SELECT pg_create_physical_replication_slot('theirs')")
            .await;
        let wanted = |names: &[&str], at: Option<Lsn>| -> BTreeMap<String, Option<Lsn>> {
            names.iter().map(|name| ((*name).to_owned(), at)).collect()
        };
        for node in [&primary, &standby] {
            let changes = node
                .instance
                .ensure_slots(&wanted(&["b", "c"], None), LONG)
                .await
                .unwrap();
            assert_eq!(changes.created, ["b", "c"]);
        }
        let mut upstream = primary.upstream();
        upstream.slot = Some("late".to_owned());
        let missing = standby
            .instance
            .upstream_slot(&upstream, Duration::from_millis(200))
            .await;
        assert!(
            matches!(missing, Err(PostgresError::Timeout { .. })),
            "{missing:?}"
        );
        let make = primary.sql("SELECT pg_create_physical_replication_slot('late')");
        let (there, _) = tokio::join!(standby.instance.upstream_slot(&upstream, LONG), make);
        there.unwrap();
        primary.sql("SELECT pg_drop_replication_slot('late')").await;
        upstream.slot = Some("b".to_owned());
        standby.instance.follow(upstream).await.unwrap();
        wait("slot in use", async || {
            let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = 'b'";
            (primary.sql(sql).await == ["t"]).then_some(())
        })
        .await;
        primary.insert(1).await;
        wait("row", async || (standby.count().await == 1).then_some(())).await;
        let at = standby.probe().await.replayed;
        let changes = standby
            .instance
            .ensure_slots(&wanted(&["b", "c"], at), LONG)
            .await
            .unwrap();
        assert_eq!(changes.advanced, ["b", "c"]);
        let changes = primary
            .instance
            .ensure_slots(&wanted(&["b"], None), LONG)
            .await
            .unwrap();
        assert_eq!(changes.dropped, ["c"]);
        // One in use is not dropped, and never what somebody else made.
        let changes = primary
            .instance
            .ensure_slots(&wanted(&[], None), LONG)
            .await
            .unwrap();
        assert!(changes.dropped.is_empty(), "{changes:?}");
        let names = "SELECT slot_name FROM pg_replication_slots ORDER BY 1";
        assert_eq!(primary.sql(names).await, ["b", "theirs"]);
    });
}

/// Stops a process in its tracks for as long as this lives.
struct Frozen(rustix::process::Pid);

impl Frozen {
    fn new(pid: i32) -> Self {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

#[test]
fn who_has_not_read_the_setting_is_waited_for() {
    run("who_has_not_read_the_setting_is_waited_for", async {
        let primary = Node::primary("a").await;
        let standby = Node::standby("b", &primary).await;
        let limit = Duration::from_millis(600);
        let absent = SyncNames::any(1, [NodeName::new("absent").unwrap()]);
        let pid = |sql: &'static str| {
            let rows = primary.sql(sql);
            async move { rows.await[0].parse::<i32>().unwrap() }
        };
        // The checkpointer decides whether commits wait at all.
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let frozen = Frozen::new(pid(sql).await);
        let applied = primary.instance.apply_sync(&absent, limit).await;
        assert!(
            matches!(applied, Err(PostgresError::Timeout { .. })),
            "{applied:?}"
        );
        drop(frozen);
        primary
            .instance
            .apply_sync(&Node::any_one(&[&standby]), LONG)
            .await
            .unwrap();
        // A walsender counts by what it has read.
        let frozen = Frozen::new(pid("SELECT pid FROM pg_stat_replication").await);
        let applied = primary.instance.apply_sync(&absent, limit).await;
        assert!(
            matches!(applied, Err(PostgresError::Timeout { .. })),
            "{applied:?}"
        );
        drop(frozen);
        primary.instance.apply_sync(&absent, LONG).await.unwrap();
    });
}

#[test]
fn a_receiver_that_can_not_be_ended_is_not_called_gone() {
    run(
        "a_receiver_that_can_not_be_ended_is_not_called_gone",
        async {
            let primary = Node::primary("a").await;
            let standby = Node::standby("b", &primary).await;
            let frozen = Frozen::new(standby.probe().await.receiver.unwrap().pid);
            let detached = standby.instance.detach(Duration::from_millis(600)).await;
            assert!(
                matches!(detached, Err(PostgresError::Timeout { .. })),
                "{detached:?}"
            );
            drop(frozen);
            let detached = standby.instance.detach(LONG).await.unwrap();
            primary.insert(1).await;
            assert_eq!(standby.probe().await.flushed, detached.received);
            // A standby that has never streamed, and one that restarts detached, know their end by waiting.
            standby.stop(postgres::Stop::Fast).await;
            standby.instance.start_standby(None, LONG).await.unwrap();
            let again = standby.instance.detach(LONG).await.unwrap();
            assert!(!again.end_known);
            let end = standby.instance.end_of_wal(LONG).await.unwrap();
            assert_eq!(
                (end.lsn, end.timeline),
                (detached.replayed, detached.timeline)
            );
        },
    );
}

#[test]
fn a_paused_replay_is_not_the_end_of_the_wal() {
    run("a_paused_replay_is_not_the_end_of_the_wal", async {
        let primary = Node::primary("a").await;
        let standby = Node::standby("b", &primary).await;
        standby.sql("SELECT pg_wal_replay_pause()").await;
        wait("paused", async || {
            standby.probe().await.replay_paused.then_some(())
        })
        .await;
        primary.insert(1).await;
        wait("received", async || {
            let probe = standby.probe().await;
            (probe.received > probe.replayed).then_some(())
        })
        .await;
        let detached = standby.instance.detach(LONG).await.unwrap();
        assert!(!detached.end_known && detached.received > detached.replayed);
        let end = standby
            .instance
            .end_of_wal(Duration::from_millis(600))
            .await;
        assert!(matches!(end, Err(PostgresError::Timeout { .. })), "{end:?}");
        standby.sql("SELECT pg_wal_replay_resume()").await;
        let end = standby.instance.end_of_wal(LONG).await.unwrap();
        assert_eq!(end.lsn, detached.received);
        assert_eq!(standby.count().await, 1);
    });
}
