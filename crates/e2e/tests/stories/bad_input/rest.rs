//! Requests of those who mean harm or make mistakes, to the primary's REST interface: an answer or
//! a closed connection, never a panic, and nothing in the cluster changes.

use super::orders::cluster_state;
use super::running_cluster::{BASIC, Place};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than the server waits for a body that does not come.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends bytes and reads what comes back until the end.
async fn raw(address: &str, bytes: &[u8]) -> Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        // The other side may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(LIMIT, talk)
        .await
        .context("no end of the answer")?
}

fn status(answer: &str) -> u16 {
    let code = answer.split_whitespace().nth(1);
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn with_body(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(super) async fn hostile_requests(place: &Place<'_>) -> Result<()> {
    let leader = place.whole().await?;
    let node = place.cluster.node(&leader)?;
    let before = cluster_state(place).await?;
    let api = node.api.clone();
    without_rights(&api).await.context("credentials")?;
    bodies(&api).await.context("bodies")?;
    settings(&api).await.context("settings")?;
    paths(&api).await.context("paths and methods")?;
    ensure!(node.is_primary().await, "{leader} no longer leads");
    ensure!(
        cluster_state(place).await? == before,
        "something was changed"
    );
    let log = node.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Everything that changes something asks who it is for, before it reads what is wanted.
async fn without_rights(api: &str) -> Result<()> {
    let credentials = [
        "",
        "Authorization: Bearer 0123456789abcdef\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic YWRtaW46YWRtaW4=\r\n",
        "Authorization: Basic !!!\r\n",
        "Authorization: \u{7f}\r\n",
    ];
    for line in [
        "POST /switchover",
        "POST /failover",
        "POST /restart",
        "POST /reload",
        "POST /reinitialize",
        "PATCH /config",
        "PUT /config",
        "DELETE /switchover",
        "POST /api/v1/perform",
        "POST /api/v1/register",
        "POST /api/v1/nodes/b",
        "DELETE /api/v1/nodes/b",
        "POST /api/v1/nodes/b/maintenance",
        "PATCH /api/v1/config",
    ] {
        for authorization in credentials {
            let headers = format!("{authorization}Content-Type: application/json\r\n");
            let answer = raw(api, &with_body(line, &headers, b"{\"enabled\": true}")).await?;
            let refused = matches!(status(&answer), 400 | 401);
            ensure!(refused, "{line} {authorization:?}: {answer}");
        }
    }
    Ok(())
}

async fn bodies(api: &str) -> Result<()> {
    let (deep, wide) = (
        "[".repeat(50_000),
        format!("{{\"x\":\"{}\"}}", "y".repeat(70_000)),
    );
    let json = format!("{BASIC}\r\nContent-Type: application/json\r\n");
    for path in [
        "/switchover",
        "/config",
        "/api/v1/perform",
        "/api/v1/register",
        "/api/v1/nodes/b",
    ] {
        let method = if path == "/config" { "PATCH" } else { "POST" };
        for (body, code) in [
            (deep.as_bytes(), 400),
            (wide.as_bytes(), 413),
            (b"{\"action\":", 400),
            (b"{\"action\": NaN}", 400),
            (b"\xff\xfe{}", 400),
            (b"[1, 2]", 400),
            (b"\"text\"", 400),
        ] {
            let answer = raw(api, &with_body(&format!("{method} {path}"), &json, body)).await?;
            ensure!(
                status(&answer) == code,
                "{method} {path} {:?}: {answer}",
                body.get(..20)
            );
        }
    }
    let twice = b"{\"action\": \"switchover\", \"action\": \"failover\"}";
    let answer = raw(api, &with_body("POST /api/v1/perform", &json, twice)).await?;
    ensure!(
        status(&answer) == 400 && answer.contains("duplicate"),
        "{answer}"
    );
    let text = format!("{BASIC}\r\nContent-Type: text/plain\r\n");
    let answer = raw(api, &with_body("POST /api/v1/perform", &text, b"{}")).await?;
    ensure!(status(&answer) == 415, "{answer}");
    // Announced and never sent.
    let cut =
        format!("PATCH /config HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 100\r\n\r\n{{\"ttl\":");
    let mut stream = TcpStream::connect(api).await?;
    stream.write_all(cut.as_bytes()).await?;
    drop(stream);
    Ok(())
}

/// Settings that could not work are refused whole.
async fn settings(api: &str) -> Result<()> {
    let json = format!("{BASIC}\r\nContent-Type: application/json\r\n");
    for (body, word) in [
        ("{\"ttl\": 0}", "ttl"),
        ("{\"ttl\": -1}", "ttl"),
        ("{\"ttl\": 1e99}", "ttl"),
        ("{\"ttl\": \"30s\"}", "ttl"),
        ("{\"ttl\": 3, \"beat\": 2}", "beat"),
        ("{\"failure_timeout\": 0.01}", "failure_timeout"),
        ("{\"loop_wait\": -5}", "loop_wait"),
        ("{\"synchronous_mode\": \"sometimes\"}", "synchronous_mode"),
        (
            "{\"synchronous_node_count\": \"many\"}",
            "synchronous_node_count",
        ),
        (
            "{\"maximum_lag_on_failover\": -1}",
            "maximum_lag_on_failover",
        ),
        ("{\"synchronous_mode\": \"off\", \"ttl\": 0}", "ttl"),
    ] {
        for path in ["/config", "/api/v1/config"] {
            let answer = raw(
                api,
                &with_body(&format!("PATCH {path}"), &json, body.as_bytes()),
            )
            .await?;
            ensure!(
                status(&answer) == 422 && answer.contains(word),
                "PATCH {path} {body}: {answer}"
            );
        }
    }
    Ok(())
}

async fn paths(api: &str) -> Result<()> {
    for (line, codes) in [
        ("GET /..%2f..%2f..%2fetc/passwd", [404, 503]),
        ("GET /../../../etc/passwd", [404, 503]),
        ("GET /api/v1/../../etc/passwd", [404, 404]),
        ("GET /api/v1/nothing", [404, 404]),
        ("GET /replica?lag=%ff", [503, 400]),
        ("GET /api/v1/events?count=-1", [400, 400]),
        ("GET /api/v1/events?count=99999999999999999999", [400, 400]),
        ("PUT /api/v1/state", [405, 405]),
        ("TRACE /", [405, 501]),
        ("TRACE /api/v1/state", [405, 501]),
        ("CONNECT 127.0.0.1:1", [405, 400]),
        ("BREW /", [405, 501]),
        // The leader can't be thrown away.
        ("POST /reinitialize", [503, 503]),
        ("DELETE /api/v1/nodes/..%2f..%2fx", [404, 404]),
        ("DELETE /api/v1/nodes/a%00", [404, 404]),
        ("DELETE /api/v1/nodes/b?force=perhaps", [400, 400]),
        // The start of a header in a name stays in the body, escaped.
        ("DELETE /api/v1/nodes/a%0d%0aX-Injected:%20yes", [404, 404]),
        ("GET /primary%0d%0aX-Injected:%20yes", [404, 503]),
    ] {
        let headers = format!("{BASIC}\r\nContent-Type: application/json\r\n");
        let answer = raw(api, &with_body(line, &headers, b"{}")).await?;
        ensure!(codes.contains(&status(&answer)), "{line}: {answer}");
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        ensure!(!head.contains("X-Injected"), "{line}: {answer}");
        ensure!(!answer.contains("root:"), "{line}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n".as_slice(),
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /switchover HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        long.as_bytes(),
    ] {
        let answer = raw(api, bytes).await?;
        ensure!(status(&answer) != 200, "{bytes:?}: {answer}");
    }
    Ok(())
}
