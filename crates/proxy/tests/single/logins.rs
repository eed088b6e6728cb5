//! Logins that are cut to harm: too long, too slow, too many, and with lengths that are lies.

use crate::raw::{Raw, message, packet, startup, told};
use crate::server::{Running, code, one, story};
use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use proxy::{Limits, PoolMode};
use std::time::Duration;

const CANCEL_REQUEST: u32 = 80_877_102;
const SOON: Duration = Duration::from_secs(60);

/// SASLInitialResponse, with a length of its own choice.
fn sasl_of(length: u32, first: &[u8]) -> Vec<u8> {
    let head = [&b"SCRAM-SHA-256\0"[..], &length.to_be_bytes()].concat();
    message(b'p', &[&head, first].concat())
}

fn sasl(first: &[u8]) -> Vec<u8> {
    sasl_of(u32::try_from(first.len()).unwrap_or(u32::MAX), first)
}

/// Up to the question for a proof.
async fn asked(proxy: &Running) -> Result<Raw> {
    let mut raw = Raw::connect(proxy.address).await?;
    raw.send(&startup(&[("user", "app")])).await?;
    raw.until(b'R').await?;
    Ok(raw)
}

fn patient() -> Limits {
    Limits {
        login_time: SOON,
        ..Limits::default()
    }
}

#[test]
fn a_message_of_sasl_has_1024_bytes_at_most_and_no_length_but_its_own() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, patient()).await?;
        let first = |bytes: usize| {
            let head = "SCRAM-SHA-256\0....n,,n=,r=".len();
            format!("n,,n=,r={}", "x".repeat(bytes - head)).into_bytes()
        };
        // The longest that there may be: a nonce of 998 characters, and it is answered with ours behind it.
        let mut raw = asked(&proxy).await?;
        raw.send(&sasl(&first(1_024))).await?;
        let challenge = raw.until(b'R').await?;
        let challenge = &challenge.first().context("a challenge")?.1;
        ensure!(challenge.len() < 1_200, "{} bytes", challenge.len());
        // Its answer may be as long, and no longer.
        raw.send(&message(b'p', &[b'x'; 1_024])).await?;
        ensure!(raw.end().await? == "FATAL 28P01");
        for too_long in [sasl(&first(1_025)), message(b'p', &[b'x'; 60_000])] {
            let mut raw = asked(&proxy).await?;
            raw.send(&too_long).await?;
            ensure!(raw.end().await? == "FATAL 08P01");
        }
        let mut raw = asked(&proxy).await?;
        raw.send(&sasl(b"n,,n=,r=abc")).await?;
        raw.until(b'R').await?;
        raw.send(&message(b'p', &[b'x'; 1_025])).await?;
        ensure!(raw.end().await? == "FATAL 08P01");
        // Lies about the length within (CVE-2026-6664): -1 says that nothing is there, and something is.
        for length in [
            0,
            10,
            12,
            1_000,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX - 1,
            u32::MAX,
        ] {
            let mut raw = asked(&proxy).await?;
            raw.send(&sasl_of(length, b"n,,n=,r=abc")).await?;
            let told = raw.end().await?;
            ensure!(told == "FATAL 28P01", "{length:#x}: {told}");
        }
        // Nothing at first, as the protocol allows; and then all of it.
        let mut raw = asked(&proxy).await?;
        raw.send(&sasl_of(u32::MAX, b"")).await?;
        raw.until(b'R').await?;
        raw.send(&message(b'p', b"n,,n=,r=abc")).await?;
        raw.until(b'R').await?;
        one(&proxy.client("app").await?, "select 1").await.map(drop)
    });
}

/// The time for a login runs from the connection on, whatever is said meanwhile, and its end is told.
#[test]
fn who_proves_himself_a_byte_at_a_time_is_told_that_it_took_too_long() {
    story(async |server| {
        let limits = Limits {
            login_time: Duration::from_secs(2),
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let bytes = message(b'p', &[b'x'; 1_000]);
        let slow = (0..20).map(|_| async {
            let mut raw = asked(&proxy).await?;
            for byte in &bytes {
                let taken = raw.offer(&[*byte], Duration::from_secs(1)).await;
                let heard = tokio::time::timeout(Duration::from_millis(50), raw.hear());
                if let Ok(heard) = heard.await {
                    return Ok(told(&[heard?.context("a word")?]));
                }
                ensure!(taken, "it is not read from, and not told why");
            }
            anyhow::bail!("it was listened to up to the end");
        });
        let told = try_join_all(slow).await?;
        ensure!(told.iter().all(|told| told == "FATAL 57014"), "{told:?}");
        Ok(())
    });
}

#[test]
fn who_does_not_log_in_leaves_places_for_others() {
    const HERE: [u8; 4] = [127, 0, 0, 1];
    const THERE: [u8; 4] = [127, 0, 0, 2];
    const ELSEWHERE: [u8; 4] = [127, 0, 0, 3];
    story(async |server| {
        let limits = Limits {
            clients_max: 200,
            logins_max: 30,
            address_logins_max: 20,
            ..patient()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        // Who is in does not count.
        let mut inside = Vec::new();
        for _ in 0..25 {
            inside.push(proxy.client("app").await?);
        }
        let silent = async |source: [u8; 4], count: usize| {
            let all = (0..count).map(|_| Raw::connect_from(source, proxy.address));
            try_join_all(all).await
        };
        let refused = async |source: [u8; 4]| {
            let mut raw = Raw::connect_from(source, proxy.address).await?;
            let heard = raw.until(b'E').await?;
            let detail = heard.first().map(|(_, body)| String::from_utf8_lossy(body));
            let detail = detail.unwrap_or_default().into_owned();
            ensure!(told(&heard) == "FATAL 53300", "{}", told(&heard));
            Ok(detail)
        };
        let ask = async |source: [u8; 4]| {
            let mut raw = Raw::connect_from(source, proxy.address).await?;
            raw.send(&startup(&[("user", "app")])).await?;
            raw.until(b'R').await?;
            anyhow::Ok(raw)
        };
        let first = silent(HERE, 20).await?;
        ensure!(refused(HERE).await?.contains("of this address"));
        // It stays, as one of these: when the proxy would notice that it goes is not known.
        let asked = ask(THERE).await?;
        let second = silent(THERE, 9).await?;
        ensure!(!refused(ELSEWHERE).await?.contains("of this address"));
        for client in &inside {
            ensure!(one(client, "select 7").await? == "7");
        }
        // Cancels are for those who are in; from outside they count like anything else.
        let mut raw = Raw::connect_from(ELSEWHERE, proxy.address).await?;
        raw.send(&packet(CANCEL_REQUEST, &[9; 8])).await?;
        ensure!(raw.end().await? == "FATAL 53300");
        drop((first, second, asked));
        lab::eventually("their places are free", SOON, async || {
            ask(HERE).await?;
            ask(ELSEWHERE).await.map(drop)
        })
        .await?;
        ensure!(code(proxy.config("app").connect(tokio_postgres::NoTls).await) == "ok");
        Ok(())
    });
}

/// Anybody may ask for a database that there is not: nothing of it is kept.
#[test]
fn databases_that_are_only_asked_for_leave_no_trace() {
    story(async |server| {
        server.psql("create role asker login superuser password 'pencil'")?;
        let proxy = server
            .proxy_with(|options| {
                options.users = proxy::Users::parse("\"asker\" \"pencil\"").unwrap_or_default();
                options.auth_query = Some(proxy::AuthQuery {
                    user: "asker".to_owned(),
                    query: proxy::AuthQuery::DEFAULT.to_owned(),
                    database: None,
                });
                options.limits = patient();
                options.admins.look = vec!["asker".to_owned()];
            })
            .await?;
        let asked = (0..50).map(|n| {
            let proxy = &proxy;
            async move {
                let mut raw = Raw::connect(proxy.address).await?;
                let database = format!("none_{n}");
                raw.send(&startup(&[("user", "app"), ("database", &database)]))
                    .await?;
                // Whether there is such a database is not for him to know.
                raw.until(b'R').await
            }
        });
        try_join_all(asked).await?;
        let mut config = proxy.config("asker");
        let (console, connection) = config
            .dbname("pgbouncer")
            .connect(tokio_postgres::NoTls)
            .await?;
        tokio::spawn(connection);
        lab::eventually("they are forgotten", SOON, async || {
            let rows = console.simple_query("SHOW POOLS").await?;
            let row = |message: &tokio_postgres::SimpleQueryMessage| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            };
            let left = rows.iter().filter_map(row).count();
            ensure!(left == 0, "{left}");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_flood_of_cancels_ends_nothing_that_is_not_meant() {
    story(async |server| {
        let limits = Limits {
            pool_size: 1,
            ..patient()
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        let mut mine = Raw::connect(proxy.address).await?;
        mine.send(&startup(&[("user", "app")])).await?;
        let greeted = mine.until(b'Z').await?;
        let key = greeted.iter().find(|(tag, _)| *tag == b'K');
        let key = key.context("a key")?.1.clone();
        let other = proxy.client("app").await?;
        let cancel = async |key: &[u8]| {
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&packet(CANCEL_REQUEST, key)).await?;
            // Right or wrong, nothing is said.
            ensure!(raw.end().await? == "nothing");
            anyhow::Ok(())
        };
        // Both take turns at one connection to the server, and one of them is cancelled all the time.
        let flood = async {
            for _ in 0..40 {
                try_join_all((0..10).map(|_| cancel(&key))).await?;
            }
            anyhow::Ok(())
        };
        let turns = async {
            let mut canceled = 0;
            for _ in 0..200 {
                mine.send(&crate::raw::query("select pg_sleep(0.005)"))
                    .await?;
                canceled += u32::from(told(&mine.until(b'Z').await?) == "ERROR 57014");
                one(&other, "select pg_sleep(0.002)").await?;
            }
            anyhow::Ok(canceled)
        };
        let (flooded, canceled) = tokio::join!(flood, turns);
        flooded?;
        ensure!(canceled? > 0, "no cancel has come through");
        // A key that is wrong in its secret alone, again and again.
        mine.send(&crate::raw::query("select pg_sleep(2)")).await?;
        let wrong = (0..300_u32).map(|n| {
            let secret = u32::from_be_bytes([key[4], key[5], key[6], key[7]]);
            [&key[..4], &secret.wrapping_add(n + 1).to_be_bytes()].concat()
        });
        for key in wrong {
            cancel(&key).await?;
        }
        ensure!(told(&mine.until(b'Z').await?) == "nothing");
        Ok(())
    });
}
