//! Clones and rewinds, and what cutting them off leaves behind.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper fails as its test does; figures are for whoever reads the output"
)]

mod support;

use postgres::{
    CloneProgress, Compared, DataDir, PostgresError, Replace, Rewound, Stop, StreamTrouble, Work,
};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{LONG, Node, run, wait};
use tokio::sync::watch;

/// Processes with this text in their command line.
fn running(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let titles = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    titles
        .filter(|title| String::from_utf8_lossy(title).contains(text))
        .count()
}

#[test]
fn a_clone_that_was_cut_off_is_not_started_and_is_cloned_again() {
    run(
        "a_clone_that_was_cut_off_is_not_started_and_is_cloned_again",
        async {
            let primary = Node::primary("a").await;
            primary.insert(1).await;
            let mut node = Node::new("b");
            let mut slow = node.options.clone();
            slow.basebackup_args.push("--max-rate=8M".to_owned());
            node.instance = postgres::Instance::open(slow).unwrap();
            let (tell, mut told) = watch::channel(CloneProgress::default());
            let upstream = primary.upstream();
            let data_dir = node.options.data_dir.display().to_string();
            {
                let clone = node.instance.clone_from(&upstream, Replace::Refuse, tell);
                let seen = told.wait_for(|progress| progress.done_bytes > 0);
                tokio::select! {
                    cloned = clone => panic!("not cut off: {cloned:?}"),
                    seen = seen => assert!(seen.unwrap().total_bytes > 1 << 20),
                }
            }
            wait("pg_basebackup gone", async || {
                (running(&format!("pg_basebackup\0-D\0{data_dir}")) == 0).then_some(())
            })
            .await;
            assert_eq!(
                node.instance.data_dir().unwrap(),
                DataDir::Unfinished(Work::Clone)
            );
            let started = node.instance.start_standby(None, LONG).await;
            assert!(
                matches!(started, Err(PostgresError::Unusable { .. })),
                "{started:?}"
            );

            // The agent died with the program still at it: the next one ends it first.
            let mut left = Command::new("sleep")
                .arg("1000")
                .process_group(0)
                .spawn()
                .unwrap();
            let marker = node.options.state_dir.join("unfinished.json");
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", left.id())).unwrap();
            let start_time = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .nth(19)
                .unwrap();
            let text = format!(
                r#"{{"work":"clone","data_dir":"{data_dir}","program":{{"pid":{},"start_time":{start_time}}}}}"#,
                left.id()
            );
            std::fs::write(&marker, text).unwrap();
            node.instance = postgres::Instance::open(node.options.clone()).unwrap();
            node.clone_of(&primary).await;
            assert!(!left.wait().unwrap().success());
            assert!(!marker.exists());
            node.start_following(&primary).await;
            wait("row", async || (node.count().await == 1).then_some(())).await;
            let conf =
                std::fs::read_to_string(node.options.state_dir.join("postgresql.conf")).unwrap();
            assert!(
                !conf.contains("4711") && conf.contains("stream.passfile"),
                "{conf}"
            );
        },
    );
}

#[test]
fn a_clone_replaces_only_what_it_was_told_to() {
    run("a_clone_replaces_only_what_it_was_told_to", async {
        let primary = Node::primary("a").await;
        let node = Node::new("b");
        node.instance.init().await.unwrap();
        let (tell, _) = watch::channel(CloneProgress::default());
        let clone = async |replace| {
            node.instance
                .clone_from(&primary.upstream(), replace, tell.clone())
                .await
        };
        let (upstream, beside) = (node.upstream(), tell.clone());
        let running = primary
            .instance
            .clone_from(&upstream, Replace::Refuse, beside)
            .await;
        assert!(
            matches!(running, Err(PostgresError::Running { .. })),
            "{running:?}"
        );
        let refused = clone(Replace::Refuse).await;
        assert!(
            matches!(refused, Err(PostgresError::Unusable { .. })),
            "{refused:?}"
        );
        let wrong = clone(Replace::Cluster(ha::SystemId(1))).await;
        assert!(
            matches!(wrong, Err(PostgresError::WrongSystem { .. })),
            "{wrong:?}"
        );
        let DataDir::Ready(control) = node.instance.data_dir().unwrap() else {
            panic!("gone")
        };
        let cloned = clone(Replace::Cluster(control.system_id)).await.unwrap();
        assert_ne!(cloned, control.system_id);
        node.start_following(&primary).await;
        // A directory of somebody else's stays as it is.
        let other = Node::new("c");
        std::fs::create_dir(&other.options.data_dir).unwrap();
        let theirs = other.options.data_dir.join("thesis.txt");
        std::fs::write(&theirs, "years of work").unwrap();
        let refused = other
            .instance
            .clone_from(&primary.upstream(), Replace::Cluster(cloned), tell.clone())
            .await;
        assert!(
            matches!(refused, Err(PostgresError::Unusable { .. })),
            "{refused:?}"
        );
        assert!(other.instance.init().await.is_err());
        assert_eq!(std::fs::read_to_string(theirs).unwrap(), "years of work");
    });
}

#[test]
fn a_diverged_primary_is_rewound_and_tells_what_it_discards() {
    run(
        "a_diverged_primary_is_rewound_and_tells_what_it_discards",
        async {
            let old = Node::primary("a").await;
            let new = Node::standby("b", &old).await;
            old.insert(1).await;
            wait("row", async || (new.count().await == 1).then_some(())).await;
            new.instance.detach(LONG).await.unwrap();
            let end = new.instance.end_of_wal(LONG).await.unwrap();
            for n in 100..105 {
                old.insert(n).await;
            }
            // Rewound at once: the new primary has not had its checkpoint.
            new.instance.promote(LONG).await.unwrap();
            new.instance.access(postgres::Access::Open).await.unwrap();
            wait("open", async || new.try_client("app", None).await.ok()).await;
            new.insert(2).await;
            old.stop(Stop::Immediate).await;
            let refused = old.instance.rewind_from(&new.upstream()).await;
            assert!(
                matches!(refused, Err(PostgresError::Refused(_))),
                "{refused:?}"
            );
            // Told to follow as it is, it says why it can't.
            old.instance
                .start_standby(Some(new.upstream()), LONG)
                .await
                .unwrap();
            wait("diverged", async || {
                let failure = old.instance.stream_failure();
                let trouble = failure.and_then(|failure| failure.trouble);
                (trouble == Some(StreamTrouble::Diverged)).then_some(())
            })
            .await;
            old.instance.detach(LONG).await.unwrap();
            old.instance.end_of_wal(LONG).await.unwrap();
            old.stop(Stop::Fast).await;

            let rewound = old.instance.rewind_from(&new.upstream()).await.unwrap();
            let Rewound::Done(report) = rewound else {
                panic!("{rewound:?}")
            };
            println!("{report:?}");
            assert_eq!((report.fork, report.fork_timeline.0), (end.lsn, 1));
            assert_eq!(report.discarded.transactions, 5);
            assert!(report.discarded.first_commit <= report.discarded.last_commit);
            let saved = report.discarded.saved_in.unwrap();
            assert!(saved.join("summary.json").exists());
            assert!(std::fs::read_dir(&saved).unwrap().count() >= 2);
            old.start_following(&new).await;
            wait("rows", async || (old.count().await == 2).then_some(())).await;
            assert_eq!(old.sql("SELECT n FROM t ORDER BY n").await, ["1", "2"]);
            wait("timeline 2", async || {
                (old.probe().await.timeline.0 == 2).then_some(())
            })
            .await;
            assert!(old.log().contains("timeline 2"));

            // A planned change needs none: the new primary has everything of the old one.
            new.stop(Stop::Fast).await;
            old.instance.detach(LONG).await.unwrap();
            old.instance.end_of_wal(LONG).await.unwrap();
            old.instance.promote(LONG).await.unwrap();
            let rewound = new.instance.rewind_from(&old.upstream()).await.unwrap();
            assert_eq!(rewound, Rewound::NotNeeded);
            new.start_following(&old).await;
            wait("timeline 3", async || {
                (new.probe().await.timeline.0 == 3).then_some(())
            })
            .await;
        },
    );
}

#[test]
fn a_rewind_that_was_cut_off_needs_a_clone() {
    run("a_rewind_that_was_cut_off_needs_a_clone", async {
        let primary = Node::primary("a").await;
        let node = Node::standby("b", &primary).await;
        let stranger = Node::primary("x").await;
        node.stop(Stop::Fast).await;
        let wrong = node.instance.rewind_from(&stranger.upstream()).await;
        assert!(
            matches!(wrong, Err(PostgresError::WrongSystem { .. })),
            "{wrong:?}"
        );
        let marker = node.options.state_dir.join("unfinished.json");
        std::fs::write(&marker, "torn").unwrap();
        assert_eq!(
            node.instance.data_dir().unwrap(),
            DataDir::Unfinished(Work::Rewind)
        );
        assert!(node.instance.start_standby(None, LONG).await.is_err());
        assert!(node.instance.init().await.is_err());
        let rewound = node
            .instance
            .rewind_from(&primary.upstream())
            .await
            .unwrap();
        assert!(matches!(rewound, Rewound::NeedsClone { .. }), "{rewound:?}");
        node.clone_of(&primary).await;
        node.start_following(&primary).await;
    });
}

#[test]
fn a_wal_directory_elsewhere_stays_where_it_is() {
    run("a_wal_directory_elsewhere_stays_where_it_is", async {
        let wal = tempfile::tempdir_in("/tmp").unwrap();
        let mut primary = Node::new("a");
        let mut options = primary.options.clone();
        options
            .initdb_args
            .push(format!("--waldir={}", wal.path().join("wal").display()));
        primary.instance = postgres::Instance::open(options).unwrap();
        primary.instance.init().await.unwrap();
        primary.instance.probe_write(LONG).await.unwrap();
        let DataDir::Ready(control) = primary.instance.data_dir().unwrap() else {
            panic!("gone")
        };
        let source = Node::primary("s").await;
        let (tell, _) = watch::channel(CloneProgress::default());
        let replace = Replace::Cluster(control.system_id);
        primary
            .instance
            .clone_from(&source.upstream(), replace, tell)
            .await
            .unwrap();
        let link = std::fs::read_link(primary.options.data_dir.join("pg_wal")).unwrap();
        assert_eq!(link, wal.path().join("wal"));
        primary.start_following(&source).await;
    });
}

#[test]
fn a_timeline_that_is_missing_its_history_is_not_guessed() {
    run(
        "a_timeline_that_is_missing_its_history_is_not_guessed",
        async {
            let node = Node::new("a");
            assert!(
                node.instance
                    .timeline_history(ha::Timeline(1))
                    .unwrap()
                    .is_some()
            );
            assert!(
                node.instance
                    .timeline_history(ha::Timeline(9))
                    .unwrap()
                    .is_none()
            );
            assert!(Path::new(&node.options.state_dir).exists());
            tokio::time::timeout(Duration::from_secs(1), node.instance.postmaster_died())
                .await
                .unwrap();
        },
    );
}

/// Two standbys that are promoted at one point call their timelines by one number, and their history files are equal to
/// the byte.
#[test]
fn the_end_of_the_wal_tells_whose_it_is() {
    run("the_end_of_the_wal_tells_whose_it_is", async {
        let old = Node::primary("a").await;
        let (one, other) = (
            Node::standby("b", &old).await,
            Node::standby("c", &old).await,
        );
        let witness = Node::standby("d", &old).await;
        old.insert(1).await;
        for node in [&one, &other, &witness] {
            wait("row", async || (node.count().await == 1).then_some(())).await;
            node.instance.detach(LONG).await.unwrap();
        }
        let end = one.instance.end_of_wal(LONG).await.unwrap().lsn;
        assert_eq!(other.instance.end_of_wal(LONG).await.unwrap().lsn, end);
        old.insert(100).await;
        one.instance.promote(LONG).await.unwrap();
        other.instance.promote(LONG).await.unwrap();
        // At the point where they part it is everybody's.
        for leader in [&one, &other] {
            let compared = witness.instance.compare_wal(&leader.upstream(), LONG).await;
            assert_eq!(compared.unwrap(), Compared::Same { end });
        }
        witness.instance.follow(one.upstream()).await.unwrap();
        one.sql("INSERT INTO t VALUES (2)").await;
        wait("row", async || (witness.count().await == 2).then_some(())).await;
        witness.instance.detach(LONG).await.unwrap();
        let followed = witness.instance.end_of_wal(LONG).await.unwrap().lsn;
        assert!(followed > end);
        // The other one is further on, and its history reads the same.
        let more = "INSERT INTO t SELECT generate_series(1, 1000)";
        other.sql(more).await;
        let compared = witness.instance.compare_wal(&one.upstream(), LONG).await;
        assert_eq!(compared.unwrap(), Compared::Same { end: followed });
        let compared = witness.instance.compare_wal(&other.upstream(), LONG).await;
        let Compared::Unknown { why } = compared.unwrap() else {
            panic!("the numbers were believed");
        };
        assert!(why.contains("differ"), "{why}");
        // The first primary has gone on alone.
        old.stop(Stop::Immediate).await;
        old.instance.start_standby(None, LONG).await.unwrap();
        old.instance.end_of_wal(LONG).await.unwrap();
        let compared = old.instance.compare_wal(&one.upstream(), LONG).await;
        assert_eq!(compared.unwrap(), Compared::Parted { fork: end });
    });
}
