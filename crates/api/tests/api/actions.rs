//! Who may change something, and what cannot be done.

use crate::world::World;
use reqwest::Method;
use serde_json::{Value, json};

const UNSAFE: [(Method, &str); 15] = [
    (Method::POST, "/restart"),
    (Method::DELETE, "/restart"),
    (Method::POST, "/reload"),
    (Method::POST, "/reinitialize"),
    (Method::POST, "/switchover"),
    (Method::POST, "/failover"),
    (Method::DELETE, "/switchover"),
    (Method::PATCH, "/config"),
    (Method::PUT, "/config"),
    (Method::POST, "/api/v1/perform"),
    (Method::POST, "/api/v1/register"),
    (Method::POST, "/api/v1/nodes/b"),
    (Method::DELETE, "/api/v1/nodes/b"),
    (Method::POST, "/api/v1/nodes/b/maintenance"),
    (Method::PATCH, "/api/v1/config"),
];

/// Patroni: REST | actions without `restapi.authentication` | differently: they always need the cluster's token or
///   the configured user
#[tokio::test]
async fn nothing_is_changed_without_credentials() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let before = world.value(world.keys.prefix()).await;
    let revision = server_revision(&world).await;
    for (method, path) in UNSAFE {
        for header in [
            None,
            Some("Bearer 0000"),
            Some("Basic YWRtaW46d3Jvbmc="),
            Some("Bearer"),
        ] {
            let mut request = server
                .client
                .request(method.clone(), server.url(path))
                .body("{}");
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status(), 401, "{method} {path} {header:?}");
            assert!(response.headers().contains_key("www-authenticate"));
            let text = response.text().await.expect("a body");
            assert!(text.contains("\"hint\""), "{text}");
        }
    }
    assert_eq!(server_revision(&world).await, revision);
    assert_eq!(before, None);
}

async fn server_revision(world: &World) -> u64 {
    use store::Store;
    world
        .store
        .read(world.keys.prefix())
        .await
        .expect("the store answers")
        .revision
}

/// Patroni: REST | `PATCH`, `PUT /config` | work; what can't be understood is refused (422)
#[tokio::test]
async fn the_configured_user_may_do_what_the_token_may() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let response = server
        .client
        .patch(server.url("/config"))
        .header("authorization", "Basic YWRtaW46c2VjcmV0")
        .body(r#"{"ttl": 4}"#)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_setting_without_effect_is_stored_and_said_to_be_one() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let change = async |method: Method, path: &str, body: &str| {
        let request = server.client.request(method, server.url(path));
        let response = request
            .header("authorization", "Basic YWRtaW46c2VjcmV0")
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        let warning = response.headers().get("warning");
        warning.map(|value| value.to_str().expect("text").to_owned())
    };
    let both = r#"{"ttl": 4, "nonsense": 1, "standby_cluster": {"host": "x", "port": 5433}}"#;
    for path in ["/config", "/api/v1/config"] {
        assert_eq!(
            change(Method::PATCH, path, both).await.as_deref(),
            Some(r#"299 - "stored, but without effect: nonsense""#)
        );
        let plain = change(Method::PATCH, path, r#"{"ttl": 5, "nonsense": null}"#).await;
        assert_eq!(plain, None);
        let shared = r#"{"postgresql": {"parameters": {"work_mem": "8MB"}}}"#;
        assert_eq!(change(Method::PATCH, path, shared).await, None);
        let ours = r#"{"postgresql": {"parameters": {"work_mem": "8MB", "fsync": "off"}}}"#;
        assert_eq!(
            change(Method::PATCH, path, ours).await.as_deref(),
            Some(
                r#"299 - "stored, but without effect: postgresql.parameters.fsync (it is not yours)""#
            )
        );
        let rules = r#"{"postgresql": {"pg_hba": ["host all all all md5", "guest \"x\""], "parameters": null}}"#;
        assert_eq!(
            change(Method::PATCH, path, rules).await.as_deref(),
            Some(
                r#"299 - "stored, but without effect: postgresql.pg_hba (guest \"x\": nothing that 15 knows)""#
            )
        );
        let own = r#"{"postgresql": {"callbacks": {"on_start": "/x"}, "use_pg_rewind": true, "pg_hba": null}}"#;
        assert_eq!(
            change(Method::PATCH, path, own).await.as_deref(),
            Some(
                r#"299 - "stored, but without effect: postgresql.callbacks (each node's own file says it)""#
            )
        );
        let slots =
            r#"{"slots": {"a": {"type": "logical", "database": "d"}, "b": {"type": "physical"}}}"#;
        let warning = change(Method::PATCH, path, slots).await.unwrap_or_default();
        assert!(
            warning.contains("slots.a (a logical slot needs"),
            "{warning}"
        );
        // What a change leaves as it was is not said again, and a part of a slot may complete it.
        assert_eq!(change(Method::PATCH, path, r#"{"ttl": 6}"#).await, None);
        let rest = r#"{"slots": {"a": {"plugin": "pgoutput"}}}"#;
        assert_eq!(change(Method::PATCH, path, rest).await, None);
        let none = r#"{"slots": null, "postgresql": null}"#;
        assert_eq!(change(Method::PATCH, path, none).await, None);
    }
}

#[tokio::test]
async fn a_web_page_elsewhere_cannot_send_orders_of_ours() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let response = server
        .client
        .post(server.url("/api/v1/perform"))
        .header("authorization", "Basic YWRtaW46c2VjcmV0")
        .header("content-type", "text/plain")
        .body(r#"{"action":"switchover"}"#)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 415);
}

/// Patroni: REST | `/citus`, `/mpp`, `/sigterm` | not there: 501
#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let world = World::three().await;
    let server = world.serve("a").await;
    for (method, path, status) in [
        (Method::POST, "/nosuch", 501),
        (Method::PUT, "/nosuch", 501),
        (Method::PATCH, "/nosuch", 501),
        (Method::DELETE, "/nosuch", 501),
        (Method::POST, "/citus", 501),
        (Method::POST, "/mpp", 501),
        (Method::POST, "/sigterm", 501),
        (Method::DELETE, "/switchover", 404),
        (Method::TRACE, "/primary", 405),
        (Method::POST, "/api/v1/state", 405),
        (Method::PUT, "/api/v1/config", 405),
        (Method::GET, "/api/v1/nosuch", 404),
        (Method::GET, "/api/v1/nodes/b", 405),
    ] {
        let (found, answer) = server.order(method.clone(), path, Value::Null).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        if path.starts_with("/api/") {
            assert!(
                answer["error"].is_string() && answer["code"].is_string(),
                "{answer}"
            );
        }
    }
    let (status, answer) = server.order(Method::PATCH, "/config", json!(null)).await;
    assert_eq!(status, 411, "{answer}");
}
