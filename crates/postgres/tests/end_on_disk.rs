//! The end of the WAL as the files tell it is the one that a start then finds.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use ha::Lsn;
use postgres::{EndOfWal, Stop};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use support::{LONG, Node, run, wait};

async fn told(node: &Node) -> Option<EndOfWal> {
    node.instance.end_on_disk(LONG).await
}

/// Told from the files of a stopped node, found by a start of it, which is stopped `how`.
async fn found(node: &Node, what: &str, how: Stop) -> EndOfWal {
    let told = told(node).await;
    node.instance.start_standby(None, LONG).await.unwrap();
    let found = node.instance.end_of_wal(LONG).await.unwrap();
    assert_eq!(told, Some(found), "{what}");
    node.stop(how).await;
    found
}

#[test]
fn a_primarys_end_is_known_before_it_starts() {
    run("a_primarys_end_is_known_before_it_starts", async {
        let node = Node::primary("a").await;
        assert_eq!(told(&node).await, None, "it runs");
        node.insert(1).await;
        node.stop(Stop::Fast).await;
        found(&node, "stopped", Stop::Fast).await;
        // Nothing has come to it since: a standby's stop ends where the primary's did.
        let end = found(&node, "stopped as a standby", Stop::Immediate).await;
        found(&node, "killed as a standby", Stop::Immediate).await;

        promote(&node).await;
        node.sql("INSERT INTO t SELECT generate_series(2, 50000)")
            .await;
        node.stop(Stop::Immediate).await;
        let killed = found(&node, "killed", Stop::Fast).await;
        assert!(killed.lsn > end.lsn && killed.timeline.0 == 2, "{killed:?}");

        promote(&node).await;
        node.sql("SELECT pg_switch_wal()").await;
        node.stop(Stop::Immediate).await;
        let switched = found(&node, "killed behind a switch", Stop::Fast).await;
        assert!(switched.lsn > killed.lsn, "{switched:?}");
    });
}

async fn promote(node: &Node) {
    node.instance.start_standby(None, LONG).await.unwrap();
    node.instance.end_of_wal(LONG).await.unwrap();
    node.instance.promote(LONG).await.unwrap();
    node.instance.access(postgres::Access::Open).await.unwrap();
    node.instance.serve_streams(true).await.unwrap();
}

#[test]
fn a_standbys_end_is_what_it_received() {
    run("a_standbys_end_is_what_it_received", async {
        let primary = Node::primary("a").await;
        let standby = Node::standby("b", &primary).await;
        for how in [Stop::Fast, Stop::Immediate] {
            standby.sql("SELECT pg_wal_replay_pause()").await;
            wait("paused", async || {
                standby.probe().await.replay_paused.then_some(())
            })
            .await;
            primary
                .sql("INSERT INTO t SELECT generate_series(1, 20000)")
                .await;
            let sent = primary.probe().await.flushed;
            let behind = wait("received", async || {
                let probe = standby.probe().await;
                let replayed = probe.replayed.unwrap();
                (probe.flushed >= sent).then_some(replayed)
            })
            .await;
            standby.stop(how).await;
            let end = found(&standby, "with WAL to replay", how).await;
            assert!(behind < sent && end.lsn >= sent, "{behind} {sent} {end:?}");
            standby.start_following(&primary).await;
            standby.streams().await;
        }
    });
}

#[test]
fn the_end_is_on_the_newest_timeline_or_unknown() {
    run("the_end_is_on_the_newest_timeline_or_unknown", async {
        let first = Node::primary("a").await;
        let second = Node::standby("b", &first).await;
        let third = Node::standby("c", &first).await;
        first.insert(1).await;
        first.stop(Stop::Fast).await;
        second.instance.detach(LONG).await.unwrap();
        second.instance.promote(LONG).await.unwrap();
        second.instance.serve_streams(true).await.unwrap();
        third.instance.detach(LONG).await.unwrap();
        third.instance.follow(second.upstream()).await.unwrap();
        second.insert(2).await;
        wait("row", async || (third.count().await == 2).then_some(())).await;
        third.stop(Stop::Fast).await;
        let end = found(&third, "behind a switch of timelines", Stop::Fast).await;
        assert_eq!(end.timeline.0, 2);

        let known = told(&third).await.unwrap();
        let wal = third.options.data_dir.join("pg_wal");
        let history = wal.join("00000003.history");
        std::fs::write(&history, "1\t0/1\tx\n").unwrap();
        assert_eq!(told(&third).await, None, "another timeline may follow");
        std::fs::remove_file(&history).unwrap();
        let label = third.options.data_dir.join("backup_label");
        std::fs::write(&label, "START WAL LOCATION: 0/0\n").unwrap();
        assert_eq!(told(&third).await, None, "a backup begins elsewhere");
        std::fs::remove_file(&label).unwrap();
        assert_eq!(told(&third).await, Some(known));
        // What the control file is certain of is not there.
        let segment = std::fs::read_dir(&wal).unwrap().flatten();
        let segments = segment.filter(|it| it.file_name().len() == 24);
        for segment in segments {
            let file = std::fs::File::options().write(true).open(segment.path());
            file.unwrap().set_len(0).unwrap();
        }
        assert_eq!(told(&third).await, None, "its WAL is gone");
        std::fs::rename(&wal, wal.with_extension("away")).unwrap();
        assert_eq!(told(&third).await, None, "its WAL can't be listed");
        assert!(known.lsn > Lsn(0));
    });
}

#[test]
fn a_disk_that_hangs_holds_up_nobody_else() {
    run("a_disk_that_hangs_holds_up_nobody_else", async {
        let mut node = Node::primary("a").await;
        node.stop(Stop::Fast).await;
        let programs = node.instance.binaries().dir.clone();
        let slow = tempfile::tempdir_in("/tmp").unwrap();
        for program in std::fs::read_dir(&programs).unwrap().flatten() {
            let path = slow.path().join(program.file_name());
            std::os::unix::fs::symlink(program.path(), path).unwrap();
        }
        let control = slow.path().join("pg_controldata");
        std::fs::remove_file(&control).unwrap();
        let real = programs.join("pg_controldata");
        let text = format!("#!/bin/sh\nsleep 3\nexec {} \"$@\"\n", real.display());
        std::fs::write(&control, text).unwrap();
        std::fs::set_permissions(&control, Permissions::from_mode(0o755)).unwrap();
        node.options.bin_dir = Some(slow.path().to_owned());
        let node = node.again();

        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        let ticks = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        };
        tokio::select! {
            end = told(&node) => assert!(end.is_some(), "it only takes its time"),
            () = ticks => {}
        }
        longest = longest.max(last.elapsed());
        assert!(longest < Duration::from_secs(2), "{longest:?}");
    });
}

#[test]
fn where_there_is_an_archive_only_a_start_can_tell() {
    run("where_there_is_an_archive_only_a_start_can_tell", async {
        let primary = Node::primary("a").await;
        let standby = Node::standby("b", &primary).await;
        primary.insert(1).await;
        standby.stop(Stop::Fast).await;
        let alone = told(&standby).await.unwrap();
        // The primary goes on without it, archives, and is lost.
        primary.insert(2).await;
        primary.sql("SELECT pg_switch_wal()").await;
        primary.insert(3).await;
        let archive = tempfile::tempdir_in("/tmp").unwrap();
        let wal = primary.options.data_dir.join("pg_wal");
        for segment in std::fs::read_dir(wal).unwrap().flatten() {
            if segment.file_name().len() == 24 {
                let copy = archive.path().join(segment.file_name());
                std::fs::copy(segment.path(), copy).unwrap();
            }
        }
        let command = format!(
            "restore_command = 'cp {}/%f %p'\n",
            archive.path().display()
        );
        for file in ["postgresql.conf", "postgresql.auto.conf"] {
            let file = standby.options.data_dir.join(file);
            let before = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, format!("{before}{command}")).unwrap();
            assert_eq!(told(&standby).await, None, "{}", file.display());
            std::fs::write(&file, before).unwrap();
        }
        assert_eq!(told(&standby).await, Some(alone));
        let file = standby.options.data_dir.join("postgresql.conf");
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{before}{command}")).unwrap();
        let started = standby.instance.start_standby(None, LONG).await;
        started.unwrap();
        let found = standby.instance.end_of_wal(LONG).await.unwrap();
        assert!(found.lsn > alone.lsn, "{found:?} {alone:?}");
    });
}

#[test]
fn a_name_that_looks_like_a_record_is_none() {
    run("a_name_that_looks_like_a_record_is_none", async {
        let mut node = Node::new("a");
        let prepared = ("max_prepared_transactions".to_owned(), "1".to_owned());
        node.options.parameters.extend([prepared]);
        let node = Node::started(node.again()).await;
        let earlier = node.probe().await.flushed;
        let client = node.client().await;
        let gid = format!("\nrmgr: XLOG len (rec/tot): 24/24, lsn: {earlier}, desc: NOOP");
        let sql = format!("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '{gid}'");
        client.batch_execute(&sql).await.unwrap();
        node.stop(Stop::Immediate).await;
        let end = found(&node, "a transaction is prepared", Stop::Fast).await;
        assert!(end.lsn.0 > earlier.0 + 24, "{end:?} {earlier}");
    });
}
