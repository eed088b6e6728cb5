//! Much of everything: long bodies, many connections. Answered or closed, in bounded memory.

use crate::world::{SECRET, Server, World};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// More than other tests of this process use meanwhile, and far less than what is sent.
const GROWTH_MAX: u64 = 100 << 20;

/// Resident bytes of this process, the server's and the clients'.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits
        .and_then(|it| it.parse::<u64>().ok())
        .expect("a number")
        << 10
}

#[tokio::test]
async fn bodies_of_ten_megabytes_are_refused_unread() {
    let world = World::three().await;
    let server = world.serve("a").await;
    let before = resident();
    let length = 10 << 20;
    let send = async |line: &str| {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n",
            api::Token::derive(SECRET).header()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut sent = 0;
        while sent < length && stream.write_all(&[b' '; 1 << 16]).await.is_ok() {
            sent += 1 << 16;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // A server that has answered and closes over unread bytes may take its answer back.
        assert!(
            answer.is_empty() || answer.contains(" 413 "),
            "{line}: {answer}"
        );
        sent
    };
    let lines = [
        "POST /switchover",
        "PATCH /config",
        "POST /restart",
        "POST /api/v1/perform",
    ];
    let mut all = Vec::new();
    for _ in 0..5 {
        all.extend(lines.map(&send));
    }
    let sent = futures_util::future::join_all(all).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more for {sent:?}");
    assert_eq!(server.code("/primary").await, 200);
}

async fn open(server: &Server, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("all of 127/8 is here");
    socket.connect(server.address).await.expect("connected")
}

#[tokio::test]
async fn a_thousand_open_connections_cost_little_and_keep_nobody_out() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("ours to raise");
    let world = World::three().await;
    let server = world.serve("a").await;
    let before = resident();
    let mut crowd = Vec::new();
    for number in 0..1000_u32 {
        let mut stream = open(&server, [127, 1, 0, (number % 8 + 1) as u8]).await;
        let _ = stream
            .write_all(b"GET /patroni HTTP/1.1\r\nHost: x\r\n")
            .await;
        crowd.push(stream);
    }
    for _ in 0..20 {
        let mut check = open(&server, [127, 0, 0, 1]).await;
        let asked = b"OPTIONS /primary HTTP/1.0\r\n\r\n";
        check.write_all(asked).await.expect("sent");
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), check.read_to_string(&mut answer));
        read.await.expect("in time").expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
    let grown = resident().saturating_sub(before);
    assert!(
        grown < GROWTH_MAX,
        "{grown} bytes more for {} connections",
        crowd.len()
    );
}
