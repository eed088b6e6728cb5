//! What is asked of one node: restart, reload, reinitialize, and a switchover for later.

use crate::world::{Server, World, name};
use api::errand::Ask;
use api::v1::Code;
use api::{Due, Refusal, due};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use store::Store;

/// Orders something, and plays the agent that answers `result` if it is asked.
async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    body: Value,
    result: Result<(), Refusal>,
) -> (u16, String, Option<Ask>) {
    let mut asked = None;
    let mut errands = server.errands.lock().await;
    let agent = async {
        let errand = errands.recv().await.expect("the API lives");
        errand.answer.send(result).expect("somebody waits");
        asked = Some(errand.ask);
        std::future::pending::<()>().await;
    };
    let (status, answer) = tokio::select! {
        answer = server.order(method, path, body) => answer,
        () = agent => unreachable!("it waits for ever"),
    };
    let text = answer
        .as_str()
        .map_or_else(|| answer.to_string(), str::to_owned);
    (status, text, asked)
}

async fn restart(server: &Server, body: Value) -> (u16, String, Option<Ask>) {
    ask(server, Method::POST, "/restart", body, Ok(())).await
}

#[tokio::test]
async fn a_restart_is_the_agents_and_answered_in_patronis_words() {
    let world = World::three().await;
    let server = world.serve("b").await;
    for body in [
        Value::Null,
        json!({}),
        json!({"role": "replica"}),
        json!({"postgres_version": "15.19", "timeout": "30"}),
        json!({"schedule": "now"}),
    ] {
        let (status, text, asked) = restart(&server, body.clone()).await;
        assert_eq!((status, &*text), (200, "restarted successfully"), "{body}");
        assert!(matches!(asked, Some(Ask::Restart(it)) if it.at.is_none()));
    }
    let busy = Refusal::new(Code::Unavailable, "restart failed");
    let (status, text, _) = ask(&server, Method::POST, "/restart", Value::Null, Err(busy)).await;
    assert_eq!((status, &*text), (503, "restart failed"));
}

#[tokio::test]
async fn conditions_that_are_not_met_reach_no_agent() {
    let world = World::three().await;
    let server = world.serve("b").await;
    for (body, status, text) in [
        (json!({"role": "primary"}), 503, "not satisfied"),
        (json!({"role": "master"}), 503, "not satisfied"),
        (json!({"restart_pending": true}), 503, "not satisfied"),
        (json!({"postgres_version": "15.18"}), 503, "not satisfied"),
        (json!({"postgres_version": "15"}), 400, "postgres_version"),
        (json!({"role": "chief"}), 400, "role"),
        (json!({"timeout": 0}), 400, "timeout"),
        (json!({"when": "now"}), 400, "when"),
        (json!({"schedule": "2999-01-01T00:00"}), 400, "time zone"),
        (json!({"schedule": "1999-01-01T00:00Z"}), 422, "past"),
        (json!({"schedule": "later"}), 422, "read"),
        (json!([1]), 400, "read"),
    ] {
        let (found, said, asked) = restart(&server, body.clone()).await;
        assert_eq!(found, status, "{body}: {said}");
        assert!(said.contains(text), "{body}: {said}");
        assert_eq!(asked, None, "{body}");
    }
    server.publish(|served| served.pending_restart = true);
    let (status, ..) = restart(&server, json!({"restart_pending": true})).await;
    assert_eq!(status, 200);
    server.publish(|served| {
        served.me.as_mut().expect("a node").postgres = ha::Postgres::Starting;
    });
    let (status, text, _) = restart(&server, Value::Null).await;
    assert_eq!((status, &*text), (503, "postgres is still starting"));
}

#[tokio::test]
async fn a_restart_for_later_is_scheduled_shown_and_deleted() {
    let world = World::three().await;
    let server = world.serve("b").await;
    let body = json!({"schedule": "2999-01-01T00:00:00+00:00", "role": "replica"});
    let (status, text, asked) = restart(&server, body.clone()).await;
    assert_eq!((status, &*text), (202, "Restart scheduled"));
    let Some(Ask::Restart(order)) = asked else {
        panic!("a restart");
    };
    assert!(order.at.expect("a time").at > SystemTime::now());
    server.publish(|served| served.scheduled_restart = Some(body.clone()));
    let status: Value = server.document("/patroni").await;
    assert_eq!(status["scheduled_restart"], body);

    let (status, text, asked) = ask(&server, Method::DELETE, "/restart", Value::Null, Ok(())).await;
    assert_eq!((status, &*text), (200, "scheduled restart deleted"));
    assert_eq!(asked, Some(Ask::CancelRestart));
    let none = Refusal::new(Code::NotFound, "no restarts are scheduled");
    let (status, text, _) = ask(&server, Method::DELETE, "/restart", Value::Null, Err(none)).await;
    assert_eq!((status, &*text), (404, "no restarts are scheduled"));

    server.publish(|served| {
        served.cluster.as_mut().expect("a cluster").settings.paused = true;
    });
    let (status, ..) = restart(&server, json!({"schedule": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(status, 500);
}

/// Patroni: REST | `POST /reinitialize` | works; `force` gives up the copy under way
#[tokio::test]
async fn a_reinitialization_is_for_standbys_of_a_leader() {
    let world = World::three().await;
    let reinitialize = async |server: &Server, body: Value| {
        ask(server, Method::POST, "/reinitialize", body, Ok(())).await
    };
    let leader = world.serve("a").await;
    let (status, text, asked) = reinitialize(&leader, Value::Null).await;
    assert_eq!(
        (status, &*text, asked),
        (503, "I am the leader, can not reinitialize", None)
    );
    let standby = world.serve("b").await;
    let (status, text, asked) = reinitialize(&standby, json!({"from_leader": true})).await;
    assert_eq!((status, &*text), (200, "reinitialize started"));
    let wanted = |force, from_leader| Some(Ask::Reinitialize { force, from_leader });
    assert_eq!(asked, wanted(false, true));
    standby.publish(|served| {
        served.me.as_mut().expect("a node").job = Some(ha::Job::Clone);
    });
    let (status, text, asked) = reinitialize(&standby, Value::Null).await;
    assert_eq!(
        (status, &*text, asked),
        (503, "reinitialize already in progress", None)
    );
    let (status, _, asked) = reinitialize(&standby, json!({"force": true})).await;
    assert_eq!((status, asked), (200, wanted(true, false)));
    standby.publish(|served| served.cluster.as_mut().expect("a cluster").leader = None);
    let (status, text, _) = reinitialize(&standby, Value::Null).await;
    assert_eq!(
        (status, &*text),
        (503, "Cluster has no leader, can not reinitialize")
    );
}

/// Patroni: REST | `POST /reload` | works
#[tokio::test]
async fn a_reload_is_asked_for_and_not_waited_for() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let (status, text) = server.order(Method::POST, "/reload", Value::Null).await;
    assert_eq!((status, text), (202, json!("reload scheduled")));
    let told = tokio::time::timeout(Duration::from_secs(5), server.reload.notified()).await;
    told.expect("the node is told");
}

#[tokio::test]
async fn a_monitor_has_nothing_to_restart() {
    let world = World::three().await;
    let server = world.serve("monitor").await;
    for path in ["/restart", "/reinitialize"] {
        let (status, text) = server.order(Method::POST, path, Value::Null).await;
        assert_eq!((status, text), (503, json!("a monitor has no Postgres")));
    }
}

/// Patroni: REST | status document, `/cluster`, `/history`, `/config` | work, and name the primary's `host` and
///   `port`
#[tokio::test]
async fn a_switchover_for_later_stands_in_the_store_until_its_time() {
    let world = World::three().await;
    let server = world.serve("b").await;
    let order = async |body: Value| server.order(Method::POST, "/switchover", body).await;
    for (body, status, text) in [
        (json!({"candidate": "b"}), 400, "leader"),
        (
            json!({"leader": "a", "scheduled_at": "2999-01-01T00:00"}),
            400,
            "time zone",
        ),
        (
            json!({"leader": "a", "scheduled_at": "1999-01-01T00:00Z"}),
            422,
            "past",
        ),
        (
            json!({"leader": "a", "scheduled_at": "whenever"}),
            422,
            "read",
        ),
        (json!({"leader": "c"}), 412, "leader name does not match"),
        (
            json!({"leader": "a", "candidate": "z"}),
            412,
            "candidate does not exists",
        ),
    ] {
        let (found, said) = order(body.clone()).await;
        assert_eq!(found, status, "{body}: {said}");
        assert!(said.as_str().is_some_and(|it| it.contains(text)), "{said}");
    }
    let at = "2999-01-01T00:00:00+00:00";
    let body = json!({"leader": "a", "candidate": "b", "scheduled_at": at});
    let answer = order(body).await;
    assert_eq!(answer, (202, json!("Switchover scheduled")));
    let stored = world.value(&world.keys.failover()).await;
    let expected = format!(r#"{{"leader":"a","member":"b","scheduled_at":"{at}"}}"#);
    assert_eq!(stored.as_deref(), Some(&*expected));

    let snapshot = world.store.read(world.keys.prefix()).await.expect("read");
    server.publish(|served| served.snapshot = snapshot.clone().into());
    let cluster: Value = server.document("/cluster").await;
    let shown = json!({"at": at, "from": "a", "to": "b"});
    assert_eq!(cluster["scheduled_switchover"], shown);

    // At its time the leader makes it an order for now.
    let time: jiff::Timestamp = at.parse().expect("a time");
    let Some(Due::Now(txn)) = due(&world.keys, &snapshot, &name("a"), time.into()) else {
        panic!("it is due");
    };
    world.write(txn).await;
    let stored = world.value(&world.keys.failover()).await;
    assert_eq!(stored.as_deref(), Some(r#"{"leader":"a","member":"b"}"#));

    let (status, text) = server
        .order(Method::DELETE, "/switchover", Value::Null)
        .await;
    assert_eq!((status, text), (200, json!("scheduled switchover deleted")));
}
