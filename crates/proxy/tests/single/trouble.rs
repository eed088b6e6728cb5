//! Peers that are slow, silent, gone, or too many.

use crate::alone::Alone;
use crate::raw::{Raw, packet, query, startup, told};
use crate::server::{Server, code, one, story};
use crate::tls::{Authority, secured};
use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use futures_util::future::{join_all, try_join_all};
use proxy::{Limits, PoolMode};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];
const CANCEL_REQUEST: u32 = 80_877_102;

async fn off_the_runtime<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    tokio::task::block_in_place(work)
}

#[test]
#[expect(clippy::print_stdout, reason = "a figure to be published")]
fn ten_thousand_idle_sessions_take_little() {
    story(async |server| {
        let proxy = Alone::start(server.port())?;
        let mut idle = Vec::new();
        for _ in 0..50 {
            let some = (0..200).map(|_| Raw::logged_in(proxy.address));
            idle.extend(try_join_all(some).await?);
        }
        // Each tenth has been at work before.
        for raw in idle.iter_mut().step_by(10) {
            raw.send(&query("select 7")).await?;
            raw.until(b'Z').await?;
        }
        let kilobytes = proxy.memory("VmRSS")?;
        ensure!(idle.len() == 10_000);
        println!("10,000 sessions without TLS: {kilobytes} kB");
        ensure!(kilobytes <= 64 * 1024, "{kilobytes} kB");
        // They are still there.
        for raw in idle.iter_mut().rev().step_by(100) {
            raw.send(&query("select 8")).await?;
            raw.until(b'Z').await?;
        }
        Ok(())
    });
}

/// Logged in by TLS, which begins at once.
async fn logged_in_by_tls(proxy: &Alone, authority: &Authority) -> Result<TlsStream<TcpStream>> {
    const READY: &[u8] = b"Z\0\0\0\x05I";
    let tcp = TcpStream::connect(proxy.address).await?;
    let mut tls = secured(tcp, authority, Some("postgresql")).await?;
    tls.write_all(&startup(&[("user", "app")])).await?;
    tls.flush().await?;
    let mut said = Vec::new();
    while !said.ends_with(READY) {
        let count = tls.read_buf(&mut said).await?;
        ensure!(count > 0, "it ended: {}", String::from_utf8_lossy(&said));
    }
    Ok(tls)
}

/// From a few hundred on. As many as `STANDFAST_TEST_TLS_SESSIONS` says, for a figure to be published.
#[test]
#[expect(clippy::print_stdout, reason = "a figure to be published")]
fn an_idle_session_by_tls_takes_16_kilobytes_at_most() {
    const FIRST: usize = 200;
    story(async |server| {
        let authority = Authority::new(server, "ours")?;
        authority.sign(server, "proxy", "127.0.0.1")?;
        let proxy = Alone::start_with(server.port(), Some(&authority.path("proxy")))?;
        let most = match std::env::var("STANDFAST_TEST_TLS_SESSIONS") {
            Ok(most) => most.parse()?,
            Err(_) => 800,
        };
        let mut idle = Vec::new();
        let mut before = 0;
        while idle.len() < most {
            let some = (0..50).map(|_| logged_in_by_tls(&proxy, &authority));
            idle.extend(try_join_all(some).await?);
            if idle.len() == FIRST {
                before = proxy.memory("VmRSS")?;
            }
        }
        let after = proxy.memory("VmRSS")?;
        let each = (after - before) as f64 / (idle.len() - FIRST) as f64;
        println!(
            "{} sessions by TLS: {after} kB, {each:.1} kB each",
            idle.len()
        );
        ensure!(each <= 16.0, "{each:.1} kB each");
        // They are still there.
        for tls in idle.iter_mut().rev().step_by(50) {
            tls.write_all(&query("select 8")).await?;
            tls.flush().await?;
            ensure!(tls.read_u8().await? == b'T');
        }
        Ok(())
    });
}

/// A machine that is gone says no goodbye. That the kernel asks after both sides is seen in its timers; what comes of
/// it, `sessions_outlive_the_primary` shows, which can cut a cable.
#[test]
fn both_sides_are_asked_whether_they_are_still_there() {
    const ESTABLISHED: &str = "01";
    const KEEPALIVE: &str = "02";
    story(async |server| {
        let proxy = server
            .trusting(PoolMode::Session, Limits::default())
            .await?;
        let mut raw = Raw::logged_in(proxy.address).await?;
        raw.send(&query("select 7")).await?;
        raw.until(b'Z').await?;
        let (client, server) = (proxy.address.port(), server.port());
        lab::eventually("the timers run", Duration::from_secs(20), async || {
            let table = std::fs::read_to_string("/proc/net/tcp")?;
            let (mut clients, mut servers) = (0, 0);
            for line in table.lines().skip(1) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let port = |at: usize| {
                    let (_, port) = words[at].split_once(':').context("a port")?;
                    anyhow::Ok(u16::from_str_radix(port, 16)?)
                };
                if words[3] != ESTABLISHED || !words[5].starts_with(KEEPALIVE) {
                    continue;
                }
                clients += usize::from(port(1)? == client);
                servers += usize::from(port(2)? == server);
            }
            ensure!(clients == 1 && servers >= 1, "{clients}, {servers}");
            Ok(())
        })
        .await
    });
}

#[test]
fn who_does_not_read_costs_little_and_harms_nobody() {
    story(async |server| {
        let proxy = Alone::start(server.port())?;
        let mut stuck = Vec::new();
        for n in 0..15 {
            let mut raw = Raw::logged_in(proxy.address).await?;
            // 500 MB each, as rows and as one value after the other by COPY.
            let sql = match n % 2 {
                0 => "select repeat('x', 1000000) from generate_series(1, 500)",
                _ => "copy (select repeat('x', 1000000) from generate_series(1, 500)) to stdout",
            };
            raw.send(&query(sql)).await?;
            stuck.push(raw);
        }
        let busy = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
        lab::eventually("all are stuck", Duration::from_secs(30), async || {
            ensure!(server.psql(busy)? == "15");
            Ok(())
        })
        .await?;
        let kilobytes = proxy.memory("VmHWM")?;
        ensure!(kilobytes <= 48 * 1024, "{kilobytes} kB");
        let mut other = Raw::logged_in(proxy.address).await?;
        for _ in 0..20 {
            other.send(&query("select 7")).await?;
            other.until(b'Z').await?;
        }
        // When they go, their servers do.
        drop(stuck);
        lab::eventually("nobody is stuck", Duration::from_secs(30), async || {
            ensure!(server.psql(busy)? == "0");
            Ok(())
        })
        .await
    });
}

#[test]
fn who_floods_a_server_that_does_not_listen_costs_little() {
    story(async |server| {
        server.sql(
            "app",
            "create table locked (a int); grant all on locked to app",
        )?;
        let proxy = Alone::start(server.port())?;
        let lock = format!(
            "host=127.0.0.1 port={} user=app password=pencil dbname=app",
            server.port()
        );
        let (lock, connection) = tokio_postgres::connect(&lock, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        lock.batch_execute("begin; lock table locked").await?;
        let mut floods = Vec::new();
        for _ in 0..10 {
            let mut raw = Raw::logged_in(proxy.address).await?;
            raw.send(&query("select * from locked")).await?;
            floods.push(raw);
        }
        // Behind it, requests without an end: some small, some large.
        let small = query("select 1").repeat(10_000);
        let large = query(&format!("select '{}'", "x".repeat(900_000)));
        let taken = join_all(floods.iter_mut().enumerate().map(async |(n, raw)| {
            let mut taken = 0;
            let bytes = if n % 2 == 0 { &small } else { &large };
            while taken < 200_000_000 && raw.offer(bytes, Duration::from_secs(2)).await {
                taken += bytes.len();
            }
            taken
        }))
        .await;
        ensure!(taken.iter().all(|bytes| *bytes < 200_000_000), "{taken:?}");
        let kilobytes = proxy.memory("VmHWM")?;
        ensure!(kilobytes <= 64 * 1024, "{kilobytes} kB");
        let mut other = Raw::logged_in(proxy.address).await?;
        other.send(&query("select 7")).await?;
        other.until(b'Z').await?;
        Ok(())
    });
}

fn few() -> Limits {
    Limits {
        hold_clients: 3,
        hold_bytes: 100_000,
        hold_time: Duration::from_secs(20),
        ..Limits::default()
    }
}

/// Three may wait; the fourth hears why not, and its session goes on.
#[test]
fn a_hold_queue_that_is_full_says_so() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, few()).await?;
            let mut clients = Vec::new();
            for _ in 0..5 {
                clients.push(Raw::logged_in(proxy.address).await?);
            }
            off_the_runtime(|| server.down("immediate")).await?;
            let mut last = clients.pop().context("a client")?;
            let mut refused = 0;
            let mut held = Vec::new();
            for mut raw in clients {
                raw.send(&query("select 7")).await?;
                held.push(raw);
            }
            // One of the four is refused: which of them, the race decides.
            let first = futures_util::future::select_all(
                held.iter_mut().map(|raw| Box::pin(raw.until(b'Z'))),
            );
            let (heard, at, _) = tokio::time::timeout(Duration::from_secs(10), first).await?;
            refused += usize::from(told(&heard?) == "ERROR 57P03");
            drop(held.remove(at));
            ensure!(refused == 1, "{mode:?}");
            // Who gives up leaves the place to another.
            drop(held.pop());
            let mut told_last = String::new();
            lab::eventually("there is room again", Duration::from_secs(10), async || {
                let mut raw = Raw::connect(proxy.address).await?;
                raw.send(&startup(&[("user", "app"), ("database", "app")]))
                    .await?;
                raw.until(b'Z').await?;
                raw.send(&query("select 7")).await?;
                let waited = tokio::time::timeout(Duration::from_millis(300), raw.hear()).await;
                ensure!(waited.is_err(), "refused");
                Ok(())
            })
            .await?;
            // More bytes than may wait.
            for n in 0..40 {
                last.send(&query(&format!("select '{}'", "x".repeat(120_000))))
                    .await?;
                told_last = told(&last.until(b'Z').await?);
                if told_last == "ERROR 57P03" {
                    break;
                }
                ensure!(n < 39);
            }
            ensure!(told_last == "ERROR 57P03", "{told_last}");
            off_the_runtime(|| server.up()).await?;
            for raw in &mut held {
                ensure!(told(&raw.until(b'Z').await?) == "nothing", "{mode:?}");
            }
            last.send(&query("select 7")).await?;
            ensure!(told(&last.until(b'Z').await?) == "nothing", "{mode:?}");
        }
        Ok(())
    });
}

/// It is those who wait that count, not those among them who have a place of the pool.
#[test]
fn who_waits_for_a_place_of_a_pool_without_servers_is_counted_too() {
    story(async |server| {
        let limits = Limits {
            pool_size: 1,
            ..few()
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        let mut clients = Vec::new();
        for _ in 0..9 {
            clients.push(Raw::logged_in(proxy.address).await?);
        }
        off_the_runtime(|| server.down("immediate")).await?;
        for raw in &mut clients {
            raw.send(&query("select 7")).await?;
        }
        let mut answers: futures_util::stream::FuturesUnordered<_> =
            clients.iter_mut().map(|raw| raw.until(b'Z')).collect();
        for _ in 0..6 {
            let soon = tokio::time::timeout(Duration::from_secs(10), answers.next());
            let heard = soon.await?.context("an answer")??;
            ensure!(told(&heard) == "ERROR 57P03", "{}", told(&heard));
            let said = String::from_utf8_lossy(&heard[0].1).into_owned();
            ensure!(said.contains("3 requests wait already"), "{said}");
            ensure!(!said.contains("in use"), "{said}");
        }
        off_the_runtime(|| server.up()).await?;
        while let Some(heard) = answers.next().await {
            ensure!(told(&heard?) == "nothing");
        }
        Ok(())
    });
}

#[test]
fn who_waits_for_a_primary_can_cancel() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, few()).await?;
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&startup(&[("user", "app"), ("database", "app")]))
                .await?;
            let greeted = raw.until(b'Z').await?;
            let key = greeted.iter().find(|(tag, _)| *tag == b'K');
            let key = key.context("a key")?.1.clone();
            off_the_runtime(|| server.down("immediate")).await?;
            raw.send(&query("select 7")).await?;
            let canceled = async {
                let failed: Result<_> = loop {
                    // Whether it waits already can't be seen: a cancel that comes too early is none.
                    if let Err(error) = cancel(proxy.address, &key).await {
                        break Err(error);
                    }
                };
                failed
            };
            let heard = tokio::select! {
                heard = raw.until(b'Z') => heard?,
                failed = canceled => failed?,
            };
            ensure!(told(&heard) == "ERROR 57014", "{mode:?}: {}", told(&heard));
            off_the_runtime(|| server.up()).await?;
            raw.send(&query("select 7")).await?;
            ensure!(told(&raw.until(b'Z').await?) == "nothing");
        }
        Ok(())
    });
}

async fn cancel(address: std::net::SocketAddr, key: &[u8]) -> Result<()> {
    let mut cancel = Raw::connect(address).await?;
    cancel.send(&packet(CANCEL_REQUEST, key)).await?;
    cancel.end().await.map(drop)
}

/// What was half said when the server went is never made to look whole.
#[test]
fn a_result_that_was_cut_off_is_not_taken_for_whole() {
    story(async |server| {
        for mode in BOTH {
            for (before, sql) in [
                (
                    "",
                    "select repeat('x', 100000) from generate_series(1, 2000)",
                ),
                (
                    "begin",
                    "select repeat('x', 100000) from generate_series(1, 2000)",
                ),
                (
                    "",
                    "copy (select repeat('x', 9000) from generate_series(1, 20000)) to stdout",
                ),
                ("", "select repeat('x', 200000000)"),
            ] {
                let proxy = server.trusting(mode, Limits::default()).await?;
                let mut raw = Raw::logged_in(proxy.address).await?;
                raw.send(&query(before)).await?;
                raw.until(b'Z').await?;
                raw.send(&query(sql)).await?;
                let first = raw.hear().await?.context("a beginning")?;
                ensure!(first.0 == b'T' || first.0 == b'H');
                restart(server).await?;
                let mut rest = Vec::new();
                while let Some(heard) = raw.hear().await? {
                    let over = heard.0 == b'Z';
                    rest.push((heard.0, if heard.0 == b'E' { heard.1 } else { Vec::new() }));
                    if over {
                        break;
                    }
                }
                ensure!(rest.iter().all(|(tag, _)| *tag != b'C'), "{mode:?} {sql}");
                let end = told(&rest);
                let honest = ["FATAL 08007", "ERROR 40001", "nothing"];
                ensure!(honest.contains(&&*end), "{mode:?} {before} {sql}: {end}");
            }
        }
        Ok(())
    });
}

async fn restart(server: &Server) -> Result<()> {
    off_the_runtime(|| {
        server.down("immediate")?;
        server.up()
    })
    .await
}

/// Who comes while there is no server is let in when there is one.
#[test]
fn a_login_waits_for_a_server() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            off_the_runtime(|| server.down("immediate")).await?;
            let up = async { off_the_runtime(|| server.up()).await };
            let (client, up) = tokio::join!(proxy.client("app"), up);
            up?;
            ensure!(one(&client?, "select 7").await? == "7");
            // And who is known by the greeting of another.
            off_the_runtime(|| server.down("immediate")).await?;
            let client = proxy.client("app").await?;
            let up = async { off_the_runtime(|| server.up()).await };
            let (answer, up) = tokio::join!(client.batch_execute("select 7"), up);
            up?;
            ensure!(code(answer) == "ok");
        }
        Ok(())
    });
}
