//! Registration, maintenance, settings of a node, departure, configuration.

use crate::world::{Server, World, name, text};
use api::v1;
use ha::{NodeState, Postgres};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::layout::NodeEntry;
use store::{Store as _, Txn};

fn asks(name: Option<&str>, port: u16, identity: &str) -> Value {
    let mut body = json!({
        "host": "127.0.0.1", "port": port, "api_url": format!("http://127.0.0.1:{}", port + 1000),
        "identity": identity,
    });
    if let Some(name) = name {
        body["name"] = json!(name);
    }
    body
}

async fn record(world: &World, node: &str) -> NodeEntry {
    let text = world
        .value(&world.keys.node(&name(node)))
        .await
        .expect("a record");
    serde_json::from_str(&text).expect("a node entry")
}

#[tokio::test]
async fn registration_gives_numbers_and_names() {
    let world = World::empty();
    let server = world.serve("monitor").await;
    let register = async |body: Value| {
        let (status, answer) = server.order(Method::POST, "/api/v1/register", body).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_value::<v1::Registered>(answer).expect("registered")
    };
    let mut monitor = asks(None, 6000, "m");
    monitor["witness"] = json!(true);
    let monitor = register(monitor).await;
    assert_eq!((monitor.id, monitor.name.as_str()), (0, "monitor"));
    let one = register(asks(None, 6010, "one")).await;
    assert_eq!((one.id, one.name.as_str(), one.known), (1, "node_1", false));
    let two = register(asks(Some("bob"), 6011, "two")).await;
    assert_eq!((two.id, two.name.as_str()), (2, "bob"));
    let again = register(asks(None, 6020, "one")).await;
    assert_eq!(
        (again.id, again.name.as_str(), again.known),
        (1, "node_1", true)
    );
    assert_eq!(record(&world, "node_1").await.port, 6020);
    // A number is not given again.
    world
        .write(Txn::new().delete(world.keys.node(&name("bob"))))
        .await;
    assert_eq!(register(asks(None, 6012, "three")).await.id, 3);
}

/// Patroni: Configuration | tags, changed at a reload | work: what a tag has set goes with the tag, what was set by command
///   stays
#[tokio::test]
async fn what_a_tag_has_set_goes_with_the_tag() {
    let world = World::empty();
    let server = world.serve("monitor").await;
    let register = async |more: Value| {
        let mut body = asks(Some("n"), 6010, "one");
        for (key, value) in more.as_object().expect("a map") {
            body[key] = value.clone();
        }
        let (status, answer) = server.order(Method::POST, "/api/v1/register", body).await;
        assert_eq!(status, 200, "{answer}");
        let record = record(&world, "n").await;
        (record.priority, record.quorum)
    };
    let none = json!({});
    let tagged = json!({"priority": 0, "quorum": false});
    assert_eq!(register(none.clone()).await, (50, true));
    assert_eq!(register(tagged.clone()).await, (0, false));
    assert_eq!(register(none.clone()).await, (50, true));
    register(tagged.clone()).await;
    let command = json!({"priority": 70, "quorum": false});
    let path = "/api/v1/nodes/n";
    let (status, answer) = server.order(Method::POST, path, command).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(register(none).await, (70, false));
    assert_eq!(register(tagged).await, (0, false));
}

#[tokio::test]
async fn names_that_postgresql_takes_for_one_are_refused() {
    let world = World::empty();
    let server = world.serve("monitor").await;
    let register = async |body: Value| server.order(Method::POST, "/api/v1/register", body).await;
    let (status, answer) = register(asks(Some("North-1"), 6010, "one")).await;
    assert_eq!(status, 200, "{answer}");
    for (port, like) in (6011..).zip(["north-1", "North_1", "NORTH.1"]) {
        let (status, answer) = register(asks(Some(like), port, like)).await;
        assert_eq!(status, 409, "{answer}");
        let said = answer.to_string();
        assert!(said.contains(like) && said.contains("North-1"), "{said}");
    }
    // A name that nobody chose goes out of the way.
    let (status, answer) = register(asks(Some("Node-2"), 6020, "two")).await;
    assert_eq!((status, &answer["id"]), (200, &json!(2)), "{answer}");
    world
        .write(Txn::new().delete(format!("{}standfast/node_counter", world.keys.prefix())))
        .await;
    let (status, answer) = register(asks(None, 6030, "three")).await;
    assert_eq!(
        (status, &answer["name"]),
        (200, &json!("node_3")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_node_that_never_ran_is_at_its_beginning() {
    let world = World::three().await;
    let mut asked = asks(Some("d"), 6040, "d");
    asked["ahead"] = json!(true);
    let seen = async || {
        let server = world.serve("a").await;
        let (_, state) = server
            .order(Method::GET, "/api/v1/state", Value::Null)
            .await;
        let nodes = state["nodes"].as_array().expect("nodes").clone();
        let node = nodes.into_iter().find(|node| node["name"] == "d");
        let node = node.expect("d");
        let said = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
        (said("state"), said("assigned"), said("reason"))
    };
    let register = async |body: &Value| {
        let server = world.serve("monitor").await;
        let (status, answer) = server
            .order(Method::POST, "/api/v1/register", body.clone())
            .await;
        assert_eq!(status, 200, "{answer}");
    };
    register(&asked).await;
    let (state, assigned, reason) = seen().await;
    assert_eq!((&*state, &*assigned), ("init", "joining"));
    assert!(reason.contains("not run yet"), "{reason}");
    // Its agent came, and went; `create` said again changes nothing about that.
    register(&asks(Some("d"), 6040, "d")).await;
    register(&asked).await;
    assert_eq!(seen().await.0, "demoted");
}

#[tokio::test]
async fn nodes_that_register_at_once_get_different_numbers() {
    let world = World::empty();
    let server = world.serve("monitor").await;
    let answers = futures_util::future::join_all((0..4).map(|n| {
        let body = asks(None, 6010 + n, &format!("installation-{n}"));
        server.order(Method::POST, "/api/v1/register", body)
    }))
    .await;
    let ids: BTreeSet<u64> = answers
        .into_iter()
        .map(|(status, answer)| {
            assert_eq!(status, 200, "{answer}");
            answer["id"].as_u64().expect("a number")
        })
        .collect();
    assert_eq!(ids, (1..=4).collect());
}

#[tokio::test]
async fn what_is_taken_is_refused_with_a_way_out() {
    let world = World::three().await;
    let server = world.serve("monitor").await;
    let mut dropped = crate::world::entry(3, "c");
    dropped.dropped = true;
    world
        .write(Txn::new().put(world.keys.node(&name("c")), text(&dropped)))
        .await;
    for (body, sentence) in [
        (
            asks(Some("a"), 6099, "new"),
            "the name a belongs to another node, at 127.0.0.1:7101",
        ),
        (
            asks(Some("monitor"), 6099, "new"),
            "the name monitor belongs to another node, at 127.0.0.1:7109",
        ),
        (
            asks(Some("new"), 7101, "new"),
            "127.0.0.1:7101 is the address of a already",
        ),
        (
            asks(Some("other"), 7101, "installation-of-a"),
            "this node is registered as a already",
        ),
        (
            asks(None, 7103, "installation-of-c"),
            "c was dropped and has not left yet",
        ),
    ] {
        let (status, error) = server.refused(Method::POST, "/api/v1/register", body).await;
        assert_eq!((status, error.error.as_str()), (409, sentence));
        assert!(error.hint.is_some());
    }
    for bad in [
        asks(Some("a b"), 6099, "new"),
        asks(Some("__placeholder"), 6099, "new"),
        asks(Some("x"), 0, "new"),
        asks(Some("x"), 6099, ""),
        json!({"host": "x y", "port": 1, "api_url": "http://x", "identity": "i"}),
        json!({"host": "x", "port": 1, "api_url": "ftp://x", "identity": "i"}),
        json!({"host": "x", "port": 70000, "api_url": "http://x", "identity": "i"}),
        json!({"host": "x", "port": 1, "api_url": "http://x", "identity": "i", "priority": 101}),
        json!({}),
    ] {
        let (status, error) = server
            .refused(Method::POST, "/api/v1/register", bad.clone())
            .await;
        assert!(matches!(status, 400 | 422), "{bad}: {status} {error:?}");
    }
}

#[tokio::test]
async fn maintenance_priority_and_quorum_are_written() {
    let world = World::three().await;
    let server = world.serve("c").await;
    let (status, _) = server
        .order(
            Method::POST,
            "/api/v1/nodes/b/maintenance",
            json!({"enabled": true}),
        )
        .await;
    assert_eq!(status, 200);
    assert!(record(&world, "b").await.maintenance);
    let (status, _) = server
        .order(
            Method::POST,
            "/api/v1/nodes/b",
            json!({"priority": 0, "quorum": false}),
        )
        .await;
    assert_eq!(status, 200);
    let found = record(&world, "b").await;
    assert_eq!(
        (found.priority, found.quorum, found.maintenance),
        (0, false, true)
    );
    for (path, body, status) in [
        ("/api/v1/nodes/b", json!({"priority": 101}), 422),
        ("/api/v1/nodes/b", json!({"priority": -1}), 400),
        ("/api/v1/nodes/b", json!({"prio": 1}), 400),
        ("/api/v1/nodes/x", json!({"priority": 1}), 404),
        ("/api/v1/nodes/..%2fleader", json!({"priority": 1}), 404),
        ("/api/v1/nodes/b%0d%0aX:y", json!({"priority": 1}), 404),
        ("/api/v1/nodes/x/maintenance", json!({"enabled": true}), 404),
        (
            "/api/v1/nodes/b/maintenance",
            json!({"enabled": "yes"}),
            400,
        ),
        ("/api/v1/nodes/b/maintenance", json!({}), 400),
    ] {
        let (found, error) = server.refused(Method::POST, path, body.clone()).await;
        assert_eq!(found, status, "{path} {body}: {error:?}");
    }
}

#[tokio::test]
async fn the_leader_steps_aside_only_for_somebody() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let (status, _) = server
        .order(
            Method::POST,
            "/api/v1/nodes/a/maintenance",
            json!({"enabled": true}),
        )
        .await;
    assert_eq!(status, 200, "b and c can take over");
    let world = World::three().await;
    let server = world.serve("a").await;
    server.publish(|served| {
        if let Postgres::Primary(primary) = &mut served.me.as_mut().unwrap().postgres {
            primary.standbys.clear();
        }
    });
    let path = "/api/v1/nodes/a/maintenance";
    let (status, error) = server
        .refused(Method::POST, path, json!({"enabled": true}))
        .await;
    assert_eq!(status, 412);
    assert!(error.error.contains("nobody can take over"), "{error:?}");
    assert!(!record(&world, "a").await.maintenance);
    let (status, _) = server
        .refused(Method::DELETE, "/api/v1/nodes/a", Value::Null)
        .await;
    assert_eq!(status, 412);
    assert!(!record(&world, "a").await.dropped);
}

#[tokio::test]
async fn dropping_asks_the_living_to_leave_and_removes_the_dead() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let delete = async |path: &str| server.order(Method::DELETE, path, Value::Null).await;
    let (status, answer) = delete("/api/v1/nodes/b?force=true").await;
    assert_eq!(
        (status, &answer["removed"]),
        (200, &json!(false)),
        "{answer}"
    );
    assert!(record(&world, "b").await.dropped);
    // Its member lease ends.
    world
        .write(Txn::new().delete(world.keys.member(&name("b"))).put(
            world.keys.promise(&name("b")),
            r#"{"epoch":7,"last_epoch":7,"timeline":2,"lsn":1,"priority":50}"#,
        ))
        .await;
    let (status, answer) = delete("/api/v1/nodes/b").await;
    assert_eq!((status, &answer["removed"]), (200, &json!(false)));
    let (status, answer) = delete("/api/v1/nodes/b?force").await;
    assert_eq!(
        (status, &answer["removed"]),
        (200, &json!(true)),
        "{answer}"
    );
    assert_eq!(world.value(&world.keys.node(&name("b"))).await, None);
    assert_eq!(world.value(&world.keys.promise(&name("b"))).await, None);
    assert!(
        world
            .value(&world.keys.sync())
            .await
            .expect("a setting")
            .contains("\"b\"")
    );
    assert_eq!(*server.members.removed.lock().expect("not poisoned"), ["b"]);
    let (status, _) = delete("/api/v1/nodes/b?force=1").await;
    assert_eq!(status, 404);
    let (status, _) = delete("/api/v1/nodes/c?force=maybe").await;
    assert_eq!(status, 400);
    let (status, answer) = delete("/api/v1/nodes/monitor?force=true").await;
    assert_eq!(
        (status, &answer["removed"]),
        (200, &json!(true)),
        "{answer}"
    );
    // A leader whose lease has not ended is never just removed.
    world
        .write(Txn::new().delete(world.keys.member(&name("a"))))
        .await;
    let (status, answer) = delete("/api/v1/nodes/a?force=true").await;
    assert_eq!(
        (status, &answer["removed"]),
        (200, &json!(false)),
        "{answer}"
    );
    let state: v1::State = server.document("/api/v1/state").await;
    assert_eq!(
        state.nodes[0].state,
        NodeState::Primary,
        "the picture is the agent's"
    );
}

#[tokio::test]
async fn the_configuration_is_merged_checked_and_never_half_stored() {
    let world = World::three().await;
    let server = world.serve("c").await;
    for path in ["/api/v1/config", "/config"] {
        let change =
            json!({"synchronous_mode": "off", "postgresql": {"parameters": {"work_mem": "8MB"}}});
        let (status, answer) = server.order(Method::PATCH, path, change).await;
        assert_eq!(status, 200);
        assert_eq!(
            answer,
            json!({"ttl": 3, "synchronous_mode": "off",
                   "postgresql": {"parameters": {"max_connections": 50, "work_mem": "8MB"}}})
        );
        let (status, _) = server
            .order(
                Method::PATCH,
                path,
                json!({"synchronous_mode": null, "postgresql": {"parameters": {"work_mem": null}}}),
            )
            .await;
        assert_eq!(status, 200);
        let before = world.value(&world.keys.config()).await;
        for bad in [
            json!({"ttl": 0}),
            json!({"ttl": -1}),
            json!({"ttl": 1e99}),
            json!({"ttl": "long"}),
            json!({"beat": 2}),
            json!({"synchronous_mode": "sometimes"}),
            json!({"pause": 7}),
            json!({"hang_timeout": 0}),
        ] {
            let (status, answer) = server.order(Method::PATCH, path, bad.clone()).await;
            assert_eq!(status, 422, "{bad}: {answer}");
            assert_eq!(world.value(&world.keys.config()).await, before);
        }
    }
    // Not a `Value`, which has no key twice.
    for (path, body) in [
        ("/config", r#"{"ttl": 3, "ttl": 4}"#),
        ("/api/v1/config", r#"{"ttl": 3, "ttl": 4}"#),
        (
            "/config",
            r#"{"postgresql": {"parameters": {"work_mem": 1, "work_mem": 2}}}"#,
        ),
        ("/switchover", r#"{"leader": "a", "leader": "b"}"#),
    ] {
        let method = if path == "/switchover" {
            Method::POST
        } else {
            Method::PATCH
        };
        let (status, answer) = server.order_text(method, path, body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer.contains("duplicate"), "{body}: {answer}");
    }
    let (status, answer) = server
        .order(Method::PUT, "/config", json!({"ttl": 5}))
        .await;
    assert_eq!((status, answer), (200, json!({"ttl": 5})));
    for (body, expected) in [(json!([1]), 400), (json!("x"), 400), (json!(null), 411)] {
        let (status, _) = server.order(Method::PATCH, "/config", body).await;
        assert_eq!(status, expected);
    }
}

/// Patroni: REST | an unreadable configuration in the store | as Patroni: `GET` 502, `PATCH` 503; `PUT` puts another in
///   its place
#[tokio::test]
async fn nothing_is_merged_into_what_nobody_can_read() {
    let world = World::three().await;
    let key = world.keys.config();
    let server = world.serve("c").await;
    // An agent keeps the settings that it could read last.
    let before = world.picture("a").await;
    for unreadable in ["{\"standby_cluster\": {\"host\"", "[1]", "7"] {
        world.write(Txn::new().put(&key, unreadable)).await;
        let read = world.store.read(world.keys.prefix()).await;
        let mut served = before.clone();
        served.snapshot = Arc::new(read.expect("the store answers"));
        let server = Server::start(&world, served).await;
        assert_eq!(server.code("/config").await, 502, "{unreadable}");
        for path in ["/config", "/api/v1/config"] {
            let change = json!({"ttl": 5});
            let (status, answer) = server.order(Method::PATCH, path, change).await;
            assert_eq!(status, 503, "{unreadable}: {answer}");
            assert_eq!(world.value(&key).await.as_deref(), Some(unreadable));
        }
    }
    let (status, answer) = server
        .order(Method::PUT, "/config", json!({"ttl": 5}))
        .await;
    assert_eq!((status, answer), (200, json!({"ttl": 5})));
}
