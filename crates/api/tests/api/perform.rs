//! Planned changes of leader: ordered, watched, refused, given up.

use crate::world::{Server, World, name, text};
use api::{Event, record_event, v1};
use ha::{Epoch, NodeName, NodeState};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use store::layout::EpochRecord;
use store::{Fault, Snapshot, Store, Txn};
use tokio::task::JoinHandle;

/// Waits for an order, and gives its text.
async fn ordered(world: &World) -> String {
    let mut view = world.store.view(world.keys.prefix());
    loop {
        if let Some(order) = view.borrow_and_update().value(&world.keys.failover()) {
            return order.to_owned();
        }
        view.changed().await.expect("the store lives");
    }
}

/// What the agents do about an order: `to` takes over, step by step.
fn obedient(world: &World, to: &'static str) -> JoinHandle<String> {
    let world = world.clone();
    tokio::spawn(async move {
        let order = ordered(&world).await;
        world.set_member("a", NodeState::Draining).await;
        world.write(Txn::new().delete(world.keys.leader())).await;
        let epoch = EpochRecord::new(Epoch(8), name(to));
        world
            .write(
                Txn::new()
                    .put(world.keys.leader(), to)
                    .put(world.keys.epoch(), text(&epoch)),
            )
            .await;
        world.set_member(to, NodeState::Promoting).await;
        world.set_member(to, NodeState::Primary).await;
        world.write(Txn::new().delete(world.keys.failover())).await;
        order
    })
}

/// A leader that clears every order, and says why before or after.
fn unwilling(world: &World, after: bool) -> JoinHandle<()> {
    let world = world.clone();
    tokio::spawn(async move {
        ordered(&world).await;
        let event = Event {
            node: name("a"),
            epoch: Epoch(7),
            state: NodeState::Primary,
            assigned: NodeState::Primary,
            rule: "switchover refused".to_owned(),
            reason: "refused: b lags 17 bytes behind".to_owned(),
        };
        let empty = Snapshot::default();
        if after {
            world.write(Txn::new().delete(world.keys.failover())).await;
        }
        record_event(&world.store, &world.keys, &empty, &event)
            .await
            .expect("written");
        if !after {
            world
                .write(Txn::new().put(world.keys.failover(), "{}"))
                .await;
        }
    })
}

async fn perform(server: &Server, body: Value) -> (u16, Value) {
    server.order(Method::POST, "/api/v1/perform", body).await
}

#[tokio::test]
async fn a_switchover_is_answered_when_the_new_leader_takes_writes() {
    for answering in ["a", "b", "monitor"] {
        let world = World::three().await;
        let server = world.serve(answering).await;
        let agents = obedient(&world, "b");
        let (status, answer) = perform(&server, json!({"action": "switchover", "to": "b"})).await;
        assert_eq!(status, 200, "{answer}");
        let outcome: v1::Outcome = serde_json::from_value(answer).expect("an outcome");
        assert_eq!(outcome.outcome, v1::OutcomeKind::Done);
        assert_eq!((outcome.leader, outcome.epoch), (name("b"), Epoch(8)));
        assert_eq!(
            agents.await.expect("no panic"),
            r#"{"leader":"a","member":"b"}"#
        );
    }
}

/// A busy store leaves open whether an order stands; who gave it hears what has become of it.
#[tokio::test]
async fn an_order_whose_answer_is_lost_is_given_once_and_followed() {
    for fault in [Fault::NextAnswerLost, Fault::NextChangeLost] {
        let world = World::three().await;
        let server = world.serve("a").await;
        let agents = obedient(&world, "b");
        world.store.set_fault(fault);
        let (status, answer) = perform(&server, json!({"action": "switchover", "to": "b"})).await;
        assert_eq!(
            (status, &answer["outcome"], &answer["leader"]),
            (200, &json!("done"), &json!("b")),
            "{fault:?}: {answer}"
        );
        agents.await.expect("no panic");
        assert_eq!(world.value(&world.keys.failover()).await, None, "{fault:?}");
    }
}

#[tokio::test]
async fn without_a_name_any_healthy_standby_may_take_over() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let agents = obedient(&world, "c");
    let (status, answer) = perform(&server, json!({"action": "failover"})).await;
    assert_eq!(
        (status, &answer["outcome"], &answer["leader"]),
        (200, &json!("done"), &json!("c"))
    );
    assert_eq!(agents.await.expect("no panic"), r#"{"leader":"a"}"#);
}

#[tokio::test]
async fn another_leader_than_the_one_asked_for_is_said() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let agents = obedient(&world, "c");
    let (status, answer) = perform(&server, json!({"action": "promotion", "to": "b"})).await;
    assert_eq!(
        (status, &answer["outcome"]),
        (200, &json!("done_instead")),
        "{answer}"
    );
    agents.await.expect("no panic");
}

#[tokio::test]
async fn a_leader_that_refuses_is_quoted() {
    for after in [false, true] {
        let world = World::three().await;
        let server = world.serve("a").await;
        let agent = unwilling(&world, after);
        let (status, error) = server
            .refused(
                Method::POST,
                "/api/v1/perform",
                json!({"action": "switchover"}),
            )
            .await;
        assert_eq!((status, error.code), (412, v1::Code::Refused));
        assert_eq!(error.error, "b lags 17 bytes behind");
        agent.await.expect("no panic");
    }
}

#[tokio::test]
async fn an_order_that_nobody_takes_up_is_withdrawn() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let body = json!({"action": "switchover", "timeout_s": 0.1});
    let (status, error) = server.refused(Method::POST, "/api/v1/perform", body).await;
    assert_eq!((status, error.code), (503, v1::Code::TimedOut), "{error:?}");
    assert!(error.error.contains("withdrawn"), "{error:?}");
    assert_eq!(world.value(&world.keys.failover()).await, None);
}

#[tokio::test]
async fn an_order_that_is_not_waited_for_stands() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let body = json!({"action": "switchover", "timeout_s": 0});
    let (status, error) = server.refused(Method::POST, "/api/v1/perform", body).await;
    assert_eq!((status, error.code), (503, v1::Code::TimedOut), "{error:?}");
    assert!(world.value(&world.keys.failover()).await.is_some());
}

#[tokio::test]
async fn an_order_that_was_begun_is_left_standing() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let agent = {
        let world = world.clone();
        tokio::spawn(async move {
            ordered(&world).await;
            world.set_member("a", NodeState::Draining).await;
        })
    };
    let body = json!({"action": "switchover", "timeout_s": 0.3});
    let (status, error) = server.refused(Method::POST, "/api/v1/perform", body).await;
    assert_eq!((status, error.code), (503, v1::Code::TimedOut));
    assert!(error.error.contains("may still be going on"), "{error:?}");
    assert!(world.value(&world.keys.failover()).await.is_some());
    agent.await.expect("no panic");
}

#[tokio::test]
async fn impossible_orders_are_refused_before_anything_is_written() {
    let world = World::three().await;
    world
        .write(Txn::new().delete(world.keys.member(&name("c"))))
        .await;
    let server = world.serve("a").await;
    for (body, status, sentence) in [
        (
            json!({"action": "switchover", "to": "a"}),
            412,
            "a is the leader already",
        ),
        (
            json!({"action": "switchover", "to": "x"}),
            404,
            "there is no node \"x\" in this cluster",
        ),
        (
            json!({"action": "switchover", "to": "c"}),
            412,
            "c is not alive",
        ),
        (
            json!({"action": "failover", "to": "monitor"}),
            404,
            "there is no node \"monitor\" in this cluster",
        ),
        (
            json!({"action": "switchover", "epoch": 6}),
            412,
            "the cluster is in epoch 7, not 6",
        ),
        (
            json!({"action": "promotion"}),
            422,
            "a promotion needs `to`: the node to promote",
        ),
        (
            json!({"action": "switchover", "timeout_s": -1}),
            422,
            "timeout_s must be 0 to 3600",
        ),
        (
            json!({"action": "switchover", "timeout_s": 1e99}),
            422,
            "timeout_s must be 0 to 3600",
        ),
    ] {
        let (found, error) = server
            .refused(Method::POST, "/api/v1/perform", body.clone())
            .await;
        assert_eq!((found, error.error.as_str()), (status, sentence), "{body}");
        assert_eq!(world.value(&world.keys.failover()).await, None, "{body}");
    }
    let (status, answer) = perform(&server, json!({"action": "promotion", "to": "a"})).await;
    assert_eq!((status, &answer["outcome"]), (200, &json!("already_leads")));
}

#[tokio::test]
async fn two_orders_at_once_are_one_order_and_one_conflict() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let body = json!({"action": "switchover", "to": "b"});
    let agents = obedient(&world, "b");
    let (one, two) = tokio::join!(
        perform(&server, body.clone()),
        perform(&server, body.clone())
    );
    let mut codes = [one.0, two.0];
    codes.sort_unstable();
    // The slower one finds the order, or a leader that is no longer its.
    assert!(
        codes[0] == 200 && matches!(codes[1], 409 | 412),
        "{one:?} {two:?}"
    );
    agents.await.expect("no panic");
}

#[tokio::test]
async fn without_a_leader_a_named_node_may_be_preferred() {
    let world = World::three().await;
    world
        .write(
            Txn::new()
                .delete(world.keys.leader())
                .delete(world.keys.member(&name("a"))),
        )
        .await;
    let server = world.serve("b").await;
    let (status, error) = server
        .refused(
            Method::POST,
            "/api/v1/perform",
            json!({"action": "switchover", "to": "b"}),
        )
        .await;
    assert_eq!(status, 412, "{error:?}");
    let (status, _) = server
        .refused(
            Method::POST,
            "/api/v1/perform",
            json!({"action": "failover"}),
        )
        .await;
    assert_eq!(status, 412);
    let agents = obedient(&world, "b");
    let (status, answer) = perform(&server, json!({"action": "failover", "to": "b"})).await;
    assert_eq!(
        (status, &answer["outcome"]),
        (200, &json!("done")),
        "{answer}"
    );
    assert_eq!(agents.await.expect("no panic"), r#"{"member":"b"}"#);
}

#[tokio::test]
async fn an_unreachable_store_is_said_at_once() {
    let world = World::three().await;
    let server = world.serve("a").await;
    world.store.set_fault(Fault::Unreachable);
    let began = std::time::Instant::now();
    let (status, error) = server
        .refused(
            Method::POST,
            "/api/v1/perform",
            json!({"action": "switchover"}),
        )
        .await;
    assert_eq!((status, error.code), (503, v1::Code::Unavailable));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_pending_order_can_be_cancelled() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let (status, _) = server
        .order(Method::DELETE, "/api/v1/perform", Value::Null)
        .await;
    assert_eq!(status, 404);
    world
        .write(Txn::new().put(world.keys.failover(), r#"{"leader":"a"}"#))
        .await;
    let (status, _) = server
        .refused(
            Method::POST,
            "/api/v1/perform",
            json!({"action": "failover"}),
        )
        .await;
    assert_eq!(status, 409);
    let (status, _) = server
        .order(Method::DELETE, "/api/v1/perform", Value::Null)
        .await;
    assert_eq!(status, 200);
    assert_eq!(world.value(&world.keys.failover()).await, None);
}

#[tokio::test]
async fn patronis_switchover_answers_in_patronis_words() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let post = async |path: &str, body: Value| server.order(Method::POST, path, body).await;
    for (path, body, status, sentence) in [
        (
            "/switchover",
            json!({}),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            "/failover",
            json!({}),
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            "/failover",
            json!({"candidate": "b", "scheduled_at": "2030-01-01T00:00+00:00"}),
            400,
            "Failover can't be scheduled",
        ),
        (
            "/switchover",
            json!({"leader": "b"}),
            412,
            "leader name does not match",
        ),
        (
            "/switchover",
            json!({"leader": "a", "candidate": "x"}),
            412,
            "candidate does not exists",
        ),
        (
            "/switchover",
            json!({"leader": "a", "candidate": "a"}),
            412,
            "leader and candidate are the same",
        ),
    ] {
        let (found, answer) = post(path, body.clone()).await;
        assert_eq!((found, answer), (status, json!(sentence)), "{path} {body}");
    }
    let bad = NodeName::new("a b").expect_err("no name").to_string();
    let answer = post("/switchover", json!({"leader": "a b"})).await;
    assert_eq!(answer, (400, json!(bad)));
    let agents = obedient(&world, "b");
    let (status, answer) = post("/switchover", json!({"leader": "a", "candidate": "b"})).await;
    assert_eq!(
        (status, answer),
        (200, json!("Successfully switched over to \"b\""))
    );
    agents.await.expect("no panic");
    let world = World::three().await;
    let server = world.serve("a").await;
    let agents = obedient(&world, "c");
    let (status, answer) = server
        .order(
            Method::POST,
            "/failover",
            json!({"member": "b", "unknown": 1}),
        )
        .await;
    assert_eq!(
        (status, answer),
        (200, json!("Failed over to \"c\" instead of \"b\""))
    );
    agents.await.expect("no panic");
    let (status, answer) = server
        .order(Method::DELETE, "/switchover", Value::Null)
        .await;
    assert_eq!((status, answer), (404, json!("no switchover is scheduled")));
}
