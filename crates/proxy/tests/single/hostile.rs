//! Clients that say what no client should: each is turned away with the right error, and nobody
//! else notices.

use crate::raw::{Raw, claims, message, packet, query, startup};
use crate::server::{Running, one, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{Limits, PoolMode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Somebody who minds his own business the while.
struct Bystander {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<u64>>,
}

impl Bystander {
    async fn beside(proxy: &Running) -> Result<Self> {
        let client = proxy.client("other").await?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut n = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let asked = one(&client, "select 40 + 2");
                let answer = tokio::time::timeout(Duration::from_secs(10), asked).await??;
                ensure!(answer == "42");
                n += 1;
            }
            Ok(n)
        });
        Ok(Self { stop, task })
    }

    async fn ends_unharmed(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        ensure!(self.task.await?? > 0);
        Ok(())
    }
}

fn quick() -> Limits {
    Limits {
        login_time: Duration::from_secs(2),
        hold_time: Duration::from_secs(3),
        ..Limits::default()
    }
}

/// What is sent first, and what the end of the connection says.
fn first_words() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    const PROTOCOL: &[&str] = &["FATAL 08P01", "nothing"];
    let long = |bytes: usize| {
        let value = "x".repeat(bytes - "user\0app\0application_name\0\0\0".len() - 8);
        startup(&[("user", "app"), ("application_name", &value)])
    };
    let many: Vec<(String, String)> = (0..400)
        .map(|n| (format!("a.b{n}"), "1".to_owned()))
        .collect();
    let mut many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (&**a, &**b)).collect();
    many.insert(0, ("user", "nobody"));
    let mut all = vec![
        (
            "no user",
            startup(&[("database", "app")]),
            &["FATAL 28000"][..],
        ),
        ("10,001 bytes", long(10_005), PROTOCOL),
        ("no final NUL", packet(3 << 16, b"user\0app"), PROTOCOL),
        (
            "protocol 2.0",
            packet(2 << 16, b"user\0app\0\0"),
            &["FATAL 0A000"],
        ),
        (
            "protocol 4.0",
            packet(4 << 16, b"user\0app\0\0"),
            &["FATAL 0A000"],
        ),
        (
            "replication",
            startup(&[("user", "app"), ("replication", "true")]),
            &["FATAL 0A000"],
        ),
        (
            "replication of a database",
            startup(&[("user", "app"), ("replication", "database")]),
            &["FATAL 0A000"],
        ),
        (
            "nonsense for replication",
            startup(&[("user", "app"), ("replication", "perhaps")]),
            &["FATAL 22023"],
        ),
        ("400 parameters of nobody", startup(&many), &["FATAL 28P01"]),
        (
            "an unknown user",
            startup(&[("user", "nobody")]),
            &["FATAL 28P01"],
        ),
        (
            "an unknown database",
            startup(&[("user", "app"), ("database", "replication")]),
            &["FATAL 3D000"],
        ),
        (
            "settings that the server refuses",
            startup(&[("user", "app"), ("nonsense_setting", "1")]),
            &["FATAL 42704"],
        ),
        (
            "options that the server refuses",
            startup(&[("user", "app"), ("options", "-c nonsense_setting=1")]),
            &["FATAL 42704"],
        ),
        (
            "a web browser",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            PROTOCOL,
        ),
        ("a query before anything", query("select 1"), PROTOCOL),
        (
            "a password before anything",
            message(b'p', b"x\0"),
            PROTOCOL,
        ),
        ("nothing at all", Vec::new(), &["nothing"]),
        ("half a length", vec![0, 0], &["nothing"]),
        (
            "a packet that never ends",
            packet(3 << 16, b"user\0a")[..10].to_vec(),
            &["nothing"],
        ),
        (
            "a cancel with a wrong key",
            packet(CANCEL_REQUEST, &[0, 0, 0, 1, 0, 0, 0, 1]),
            &["nothing"],
        ),
        (
            "a cancel without a key",
            packet(CANCEL_REQUEST, &[]),
            PROTOCOL,
        ),
        (
            "a cancel with too long a key",
            packet(CANCEL_REQUEST, &[7; 1_000]),
            PROTOCOL,
        ),
    ];
    for length in [0_i32, 1, 3, 4, 7, -1, i32::MIN, i32::MAX] {
        let text = "a length that none can be";
        all.push((text, length.to_be_bytes().to_vec(), PROTOCOL));
    }
    all
}

#[test]
fn nonsense_at_the_beginning_is_turned_away() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, quick()).await?;
        let bystander = Bystander::beside(&proxy).await?;
        let tries = first_words().into_iter().map(|(what, bytes, wanted)| {
            let address = proxy.address;
            async move {
                let mut raw = Raw::connect(address).await?;
                raw.send(&bytes).await?;
                let told = raw.end().await.context(what)?;
                ensure!(wanted.contains(&&*told), "{what}: {told}");
                anyhow::Ok(())
            }
        });
        futures_util::future::try_join_all(tries).await?;
        bystander.ends_unharmed().await
    });
}

#[test]
fn what_is_odd_and_allowed_is_served() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, quick()).await?;
            let served = async |bytes: &[u8], sql: &str| {
                let mut raw = Raw::connect(proxy.address).await?;
                raw.send(bytes).await?;
                let greeted = raw.until(b'Z').await?;
                raw.send(&query(sql)).await?;
                let answered = raw.until(b'Z').await?;
                let row = answered.iter().find(|(tag, _)| *tag == b'D');
                let text = row.map(|(_, row)| String::from_utf8_lossy(&row[6..]).into_owned());
                anyhow::Ok((greeted, text.unwrap_or_default()))
            };
            // Options are the server's to read.
            let options = startup(&[("user", "app"), ("options", "-c work_mem=3MB")]);
            ensure!(served(&options, "show work_mem").await?.1 == "3MB");
            let plain = startup(&[("user", "app")]);
            ensure!(served(&plain, "show work_mem").await?.1 == "4MB");
            // The longest that there may be: 10,000 bytes behind the length.
            let database = ("database", "app");
            let rest = startup(&[("user", "app"), database, ("app.x", "")]).len();
            let name = "x".repeat(10_004 - rest);
            let long = startup(&[("user", "app"), database, ("app.x", &name)]);
            let asked = "select length(current_setting('app.x'))";
            ensure!(served(&long, asked).await?.1 == name.len().to_string());
            let many: Vec<_> = (0..500).map(|n| format!("a.b{n}")).collect();
            let many = many.iter().map(|name| (&**name, "1"));
            let many: Vec<_> = [("user", "app")].into_iter().chain(many).collect();
            ensure!(served(&startup(&many), "show a.b499").await?.1 == "1");
            // A later protocol is agreed down to what we know, options of it to none.
            for code in [3 << 16 | 2, 3 << 16 | 9_999] {
                let body = b"user\0app\0_pq_.something\x001\0\0";
                let (greeted, answer) = served(&packet(code, body), "select 5").await?;
                ensure!(answer == "5");
                ensure!(greeted.iter().any(|(tag, _)| *tag == b'v'), "no word of it");
                let key = greeted.iter().find(|(tag, _)| *tag == b'K');
                ensure!(key.is_some_and(|(_, key)| key.len() == 36), "a short key");
            }
            // Each kind of encryption may be asked for once.
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&packet(GSS_REQUEST, &[])).await?;
            ensure!(raw.byte().await? == b'N');
            raw.send(&packet(SSL_REQUEST, &[])).await?;
            ensure!(raw.byte().await? == b'N');
            raw.send(&packet(SSL_REQUEST, &[])).await?;
            ensure!(raw.end().await? == "FATAL 08P01");
            // Nothing is to be glued to the question, and a thousand of them are no better than two.
            for behind in [
                startup(&[("user", "app")]),
                packet(SSL_REQUEST, &[]).repeat(999),
            ] {
                let mut raw = Raw::connect(proxy.address).await?;
                raw.send(&[packet(SSL_REQUEST, &[]), behind].concat())
                    .await?;
                ensure!(raw.end().await? == "FATAL 08P01");
            }
        }
        Ok(())
    });
}

/// What is sent behind a login, and what the end of the connection says.
fn later_words() -> Vec<(&'static str, Vec<u8>)> {
    let bind = |counts: &[u8]| message(b'B', &[b"\0\0", counts].concat());
    let mut all = vec![
        ("a type that there is not", message(b'!', b"x")),
        ("a password", message(b'p', b"x\0")),
        ("a startup packet", startup(&[("user", "app")])),
        ("a query without an end", message(b'Q', b"select 1")),
        ("a Parse that ends early", message(b'P', b"x")),
        (
            "a Parse of -1 types",
            message(b'P', b"\0select 1\0\xff\xff"),
        ),
        ("a Bind that ends early", message(b'B', b"\0")),
        ("a Bind of -1 formats", bind(&[0xff, 0xff])),
        (
            "a Bind of 65,535 values that are not there",
            bind(&[0, 0, 0xff, 0xff]),
        ),
        (
            "a Bind of a value of -2 bytes",
            bind(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe]),
        ),
        ("a Describe of nothing", message(b'D', b"Xname\0")),
        ("a Close of nothing", message(b'C', b"")),
        ("an Execute that ends early", message(b'E', b"\0\0")),
        ("a Sync with a body", message(b'S', b"body")),
        (
            "a Describe of 20,000 bytes",
            message(b'D', &[b"S", &[b'x'; 20_000][..], b"\0"].concat()),
        ),
    ];
    for tag in *b"QPBECDSHFdcf" {
        for length in [0, 3, -1, i32::MIN, i32::MAX] {
            all.push(("a length that none can be", claims(tag, length)));
        }
    }
    all
}

#[test]
fn nonsense_later_on_ends_its_own_session_alone() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, quick()).await?;
            let bystander = Bystander::beside(&proxy).await?;
            for (what, bytes) in later_words() {
                for busy in [false, true] {
                    let what = || format!("{mode:?}: {what}, {:x?}", &bytes[..bytes.len().min(9)]);
                    let told = tell(proxy.address, &bytes, busy).await;
                    let told = told.with_context(what)?;
                    // The server looks for the statement before it looks at its values.
                    let refused = ["FATAL 08P01", "ERROR 08P01", "ERROR 26000", "nothing"];
                    ensure!(refused.contains(&&*told), "{}: {told}", what());
                }
            }
            bystander.ends_unharmed().await?;
            ensure!(server.psql(STRAYS)? == "0", "{mode:?}");
        }
        Ok(())
    });
}

/// Transactions that nobody is at any more.
const STRAYS: &str = "select count(*) from pg_stat_activity where state like 'idle in%'";

async fn tell(address: SocketAddr, bytes: &[u8], busy: bool) -> Result<String> {
    let mut raw = Raw::logged_in(address).await?;
    if busy {
        raw.send(&query("begin")).await?;
        raw.until(b'Z').await?;
    }
    raw.send(bytes).await?;
    // Where the server is to judge, it does so now; then it is over.
    raw.send(&message(b'S', b"")).await?;
    raw.send(&message(b'X', b"")).await?;
    raw.end().await
}

#[test]
fn bytes_out_of_place_do_no_harm() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, quick()).await?;
            let mut raw = Raw::logged_in(proxy.address).await?;
            // A server drops them, too.
            for tag in *b"dcfH" {
                let body: &[u8] = if tag == b'f' { b"no\0" } else { b"" };
                raw.send(&message(tag, body)).await?;
            }
            raw.send(&query("select 7")).await?;
            let heard = raw.until(b'Z').await?;
            ensure!(
                heard
                    .iter()
                    .any(|(tag, row)| *tag == b'D' && row.ends_with(b"7"))
            );
            // A goodbye within a message is none.
            raw.send(&claims(b'Q', 1_000)).await?;
            raw.send(&message(b'X', b"")).await?;
            drop(raw);
            // Empty queries and empty batches.
            let mut raw = Raw::logged_in(proxy.address).await?;
            for _ in 0..3 {
                raw.send(&query("")).await?;
                ensure!(raw.until(b'Z').await?[0].0 == b'I');
                raw.send(&message(b'S', b"")).await?;
                ensure!(raw.until(b'Z').await?.len() == 1);
            }
        }
        Ok(())
    });
}

#[test]
fn who_does_not_say_who_he_is_is_shown_out() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, quick()).await?;
        let bystander = Bystander::beside(&proxy).await?;
        let app = startup(&[("user", "app")]);
        let sasl = |mechanism: &str, first: &str| {
            let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
            let head = [mechanism.as_bytes(), &[0], &length.to_be_bytes()].concat();
            message(b'p', &[&head, first.as_bytes()].concat())
        };
        let nonce = "n,,n=,r=abcdefgh";
        let huge = format!("n,,n=,r={}", "x".repeat(900));
        let bomb = format!("n,,n=,r={}", "x".repeat(5_000));
        let answers = [
            ("another mechanism", sasl("PLAIN", nonce)),
            (
                "channel binding that was not offered",
                sasl("SCRAM-SHA-256-PLUS", nonce),
            ),
            (
                "binding by a mechanism without",
                sasl("SCRAM-SHA-256", "p=tls-unique,,n=,r=abc"),
            ),
            (
                "another identity",
                sasl("SCRAM-SHA-256", "n,a=other,n=,r=abc"),
            ),
            ("no nonce", sasl("SCRAM-SHA-256", "n,,n=")),
            ("an empty nonce", sasl("SCRAM-SHA-256", "n,,n=,r=")),
            ("an extension", sasl("SCRAM-SHA-256", "n,,m=x,n=,r=abc")),
            ("no text", sasl("SCRAM-SHA-256", "n,,\0\0\0")),
            ("more than is allowed", sasl("SCRAM-SHA-256", &bomb)),
            (
                "a password where SASL was asked for",
                message(b'p', b"pencil\0"),
            ),
            ("a query", query("select 1")),
            ("1 GiB", claims(b'p', i32::MAX)),
            ("nothing", Vec::new()),
        ];
        let tries = answers.into_iter().map(|(what, answer)| {
            let (app, address) = (app.clone(), proxy.address);
            async move {
                let mut raw = Raw::connect(address).await?;
                raw.send(&app).await?;
                raw.until(b'R').await?;
                raw.send(&answer).await?;
                let told = raw.end().await.context(what)?;
                let refused = match what {
                    "nothing" => "FATAL 57014",
                    "more than is allowed" | "a query" | "1 GiB" => "FATAL 08P01",
                    _ => "FATAL 28P01",
                };
                ensure!(told == refused, "{what}: {told}");
                anyhow::Ok(())
            }
        });
        futures_util::future::try_join_all(tries).await?;
        // The second answer.
        for (first, last) in [
            (nonce, "c=biws,r=abcdefgh,p=AAAA"),
            (nonce, "c=biws,r=,p=!!!!"),
            (nonce, "p=,,,,"),
            (nonce, "c=!,r=x,p=="),
            (&huge, "x"),
        ] {
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&app).await?;
            raw.until(b'R').await?;
            raw.send(&sasl("SCRAM-SHA-256", first)).await?;
            raw.until(b'R').await?;
            raw.send(&message(b'p', last.as_bytes())).await?;
            let told = raw.end().await?;
            ensure!(told == "FATAL 28P01", "{last}: {told}");
        }
        bystander.ends_unharmed().await
    });
}

/// A byte now and then keeps no place for longer than a login may take.
#[test]
fn who_says_a_byte_now_and_then_is_shown_out() {
    story(async |server| {
        let limits = Limits {
            logins_max: 60,
            ..quick()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let bystander = Bystander::beside(&proxy).await?;
        let packet = startup(&[("user", "app"), ("application_name", &"x".repeat(500))]);
        let shown_out = AtomicU64::new(0);
        let slow = (0..50).map(|_| async {
            let mut raw = Raw::connect(proxy.address).await?;
            for byte in &packet {
                if !raw.offer(&[*byte], Duration::from_secs(1)).await {
                    break;
                }
                let waited = tokio::time::timeout(Duration::from_millis(50), raw.hear());
                if matches!(waited.await, Ok(Ok(None))) {
                    shown_out.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            anyhow::Ok(())
        });
        futures_util::future::try_join_all(slow).await?;
        ensure!(shown_out.load(Ordering::Relaxed) == 50);
        // Their places are free. One after the other: all at once they might be slow, too.
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(proxy.client("app").await?);
        }
        bystander.ends_unharmed().await
    });
}

#[test]
fn a_flood_of_beginnings_is_bounded_and_passes() {
    story(async |server| {
        let limits = Limits {
            logins_max: 50,
            ..quick()
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        let bystander = Bystander::beside(&proxy).await?;
        let flood = (0..400).map(|n| async move {
            let mut raw = Raw::connect(proxy.address).await?;
            // Some say something, some ask for a cancel, some wait.
            match n % 3 {
                0 => raw.send(&packet(SSL_REQUEST, &[])).await?,
                1 => raw.send(&packet(CANCEL_REQUEST, &[9; 8])).await?,
                _ => {}
            }
            raw.end().await
        });
        let told = futures_util::future::try_join_all(flood).await?;
        ensure!(
            told.iter().any(|told| told == "FATAL 53300"),
            "nobody was turned away"
        );
        one(&proxy.client("app").await?, "select 1").await?;
        bystander.ends_unharmed().await
    });
}
