//! The documents: Patroni's by field and order, ours by type.

use crate::world::{Server, World, name, text, until};
use api::v1;
use expect_test::{Expect, expect};
use ha::quorum::{Setting, SyncRecord};
use ha::{Epoch, Lineage, Lsn, NodeState, Postgres, Promise, Timeline};
use serde_json::{Value, json};
use std::time::Duration;
use store::Txn;
use store::layout::{EpochRecord, PromiseRecord, SyncValue};

/// The body, with the times of this moment taken out.
async fn check(server: &Server, path: &str, expected: Expect) {
    let body = server.get(path).await.text().await.expect("a body");
    let mut body = body.replace(", ", ",\n ").replace("}, {", "},\n {");
    for field in ["\"dcs_last_seen\": ", "\"lease_left_ms\": ", "\"age_ms\": "] {
        if let Some(at) = body.find(field) {
            let from = at + field.len();
            let digits = body[from..]
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(0);
            body.replace_range(from..from + digits, "…");
        }
    }
    expected.assert_eq(&body);
}

#[tokio::test]
async fn the_status_document_is_patronis_and_more() {
    let world = World::three().await;
    check(
        &world.serve("a").await,
        "/patroni",
        expect![[r#"
        {"state": "running",
         "postmaster_start_time": "2026-11-21 23:46:58.047674+00:00",
         "role": "primary",
         "server_version": 150018,
         "xlog": {"location": 67393864},
         "timeline": 2,
         "replication": [{"usename": "rep",
         "application_name": "b",
         "client_addr": "127.0.0.1",
         "state": "streaming",
         "sync_state": "quorum",
         "sync_priority": 1}],
         "dcs_last_seen": …,
         "database_system_identifier": "7710775333835992131",
         "patroni": {"version": "4.1.5",
         "scope": "demo",
         "name": "a"},
         "primary": {"name": "a",
         "host": "127.0.0.1",
         "port": 7101},
         "standfast": {"epoch": 7,
         "state": "primary",
         "reason": "the leader of epoch 7,
         commits need a with 1 of (b,
         c)",
         "lease_left_ms": …}}"#]],
    )
    .await;
    check(
        &world.serve("b").await,
        "/replica",
        expect![[r#"
        {"state": "running",
         "postmaster_start_time": "2026-11-21 23:46:58.047674+00:00",
         "role": "replica",
         "server_version": 150018,
         "xlog": {"received_location": 67393864,
         "replayed_location": 67393864,
         "replayed_timestamp": null,
         "paused": false},
         "quorum_standby": true,
         "timeline": 2,
         "replication_state": "streaming",
         "dcs_last_seen": …,
         "database_system_identifier": "7710775333835992131",
         "patroni": {"version": "4.1.5",
         "scope": "demo",
         "name": "b"},
         "primary": {"name": "a",
         "host": "127.0.0.1",
         "port": 7101},
         "standfast": {"epoch": 7,
         "state": "standby",
         "reason": "the leader of epoch 7,
         commits need a with 1 of (b,
         c)"}}"#]],
    )
    .await;
    check(
        &world.serve("monitor").await,
        "/patroni",
        expect![[r#"
        {"state": "stopped",
         "role": "uninitialized",
         "dcs_last_seen": …,
         "database_system_identifier": "7710775333835992131",
         "patroni": {"version": "4.1.5",
         "scope": "demo",
         "name": "monitor"},
         "primary": {"name": "a",
         "host": "127.0.0.1",
         "port": 7101},
         "standfast": {"epoch": 7,
         "witness": true}}"#]],
    )
    .await;
}

#[tokio::test]
async fn the_cluster_document_is_patronis_and_more() {
    let world = World::three().await;
    check(
        &world.serve("b").await,
        "/cluster",
        expect![[r#"
        {"members": [{"name": "a",
         "role": "leader",
         "state": "running",
         "api_url": "http://127.0.0.1:7001/patroni",
         "host": "127.0.0.1",
         "port": 7101,
         "timeline": 2},
         {"name": "b",
         "role": "quorum_standby",
         "state": "streaming",
         "api_url": "http://127.0.0.1:7002/patroni",
         "host": "127.0.0.1",
         "port": 7102,
         "timeline": 2,
         "receive_lag": 0,
         "receive_lsn": "0/4045948",
         "replay_lag": 0,
         "replay_lsn": "0/4045948",
         "lag": 0,
         "lsn": "0/4045948"},
         {"name": "c",
         "role": "quorum_standby",
         "state": "streaming",
         "api_url": "http://127.0.0.1:7003/patroni",
         "host": "127.0.0.1",
         "port": 7103,
         "timeline": 2,
         "receive_lag": 0,
         "receive_lsn": "0/4045948",
         "replay_lag": 0,
         "replay_lsn": "0/4045948",
         "lag": 0,
         "lsn": "0/4045948"}],
         "scope": "demo",
         "primary": {"name": "a",
         "host": "127.0.0.1",
         "port": 7101},
         "standfast": {"epoch": 7}}"#]],
    )
    .await;
}

#[tokio::test]
async fn history_and_config_are_shown_as_they_are_stored() {
    let world = World::three().await;
    let server = world.serve("a").await;
    check(
        &server,
        "/history",
        expect![[r#"
        [[1,
         67393352,
         "no recovery target specified",
         "2026-11-21T23:48:09.267375+00:00",
         "a"]]"#]],
    )
    .await;
    check(
        &server,
        "/config",
        expect![[r#"
        {"postgresql": {"parameters": {"max_connections": 50}},
         "ttl": 3}"#]],
    )
    .await;
    assert_eq!(server.code("/failsafe").await, 502, "the mode is off");
    let empty = World::empty().serve("a").await;
    check(&empty, "/history", expect!["[]"]).await;
    assert_eq!(empty.code("/config").await, 502);
}

#[tokio::test]
async fn a_member_of_patronis_own_is_listed_too() {
    let world = World::three().await;
    let key = world.keys.member(&name("p"));
    let record = r#"{"conn_url":"postgres://127.0.0.9:7109/postgres","api_url":"http://127.0.0.9:8008/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":67393864,"replay_lsn":67393800,"receive_lsn":67393864,"replication_state":"streaming","timeline":2,"tags":{"zone":"x"}}"#;
    world.write(Txn::new().put(key, record)).await;
    let document: Value = world.serve("a").await.document("/cluster").await;
    expect![[r#"{"api_url":"http://127.0.0.9:8008/patroni","host":"127.0.0.9","lag":0,"lsn":"0/4045948","name":"p","port":7109,"receive_lag":0,"receive_lsn":"0/4045948","replay_lag":64,"replay_lsn":"0/4045908","role":"replica","state":"streaming","tags":{"zone":"x"},"timeline":2}"#]].assert_eq(&text(&document["members"][3]));
}

/// Patroni's agents ask each member by this document before they lead.
#[tokio::test]
async fn who_may_not_lead_after_patronis_leader_says_so_in_patronis_word() {
    let world = World::three().await;
    let key = world.keys.member(&name("p"));
    let record = r#"{"conn_url":"postgres://127.0.0.9:7109/postgres","api_url":"http://127.0.0.9:8008/patroni","state":"running","role":"replica","version":"4.1.5"}"#;
    let led = EpochRecord {
        patroni: true,
        ..EpochRecord::new(Epoch(8), name("p"))
    };
    let keys = &world.keys;
    let after = Txn::new()
        .put(key, record)
        .put(keys.epoch(), text(&led))
        .delete(keys.leader())
        .delete(keys.sync());
    world.write(after).await;
    let server = world.serve("b").await;
    let tags = async || -> Value { server.document::<Value>("/patroni").await["tags"].clone() };
    assert_eq!(tags().await, json!({"nofailover": true}));
    let picture = world.picture("b").await;
    server.publish(|served| {
        let mut me = picture.me.clone().expect("a view");
        me.lineage = Some(Lineage::founded(Timeline(2), Epoch(8)));
        served.me = Some(me);
    });
    until("it has followed", async || tags().await.is_null()).await;
}

#[tokio::test]
async fn the_state_names_every_node_dead_or_alive() {
    let world = World::three().await;
    world
        .write(Txn::new().delete(world.keys.member(&name("c"))))
        .await;
    let server = world.serve("b").await;
    let state: v1::State = server.document("/api/v1/state").await;
    let lines: Vec<String> = state
        .nodes
        .iter()
        .map(|node| {
            format!(
                "{} {} {}:{} {}: {} | {} | {} | {} | {:?} {}",
                node.id,
                node.name,
                node.host,
                node.port,
                node.timeline,
                node.lsn,
                node.connection,
                node.state,
                node.assigned,
                node.lag_bytes,
                node.alive
            )
        })
        .collect();
    expect![[r#"
        1 a 127.0.0.1:7101 2: 0/4045948 | read-write | primary | primary | None true
        2 b 127.0.0.1:7102 2: 0/4045948 | read-only | standby | standby | Some(0) true
        3 c 127.0.0.1:7103 0: 0/0 | none ! | demoted | demoted | None false
        0 monitor 127.0.0.1:7109 0: 0/0 | none | init | init | None true"#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(state.leader, Some(name("a")));
    assert_eq!(state.epoch, Epoch(7));
    assert_eq!(state.sync.text, "a with 1 of (b, c)");
    assert_eq!(state.store.leader.as_deref(), Some("b"));
    assert_eq!(state.store.voters.len(), 3);
    check(
        &server,
        "/api/v1/state",
        expect![[r#"
        {"scope": "demo",
         "formation": "default",
         "system_id": "7710775333835992131",
         "epoch": 7,
         "leader": "a",
         "paused": false,
         "sync": {"mode": "quorum",
         "strict": false,
         "text": "a with 1 of (b,
         c)",
         "settings": [{"leader": "a",
         "standbys": ["b",
         "c"],
         "needed": 1}]},
         "store": {"leader": "b",
         "voters": [{"name": "a",
         "address": "a:7000",
         "voter": true,
         "reachable": true},
         {"name": "b",
         "address": "b:7000",
         "voter": true,
         "reachable": true},
         {"name": "monitor",
         "address": "monitor:7000",
         "voter": true,
         "reachable": true}],
         "revision": 2},
         "answered_by": "b",
         "version": "4.1.5",
         "nodes": [{"id": 1,
         "name": "a",
         "host": "127.0.0.1",
         "port": 7101,
         "api_url": "http://127.0.0.1:7001/patroni",
         "timeline": 2,
         "lsn": "0/4045948",
         "connection": "read-write",
         "state": "primary",
         "assigned": "primary",
         "reason": "a primary",
         "rule": "steady",
         "alive": true,
         "priority": 50,
         "quorum": true,
         "maintenance": false,
         "dropped": false,
         "lag_bytes": null,
         "witness": false,
         "server_version": 150018},
         {"id": 2,
         "name": "b",
         "host": "127.0.0.1",
         "port": 7102,
         "api_url": "http://127.0.0.1:7002/patroni",
         "timeline": 2,
         "lsn": "0/4045948",
         "connection": "read-only",
         "state": "standby",
         "assigned": "standby",
         "reason": "a standby",
         "rule": "steady",
         "alive": true,
         "priority": 50,
         "quorum": true,
         "maintenance": false,
         "dropped": false,
         "lag_bytes": 0,
         "witness": false,
         "server_version": 150018},
         {"id": 3,
         "name": "c",
         "host": "127.0.0.1",
         "port": 7103,
         "api_url": "http://127.0.0.1:7003/patroni",
         "timeline": 0,
         "lsn": "0/0",
         "connection": "none !",
         "state": "demoted",
         "assigned": "demoted",
         "reason": "its lease in the store has ended",
         "rule": "",
         "alive": false,
         "priority": 50,
         "quorum": true,
         "maintenance": false,
         "dropped": false,
         "lag_bytes": null,
         "witness": false,
         "server_version": 0},
         {"id": 0,
         "name": "monitor",
         "host": "127.0.0.1",
         "port": 7109,
         "api_url": "http://127.0.0.1:7009/patroni",
         "timeline": 0,
         "lsn": "0/0",
         "connection": "none",
         "state": "init",
         "assigned": "init",
         "reason": "",
         "rule": "",
         "alive": true,
         "priority": 50,
         "quorum": true,
         "maintenance": false,
         "dropped": false,
         "lag_bytes": null,
         "witness": true,
         "server_version": 0}]}"#]],
    )
    .await;
}

#[tokio::test]
async fn a_node_that_was_primary_is_not_read_write_without_the_leader_key() {
    let world = World::three().await;
    world.write(Txn::new().put(world.keys.leader(), "b")).await;
    let state: v1::State = world.serve("b").await.document("/api/v1/state").await;
    assert_eq!(state.nodes[0].state, NodeState::Primary);
    assert_eq!(state.nodes[0].connection, "none");
}

#[tokio::test]
async fn before_the_first_contact_with_the_store_nothing_is_made_up() {
    let world = World::three().await;
    let server = world.serve("a").await;
    server.publish(|served| served.cluster = None);
    for path in [
        "/api/v1/state",
        "/api/v1/explain",
        "/api/v1/settings",
        "/api/v1/standby-names",
        "/api/v1/uri",
        "/api/v1/events",
        "/cluster",
        "/history",
        "/config",
    ] {
        assert_eq!(server.code(path).await, 503, "{path}");
    }
    assert_eq!(server.code("/patroni").await, 200);
    assert_eq!(server.code("/metrics").await, 200);
}

#[tokio::test]
async fn settings_standby_names_uri_and_decision() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let settings: v1::Settings = server.document("/api/v1/settings").await;
    assert_eq!(settings.config["ttl"], 3);
    assert_eq!(settings.effective.ttl, 3.0);
    assert_eq!(settings.synchronous_standby_names, "ANY 1 (b, c)");
    let names: v1::StandbyNames = server.document("/api/v1/standby-names").await;
    assert_eq!(names.standby_names, "ANY 1 (b, c)");
    let uri: v1::Uri = server.document("/api/v1/uri").await;
    assert_eq!(
        uri.uri,
        "postgres://127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103/postgres?target_session_attrs=read-write"
    );
    assert_eq!(uri.monitors[0].name, name("monitor"));
    let decision: v1::Decision = server.document("/api/v1/decision").await;
    assert_eq!(decision.rule, "leader");
    let empty = World::empty().serve("a").await;
    assert_eq!(empty.code("/api/v1/uri").await, 404);
}

fn explained(explain: &v1::Explain) -> String {
    let mut lines = vec![format!(
        "{} [{}]",
        explain.summary,
        explain
            .would_win
            .as_ref()
            .map_or("nobody", |name| name.as_str())
    )];
    for node in &explain.nodes {
        let may = if node.may_lead {
            "may lead"
        } else {
            "may not lead"
        };
        lines.push(format!(
            "{} {may}: {} | {}",
            node.name,
            node.why,
            node.waits_for.as_deref().unwrap_or("-")
        ));
    }
    let text = lines.join("\n");
    // The lease's rest.
    match (text.find("lasts "), text.find(" ms more")) {
        (Some(from), Some(to)) => format!("{}… {}", &text[..from + 6], &text[to + 1..]),
        _ => text,
    }
}

#[tokio::test]
async fn explain_says_who_may_lead_and_why_not() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let explain: v1::Explain = server.document("/api/v1/explain").await;
    expect![[r#"
        a leads epoch 7; c would lead next [c]
        a may lead: it leads epoch 7, its lease lasts … ms more, commits need a with 1 of (b, c) | -
        b may lead: b is a synchronous standby, 0 bytes behind, with priority 50 | -
        c may lead: c is a synchronous standby, 0 bytes behind, with priority 50 | -"#]]
    .assert_eq(&explained(&explain));
    // Another node knows it too, from the members.
    let explain: v1::Explain = world
        .serve("monitor")
        .await
        .document("/api/v1/explain")
        .await;
    expect![[r#"
        a leads epoch 7; c would lead next [c]
        a may lead: it leads epoch 7, commits need a with 1 of (b, c) | -
        b may lead: b is a synchronous standby, 0 bytes behind, with priority 50 | -
        c may lead: c is a synchronous standby, 0 bytes behind, with priority 50 | -"#]]
    .assert_eq(&explained(&explain));
    world
        .write(Txn::new().delete(world.keys.member(&name("c"))))
        .await;
    world.set_member("b", NodeState::CatchingUp).await;
    let mut zero = crate::world::entry(2, "b");
    zero.priority = 0;
    world
        .write(Txn::new().put(world.keys.node(&name("b")), text(&zero)))
        .await;
    let explain: v1::Explain = world
        .serve("monitor")
        .await
        .document("/api/v1/explain")
        .await;
    expect![[r#"
        a leads epoch 7; nobody could take over: b: its candidate priority is 0; c is not alive [nobody]
        a may lead: it leads epoch 7, commits need a with 1 of (b, c) | -
        b may not lead: b: its candidate priority is 0 | standfast set node candidate-priority 50 --name b
        c may not lead: c is not alive | the agent of c must come back"#]].assert_eq(&explained(&explain));
}

/// Without the store nobody can claim, whoever it was that would have won.
#[tokio::test]
async fn explain_lets_nobody_lead_by_what_a_silent_store_said_last() {
    let world = World::three().await;
    let silent = |served: &mut api::Served| served.store_silent_for = Some(Duration::from_secs(9));
    let server = world.serve("b").await;
    server.publish(silent);
    let explain: v1::Explain = server.document("/api/v1/explain").await;
    assert_eq!(explain.would_win, None);
    let (said, last) = explain.summary.split_once("; it said last: ").unwrap();
    assert!(
        said.starts_with("the store has been silent for 9."),
        "{said}"
    );
    assert_eq!(last, "a leads epoch 7; c would lead next");
    for node in &explain.nodes {
        assert!(!node.may_lead, "{node:?}");
        let waits = node.waits_for.as_deref();
        assert_eq!(waits, Some("the store must answer"), "{node:?}");
    }
    let cluster: Value = server.document("/cluster").await;
    let ms = cluster["standfast"]["store_silent_ms"].as_u64();
    assert!(ms.is_some_and(|ms| ms >= 9_000), "{cluster}");
    // Who has a lease that lasts leads, and knows it.
    let server = world.serve("a").await;
    server.publish(silent);
    let explain: v1::Explain = server.document("/api/v1/explain").await;
    let may: Vec<_> = explain.nodes.iter().map(|node| node.may_lead).collect();
    assert_eq!(may, [true, false, false]);
}

#[tokio::test]
async fn explain_names_nobody_who_would_take_over_a_paused_cluster_by_itself() {
    let world = World::three().await;
    let server = world.serve("a").await;
    server.publish(|served| served.cluster.as_mut().unwrap().settings.paused = true);
    let explain: v1::Explain = server.document("/api/v1/explain").await;
    let text = "a leads epoch 7; the cluster is paused: c would lead if it were ordered, and nobody by itself";
    assert_eq!(explain.summary, text);
}

#[tokio::test]
async fn explain_without_a_leader_counts_the_promises() {
    let world = World::three().await;
    world
        .write(
            Txn::new()
                .delete(world.keys.leader())
                .delete(world.keys.member(&name("a"))),
        )
        .await;
    let explain: v1::Explain = world.serve("b").await.document("/api/v1/explain").await;
    expect![[r#"
        there is no leader; nobody has promised for epoch 8 yet [nobody]
        a may not lead: a has not promised | the agent of a must come back
        b may not lead: b has not promised | b must find the end of its WAL and promise
        c may not lead: c has not promised | c must find the end of its WAL and promise"#]]
    .assert_eq(&explained(&explain));
    for (node, lsn) in [("b", 0x4045948), ("c", 0x4045000)] {
        let promise = Promise {
            epoch: Epoch(7),
            position: ha::Position {
                epoch: Epoch(7),
                timeline: Timeline(2),
                lsn: Lsn(lsn),
            },
            unfit: None,
            priority: 50,
        };
        let key = world.keys.promise(&name(node));
        world
            .write(Txn::new().put(key, text(&PromiseRecord::from(&promise))))
            .await;
    }
    let explain: v1::Explain = world.serve("b").await.document("/api/v1/explain").await;
    expect![[r#"
        there is no leader; b may claim epoch 8 [b]
        a may not lead: a has not promised | the agent of a must come back
        b may lead: b at 0/4045948 on timeline 2 of epoch 7 may claim on 2 promises | -
        c may not lead: c has promised at 0/4045000 on timeline 2 of epoch 7; c is 2376 bytes behind b, which is at 0/4045948 on timeline 2 of epoch 7 | c is 2376 bytes behind b, which is at 0/4045948 on timeline 2 of epoch 7"#]].assert_eq(&explained(&explain));
    let alone = SyncRecord::of(Setting::alone(name("a")));
    world
        .write(Txn::new().put(world.keys.sync(), text(&SyncValue::from(&alone))))
        .await;
    let explain: v1::Explain = world.serve("b").await.document("/api/v1/explain").await;
    expect![[r#"
        there is no leader; nobody may claim epoch 8: a acknowledged commits alone, only it may lead without data loss [nobody]
        a may not lead: a has not promised | the agent of a must come back
        b may not lead: b has promised at 0/4045948 on timeline 2 of epoch 7; a acknowledged commits alone, only it may lead without data loss | a acknowledged commits alone, only it may lead without data loss
        c may not lead: c has promised at 0/4045000 on timeline 2 of epoch 7; a acknowledged commits alone, only it may lead without data loss | a acknowledged commits alone, only it may lead without data loss"#]].assert_eq(&explained(&explain));
}

#[tokio::test]
async fn the_index_lists_what_there_is() {
    let world = World::three().await;
    let server = world.serve("a").await;
    assert_eq!(server.code("/api/v1/").await, 200);
    let index: v1::Index = server.document("/api/v1").await;
    for line in index.paths {
        let method = line.method.parse().expect("a method");
        // Without credentials, so that nothing is done.
        let path = line.path.replace("{name}", "b");
        let response = server
            .client
            .request(method, server.url(&path))
            .send()
            .await;
        let status = response.expect("an answer").status().as_u16();
        assert_eq!(
            status,
            if line.authorized { 401 } else { 200 },
            "{} {path}",
            line.method
        );
    }
}

/// Patroni: REST | `replication_state`: `streaming`, `in archive recovery` | works, in the status, the member record and
///   the checks' parameter
#[tokio::test]
async fn a_standby_of_an_archive_says_so_while_it_does_not_stream() {
    let world = World::three().await;
    let server = Server::start(&world, world.picture("b").await).await;
    let shown = async || {
        let status: Value = server.get("/patroni").await.json().await.expect("JSON");
        status.get("replication_state").cloned()
    };
    assert_eq!(shown().await, Some("streaming".into()));
    for (has_archive, expected) in [(true, Some("in archive recovery".into())), (false, None)] {
        server.publish(|served| {
            served.has_archive = has_archive;
            let me = served.me.as_mut().expect("an agent");
            let Postgres::Standby(standby) = &mut me.postgres else {
                panic!("no standby");
            };
            standby.streaming = false;
        });
        assert_eq!(shown().await, expected);
        let path = "/replica?replication_state=in%20archive%20recovery";
        let code = if has_archive { 200 } else { 503 };
        assert_eq!(server.code(path).await, code);
    }
}

/// Patroni: REST | `logger_queue_size`, `logger_records_lost` in `GET /patroni` | work, for a log in a file (`log.dir`)
#[tokio::test]
async fn a_log_that_is_behind_is_seen() {
    let world = World::three().await;
    let picture = world.picture("a").await;
    let server = Server::start(&world, picture).await;
    let shown = async || {
        let status: Value = server.get("/patroni").await.json().await.expect("JSON");
        let shown = |key: &str| status.get(key).and_then(Value::as_u64);
        [shown("logger_queue_size"), shown("logger_records_lost")]
    };
    server.log.comes();
    server.log.comes();
    assert_eq!(shown().await, [None, None]);
    server.log.comes();
    server.log.loses();
    assert_eq!(shown().await, [Some(3), Some(1)]);
    server.log.goes();
    assert_eq!(shown().await, [None, Some(1)]);
}

#[tokio::test]
async fn what_a_person_should_know_of_a_node_is_told() {
    let world = World::three().await;
    let why = "bootstrap has failed and is tried again: no room";
    let mut member = crate::world::member(2, NodeState::Standby);
    if let Some(ours) = &mut member.standfast {
        ours.troubles = vec![why.to_owned()];
    }
    let key = world.keys.member(&name("b"));
    world.write(Txn::new().put(key, text(&member))).await;
    let server = world.serve("a").await;
    let state: Value = server.document("/api/v1/state").await;
    let told: Vec<_> = state["nodes"].as_array().unwrap().iter().collect();
    let told: Vec<_> = told.iter().map(|node| &node["troubles"]).collect();
    assert_eq!(
        told,
        [&Value::Null, &json!([why]), &Value::Null, &Value::Null]
    );
    let patroni: Value = server.document("/patroni").await;
    assert_eq!(patroni["standfast"]["troubles"], Value::Null);
    server.publish(|served| served.troubles = vec![why.to_owned()]);
    let patroni: Value = server.document("/patroni").await;
    assert_eq!(patroni["standfast"]["troubles"], json!([why]));
}
