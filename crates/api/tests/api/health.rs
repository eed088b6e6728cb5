//! The health checks: which node says 200 on which path.

use crate::world::{World, name, now};
use ha::quorum::{Setting, SyncRecord};
use ha::{Epoch, Lsn, NodeState, Postgres, SyncMode};
use serde_json::json;
use std::time::Duration;
use store::Fault;

const PATHS: [&str; 21] = [
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/replica",
    "/read-only",
    "/sync",
    "/synchronous",
    "/read-only-sync",
    "/quorum",
    "/read-only-quorum",
    "/async",
    "/asynchronous",
    "/health",
    "/liveness",
    "/readiness",
    "/standby-leader",
    "/standby_leader",
    "/patroni",
    "/nosuch",
];

/// The paths that answer 200.
async fn passing(server: &crate::world::Server) -> String {
    let mut passing = Vec::new();
    for path in PATHS {
        let code = server.code(path).await;
        assert!(code == 200 || code == 503, "{path}: {code}");
        if code == 200 {
            passing.push(path);
        }
    }
    passing.join(" ")
}

/// Patroni: REST | health checks, their parameters and codes | work; `/primary` is 200 only while Postgres accepts
///   writes under the current epoch
/// Patroni: REST | `HEAD`, `OPTIONS` | work; headers are sent with the status
#[tokio::test]
async fn every_path_has_patronis_answer() {
    let world = World::three().await;
    let leader = world.serve("a").await;
    expect_test::expect![[
        "/ /primary /master /read-write /leader /read-only /read-only-sync /read-only-quorum /health /liveness /readiness /patroni"
    ]]
    .assert_eq(&passing(&leader).await);
    let standby = world.serve("b").await;
    expect_test::expect![[
        "/replica /read-only /quorum /read-only-quorum /health /liveness /readiness /patroni"
    ]]
    .assert_eq(&passing(&standby).await);
    let monitor = world.serve("monitor").await;
    expect_test::expect![["/liveness /readiness /patroni"]].assert_eq(&passing(&monitor).await);
}

/// Patroni: REST | `/standby-leader`, role `standby_leader`, `patroni_standby_leader` | work
#[tokio::test]
async fn the_leader_of_a_standby_cluster_is_no_primary_and_no_replica() {
    let world = World::three().await;
    let leader = world.serve("b").await;
    leader.publish(|served| {
        let cluster = served.cluster.as_mut().unwrap();
        let epoch = cluster.current_epoch();
        cluster.settings.remote = Some(ha::Remote {
            host: Some("far".to_owned()),
            ..ha::Remote::default()
        });
        cluster.leader = Some(name("b"));
        cluster.sync = None;
        let me = served.me.as_mut().unwrap();
        me.lease = Some(ha::Lease {
            epoch,
            deadline: now().plus(Duration::from_secs(60)),
            by_members: false,
        });
    });
    expect_test::expect![[
        "/leader /read-only /health /liveness /readiness /standby-leader /standby_leader /patroni"
    ]]
    .assert_eq(&passing(&leader).await);
    let status = leader.document::<serde_json::Value>("/patroni").await;
    assert_eq!(status["role"], "standby_leader");
    let members = leader.document::<serde_json::Value>("/cluster").await["members"].clone();
    let role = |wanted: &str| {
        let mut members = members.as_array().unwrap().iter();
        members.find(|it| it["name"] == wanted).unwrap()["role"].clone()
    };
    assert_eq!(
        (role("b"), role("c")),
        (json!("standby_leader"), json!("replica"))
    );
    leader.publish(|served| served.me.as_mut().unwrap().lease = None);
    assert_eq!(leader.code("/standby-leader").await, 503);
    assert_eq!(leader.code("/replica").await, 200, "it leads no more");
}

#[tokio::test]
async fn a_standby_is_sync_quorum_or_async_by_the_setting() {
    let world = World::three().await;
    let server = world.serve("b").await;
    let role = async || {
        let mut roles = Vec::new();
        for path in [
            "/sync",
            "/read-only-sync",
            "/quorum",
            "/read-only-quorum",
            "/async",
        ] {
            if server.code(path).await == 200 {
                roles.push(path);
            }
        }
        roles.join(" ")
    };
    assert_eq!(role().await, "/quorum /read-only-quorum");
    server.publish(|served| served.cluster.as_mut().unwrap().settings.sync_mode = SyncMode::On);
    assert_eq!(role().await, "/sync /read-only-sync");
    server.publish(|served| {
        let alone = SyncRecord::of(Setting::alone(name("a")));
        served.cluster.as_mut().unwrap().sync = Some(alone);
    });
    assert_eq!(role().await, "/async");
    server.publish(|served| served.cluster = None);
    assert_eq!(role().await, "", "nothing is known of the setting");
}

#[tokio::test]
async fn only_an_open_primary_under_a_living_lease_of_the_current_epoch_is_primary() {
    type Break = fn(&mut api::Served);
    let breaks: [(&str, Break); 9] = [
        ("the lease is over", |served| {
            served.me.as_mut().unwrap().lease.as_mut().unwrap().deadline = now();
        }),
        ("there is no lease", |served| {
            served.me.as_mut().unwrap().lease = None
        }),
        ("the lease is of another epoch", |served| {
            served.me.as_mut().unwrap().lease.as_mut().unwrap().epoch = Epoch(6);
        }),
        ("a newer epoch has begun", |served| {
            served
                .cluster
                .as_mut()
                .unwrap()
                .epoch
                .as_mut()
                .unwrap()
                .epoch = Epoch(8);
        }),
        ("another one leads", |served| {
            served.cluster.as_mut().unwrap().leader = Some(name("b"));
        }),
        ("nobody leads", |served| {
            served.cluster.as_mut().unwrap().leader = None
        }),
        ("the store was never seen", |served| served.cluster = None),
        ("clients are not let in yet", |served| {
            if let Postgres::Primary(primary) = &mut served.me.as_mut().unwrap().postgres {
                primary.open = false;
            }
        }),
        ("Postgres is gone", |served| {
            served.me.as_mut().unwrap().postgres = Postgres::Down { leftovers: 0 };
        }),
    ];
    let world = World::three().await;
    for (why, change) in breaks {
        let server = world.serve("a").await;
        assert_eq!(server.code("/primary").await, 200);
        server.publish(change);
        for path in ["/", "/primary", "/master", "/read-write", "/read-only"] {
            assert_eq!(server.code(path).await, 503, "{why}: {path}");
        }
    }
}

#[tokio::test]
async fn a_lease_that_ends_between_two_pictures_ends_the_primary() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let deadline = now().plus(Duration::from_secs(1));
    server
        .publish(|served| served.me.as_mut().unwrap().lease.as_mut().unwrap().deadline = deadline);
    assert_eq!(server.code("/primary").await, 200);
    loop {
        let before = now();
        let code = server.code("/primary").await;
        let after = now();
        assert!(
            code == 503 || before < deadline,
            "200 was answered after the deadline"
        );
        assert!(
            code == 200 || after >= deadline,
            "503 was answered before the deadline"
        );
        if code == 503 {
            break;
        }
    }
}

#[tokio::test]
async fn a_silent_store_takes_nothing_from_a_lease_that_lasts() {
    let world = World::three().await;
    let server = world.serve("a").await;
    world.store.set_fault(Fault::Unreachable);
    server.publish(|served| served.store_silent_for = Some(Duration::from_secs(1)));
    assert_eq!(server.code("/primary").await, 200);
    assert_eq!(server.code("/api/v1/state").await, 200);
    assert_eq!(server.code("/cluster").await, 200);
}

#[tokio::test]
async fn a_replica_is_open_near_and_not_withdrawn() {
    let world = World::three().await;
    let server = world.serve("b").await;
    server.publish(|served| {
        if let Postgres::Standby(standby) = &mut served.me.as_mut().unwrap().postgres {
            standby.replayed = Lsn(standby.received.0 - 1000);
        }
    });
    for (path, code) in [
        ("/replica", 200),
        ("/replica?lag=1000", 200),
        ("/replica?lag=999", 503),
        ("/replica?lag=1kB", 200),
        ("/replica?lag=16MB&replication_state=streaming", 200),
        ("/replica?replication_state=in%20archive%20recovery", 503),
        ("/replica?lag=nonsense", 200),
        ("/quorum?lag=10", 503),
        ("/read-only?lag=10", 503),
        ("/replica?tag_zone=x", 503),
        ("/readiness", 200),
        ("/readiness?lag=999", 503),
        ("/readiness?lag=999&mode=write", 200),
        ("/readiness?lag=999&mode=apply", 503),
    ] {
        assert_eq!(server.code(path).await, code, "{path}");
    }
    server.publish(|served| {
        served.tags.insert("zone".into(), json!("x"));
        served.tags.insert("n".into(), json!(1));
        served.tags.insert("flag".into(), json!(true));
    });
    assert_eq!(
        server
            .code("/replica?tag_zone=x&tag_n=1&tag_flag=true")
            .await,
        200
    );
    assert_eq!(server.code("/replica?tag_zone=y").await, 503);
    server.publish(|served| {
        served.tags.insert("noloadbalance".into(), json!(true));
    });
    assert_eq!(server.code("/replica").await, 503);
    server.publish(|served| {
        served.tags.clear();
        let node = served
            .cluster
            .as_mut()
            .unwrap()
            .nodes
            .get_mut(&name("b"))
            .unwrap();
        node.maintenance = true;
    });
    assert_eq!(server.code("/replica").await, 503);
}

#[tokio::test]
async fn a_loop_that_stands_still_is_not_live() {
    let world = World::three().await;
    let server = world.serve("a").await;
    server.publish(|served| served.loop_at = now().minus(Duration::from_secs(4)));
    assert_eq!(server.code("/liveness").await, 503);
    server.publish(|served| served.cluster.as_mut().unwrap().settings.paused = true);
    assert_eq!(server.code("/liveness").await, 200);
    let standby = world.serve("b").await;
    standby.publish(|served| served.loop_at = now().minus(Duration::from_secs(4)));
    assert_eq!(standby.code("/liveness").await, 200);
    standby.publish(|served| served.loop_at = now().minus(Duration::from_secs(7)));
    assert_eq!(standby.code("/liveness").await, 503);
}

#[tokio::test]
async fn only_the_first_segment_of_a_path_counts() {
    let world = World::three().await;
    let server = world.serve("a").await;
    assert_eq!(server.code("/primary/x/y").await, 200);
    assert_eq!(server.code("/replica/primary").await, 503);
}

/// The rate is what a test build on a busy machine still makes; what is proven is that the store is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_health_checks_do_not_touch_the_store() {
    let world = World::three().await;
    let server = world.serve("a").await;
    // Any call would fail now.
    world.store.set_fault(Fault::Unreachable);
    let began = std::time::Instant::now();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (client, url) = (server.client.clone(), server.url("/primary"));
            tokio::spawn(async move {
                for _ in 0..1250 {
                    let response = client.get(&url).send().await.expect("an answer");
                    assert_eq!(response.status(), 200);
                    response.bytes().await.expect("a body");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("all answered");
    }
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "10,000 health checks took {took:?}"
    );
}

/// Patroni: REST | `state` of Postgres, and `patroni_postgres_state` | works; `initdb failed`, `custom bootstrap failed` and
///   `stop failed` are never said: a founder tries again, and a stop goes on until it is one
#[tokio::test]
async fn postgres_is_named_as_patroni_names_it() {
    let world = World::three().await;
    let server = world.serve("b").await;
    let status = async || {
        let document: serde_json::Value = server.document("/patroni").await;
        let metrics = server.get("/metrics").await.text().await.unwrap();
        let number = metrics
            .lines()
            .find_map(|line| line.strip_prefix("patroni_postgres_state{"));
        let number = number.unwrap().split(' ').next_back().unwrap();
        format!(
            "{} {} {number}",
            document["role"].as_str().unwrap(),
            document["state"].as_str().unwrap()
        )
    };
    type Change = fn(&mut ha::NodeView);
    let cases: [(Change, &str); 12] = [
        (|_| {}, "replica running 5"),
        (
            |me| {
                me.errand = Some(ha::Errand::Restart);
                me.job = Some(ha::Job::Stop);
            },
            "replica restarting 9",
        ),
        (
            |me| {
                me.errand = Some(ha::Errand::Restarting);
                me.job = None;
                me.postgres = Postgres::Down { leftovers: 0 };
            },
            "replica restarting 9",
        ),
        (|me| me.start_failures = 1, "replica restart failed 10"),
        (
            |me| {
                me.start_failures = 0;
                me.postgres = Postgres::Starting;
            },
            "replica starting 6",
        ),
        (
            |me| {
                me.errand = None;
                me.postgres = Postgres::Standby(ha::Standby::default());
                me.job = Some(ha::Job::Stop);
            },
            "replica stopping 11",
        ),
        (
            |me| {
                me.job = None;
                me.postgres = Postgres::Starting;
            },
            "replica starting 6",
        ),
        (
            |me| me.postgres = Postgres::Down { leftovers: 0 },
            "replica stopped 12",
        ),
        (
            |me| me.postgres = Postgres::Down { leftovers: 3 },
            "replica crashed 14",
        ),
        (|me| me.start_failures = 2, "replica start failed 8"),
        (
            |me| me.job = Some(ha::Job::Clone),
            "uninitialized creating replica 4",
        ),
        (
            |me| me.job = Some(ha::Job::Bootstrap),
            "uninitialized initializing new cluster 0",
        ),
    ];
    for (change, expected) in cases {
        server.publish(|served| change(served.me.as_mut().unwrap()));
        assert_eq!(status().await, expected);
    }
    server.publish(|served| served.restores = true);
    let script = "uninitialized running custom bootstrap script 2";
    assert_eq!(status().await, script);
    server.publish(|served| served.me.as_mut().unwrap().postgres = Postgres::Starting);
    let starts = "uninitialized starting after custom bootstrap 7";
    assert_eq!(status().await, starts);
    assert_eq!(NodeState::ALL.len(), 13);
}
