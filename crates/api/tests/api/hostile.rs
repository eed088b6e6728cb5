//! Bad input: a clear answer or a closed connection, never a panic, and the next one is served.

use crate::world::{Server, World};
use reqwest::Method;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes and reads what comes back until the end, at most ten seconds.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    // The other side may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("an end within 10 s");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn head_and_options_are_answered_by_the_status_alone() {
    let world = World::three().await;
    let server = world.serve("a").await;
    // As HAProxy's `option httpchk` asks.
    for (request, status) in [
        ("OPTIONS / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n"),
        ("OPTIONS /primary HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n"),
        ("HEAD /primary HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n"),
        (
            "HEAD /replica HTTP/1.0\r\n\r\n",
            "HTTP/1.0 503 Service Unavailable\r\n",
        ),
        (
            "OPTIONS /replica HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\n",
        ),
    ] {
        let answer = raw(&server, request.as_bytes()).await;
        assert!(answer.starts_with(status), "{request:?}: {answer:?}");
        assert!(answer.ends_with("\r\n\r\n"), "no body: {answer:?}");
    }
}

/// Patroni: REST | an order without `Content-Length` | as Patroni: 411; a body in chunks is read
#[tokio::test]
async fn an_order_without_a_body_is_asked_for_its_length() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let ask = async |line: &str, rest: &str| {
        let head = "Host: x\r\nConnection: close\r\nAuthorization: Basic YWRtaW46c2VjcmV0\r\n";
        raw(
            &server,
            format!("{line} HTTP/1.1\r\n{head}{rest}").as_bytes(),
        )
        .await
    };
    for line in [
        "PATCH /config",
        "PUT /config",
        "POST /switchover",
        "POST /failover",
    ] {
        let none = ask(line, "\r\n").await;
        assert!(
            none.starts_with("HTTP/1.1 411 Length Required\r\n"),
            "{line}: {none:?}"
        );
        let empty = ask(line, "Content-Length: 0\r\n\r\n").await;
        assert!(empty.starts_with("HTTP/1.1 400 "), "{line}: {empty:?}");
    }
    let chunks = "Transfer-Encoding: chunked\r\n\r\na\r\n{\"ttl\": 4}\r\n0\r\n\r\n";
    let chunked = ask("PATCH /config", chunks).await;
    assert!(chunked.starts_with("HTTP/1.1 200 OK\r\n"), "{chunked:?}");
    let optional = ask("POST /reload", "\r\n").await;
    assert!(
        optional.starts_with("HTTP/1.1 202 Accepted\r\n"),
        "{optional:?}"
    );
}

#[tokio::test]
async fn garbage_is_answered_or_closed() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(300));
    let cases: [&[u8]; 12] = [
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /api/v1/perform HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /switchover HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        long_header.as_bytes(),
        many_headers.as_bytes(),
    ];
    for case in cases {
        let answer = raw(&server, case).await;
        assert!(!answer.contains(" 200 "), "{case:?}: {answer}");
        assert_eq!(server.code("/primary").await, 200);
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_never_believed() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let deep = "[".repeat(50_000);
    let wide = format!("{{\"x\":\"{}\"}}", "y".repeat(70_000));
    for path in [
        "/api/v1/perform",
        "/switchover",
        "/api/v1/register",
        "/api/v1/nodes/b",
    ] {
        for (body, codes) in [
            (deep.as_str(), [400, 400]),
            (wide.as_str(), [413, 413]),
            ("{\"action\":", [400, 400]),
            ("{\"action\":NaN}", [400, 400]),
            (
                "{\"action\":\"switchover\",\"action\":\"switchover\"}",
                [400, 422],
            ),
            ("\u{feff}{}", [400, 400]),
            (
                "{\"leader\": 5, \"priority\": \"x\", \"action\": 7}",
                [400, 400],
            ),
        ] {
            let token = api::Token::derive(crate::world::SECRET).header();
            let response = server
                .client
                .post(server.url(path))
                .header("authorization", token)
                .header("content-type", "application/json")
                .body(body.to_owned())
                .send()
                .await
                .expect("an answer");
            let status = response.status().as_u16();
            let start: String = body.chars().take(40).collect();
            assert!(codes.contains(&status), "{path} {start}: {status}");
        }
    }
    let cut = b"PATCH /config HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"ttl\":";
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(cut).await.expect("sent");
    drop(stream);
    assert_eq!(server.code("/primary").await, 200);
}

#[tokio::test]
async fn a_header_that_trickles_in_is_cut_off() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let began = Instant::now();
    let answer = raw(&server, b"GET / HTTP/1.1\r\nX-Slow: ").await;
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(8),
        "{took:?} {answer}"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let requests = "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50)
        + "GET /replica HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = raw(&server, requests.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 50);
    assert_eq!(answer.matches("HTTP/1.1 503").count(), 1);
}

#[tokio::test]
async fn a_crowd_of_half_open_connections_displaces_itself_and_not_health_checks() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut stream = connect_from([127, 0, 0, 2], &server).await;
        // Of the first some are closed already.
        let _ = stream.write_all(b"GET /primary HTTP/1.1\r\n").await;
        crowd.push(stream);
    }
    let mut check = connect_from([127, 0, 0, 1], &server).await;
    for _ in 0..5 {
        for _ in 0..60 {
            crowd.push(connect_from([127, 0, 0, 2], &server).await);
        }
        let request = b"GET /primary HTTP/1.1\r\nHost: x\r\n\r\n";
        check.write_all(request).await.expect("it is kept open");
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(5), check.read(&mut answer));
        let length = read.await.expect("in time").expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

async fn connect_from(address: [u8; 4], server: &Server) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind((address, 0).into())
        .expect("all of 127/8 is here");
    socket.connect(server.address).await.expect("connected")
}

#[tokio::test]
async fn streams_leave_room_for_health_checks() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let response = server.get("/api/v1/events/stream").await;
        assert_eq!(response.status(), 200);
        streams.push(response);
    }
    assert_eq!(server.code("/api/v1/events/stream").await, 503);
    assert_eq!(server.code("/primary").await, 200);
    drop(streams);
    crate::world::until("a stream is free", async || {
        server.code("/api/v1/events/stream").await == 200
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_store_is_an_error_with_its_key() {
    let world = World::three().await;
    let server = world.serve("a").await;
    world
        .write(store::Txn::new().put(world.keys.epoch(), "not json"))
        .await;
    let (status, answer) = server
        .order(
            Method::POST,
            "/api/v1/perform",
            serde_json::json!({"action": "switchover"}),
        )
        .await;
    assert_eq!(status, 503);
    assert!(
        answer["error"]
            .as_str()
            .expect("a sentence")
            .contains("standfast/epoch"),
        "{answer}"
    );
    let (status, _) = server
        .order(Method::DELETE, "/api/v1/nodes/a", Value::Null)
        .await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let began = Instant::now();
    let answer = raw(&server, b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let took = began.elapsed();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

/// A request mutated in a few places, the same for the same seed.
fn mutated(seed: u64) -> Vec<u8> {
    const REQUESTS: [&str; 4] = [
        "GET /replica?lag=16MB&tag_x=%41 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "POST /switchover HTTP/1.1\r\nAuthorization: Basic YWRtaW46c2VjcmV0\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"leader\":\"x\"}",
        "PATCH /api/v1/config HTTP/1.1\r\nAuthorization: Basic YWRtaW46c2VjcmV0\r\nContent-Type: application/json\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{\"ttl\":5}",
        "GET /api/v1/events/stream?after=x HTTP/1.0\r\nLast-Event-ID: 99999999999999999999\r\n\r\n",
    ];
    let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    let mut bytes = REQUESTS[next(REQUESTS.len())].as_bytes().to_vec();
    for _ in 0..1 + next(6) {
        let at = next(bytes.len().max(1));
        match next(4) {
            _ if bytes.is_empty() => break,
            0 => bytes[at] = u8::try_from(next(256)).expect("a byte"),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, u8::try_from(next(256)).expect("a byte")),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

#[tokio::test]
async fn mutated_requests_break_nothing() {
    let world = World::three().await;
    let server = world.serve("a").await;
    for seed in 0..400 {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        let _ = stream.write_all(&mutated(seed)).await;
        let mut answer = [0; 32];
        let read = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut answer));
        if let Ok(Ok(length)) = read.await
            && length > 0
        {
            assert!(answer.starts_with(b"HTTP/1."), "seed {seed}: {answer:?}");
        }
    }
    assert_eq!(server.code("/primary").await, 200);
}
