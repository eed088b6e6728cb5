//! Servers that say what no server should: a client of theirs hears an error or nothing more, and
//! the proxy goes on.

use crate::raw::{Raw, claims, hear_startup, message, query, startup, told};
use crate::server::Running;
use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, Limits, Options, PoolMode, Source, Users};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

/// What is said to the query `odd`; to any other there is a sane answer.
struct Odd {
    greeting: Vec<u8>,
    answer: Vec<u8>,
    closes: bool,
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

/// As a server lets somebody in.
fn sane_greeting() -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        parameter("server_version", "15.0"),
        parameter("in_hot_standby", "off"),
        parameter("standard_conforming_strings", "on"),
        message(b'K', &[0, 0, 0, 9, 0, 0, 0, 9]),
        ready(b'I'),
    ]
    .concat()
}

async fn serve(mut stream: TcpStream, odd: Arc<Odd>) -> Result<()> {
    hear_startup(&mut stream).await?;
    stream.write_all(&odd.greeting).await?;
    loop {
        let tag = stream.read_u8().await?;
        let mut body = vec![0; usize::try_from(stream.read_u32().await?)? - 4];
        stream.read_exact(&mut body).await?;
        match tag {
            b'X' => return Ok(()),
            b'Q' if body.starts_with(b"odd") => {
                stream.write_all(&odd.answer).await?;
                if odd.closes {
                    return Ok(());
                }
            }
            b'Q' => {
                let sane = [message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
                stream.write_all(&sane).await?;
            }
            _ => {}
        }
    }
}

/// Ended when it is dropped.
struct Fake {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start(odd: Odd) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let odd = Arc::new(odd);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // How it ends is what the client says of it.
                tokio::spawn(serve(stream, Arc::clone(&odd)));
            }
        });
        Ok(Self { address, task })
    }

    async fn proxy(&self, mode: PoolMode) -> Result<Running> {
        let users = Users::parse("\"app\" \"pencil\"\n")?;
        Running::of(Options {
            listen: vec!["127.0.0.1:0".parse()?],
            pool_mode: mode,
            auth: AuthMethod::Trust,
            limits: Limits {
                hold_time: Duration::from_secs(2),
                connect_time: Duration::from_secs(1),
                login_time: Duration::from_secs(10),
                ..Limits::default()
            },
            ..Options::new(Source::Server(self.address.to_string()), users)
        })
        .await
    }
}

fn story(plot: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(plot())
}

fn error(fields: &str) -> Vec<u8> {
    message(b'E', fields.as_bytes())
}

fn odd_answers() -> Vec<(&'static str, Vec<u8>)> {
    let done = || message(b'C', b"SELECT 1\0");
    let storm: Vec<u8> = (0..100_000)
        .flat_map(|n| parameter(&format!("p{n}"), "value"))
        .collect();
    let news = message(b'A', b"\0\0\0\x09channel\0payload\0");
    let closed = || [done(), ready(b'I')].concat();
    vec![
        ("a type that there is not", message(b'!', b"")),
        ("a length of 0", claims(b'D', 0)),
        ("a length of -1", claims(b'D', -1)),
        ("a short message of 1 GiB", claims(b'Z', 0x3fff_ffff)),
        (
            "1 GiB of a row",
            [claims(b'D', 0x3fff_ffff), vec![0; 100_000]].concat(),
        ),
        ("an error of 1 GiB", claims(b'E', 0x3fff_ffff)),
        ("a status that there is not", [done(), ready(b'X')].concat()),
        (
            "a status of two bytes",
            [done(), message(b'Z', b"II")].concat(),
        ),
        (
            "an error without its code",
            [error("SERROR\0Mwhat\0\0"), ready(b'I')].concat(),
        ),
        (
            "an error without fields",
            [error("\0"), ready(b'I')].concat(),
        ),
        (
            "an error without an end",
            [error("SERROR"), ready(b'I')].concat(),
        ),
        (
            "an error of nothing",
            [message(b'E', b""), ready(b'I')].concat(),
        ),
        ("a fatal error without a code", error("SFATAL\0Mgone\0\0")),
        (
            "a row that was not described",
            [message(b'D', b"\0\x01\0\0\0\x01x"), closed()].concat(),
        ),
        (
            "a row of -1 values",
            [message(b'D', b"\xff\xff"), closed()].concat(),
        ),
        ("ready twice", [done(), ready(b'I'), ready(b'I')].concat()),
        ("a password asked for", message(b'R', b"\0\0\0\x03")),
        ("another key", [message(b'K', &[1; 8]), closed()].concat()),
        ("another version", message(b'v', &[0; 8])),
        (
            "a ParseComplete that nobody wants",
            [message(b'1', b""), closed()].concat(),
        ),
        (
            "a CloseComplete that nobody wants",
            [message(b'3', b""), closed()].concat(),
        ),
        (
            "a parameter without an end",
            [message(b'S', b"name"), closed()].concat(),
        ),
        ("a storm of parameters", [storm, closed()].concat()),
        (
            "news before it is done",
            [news.clone(), closed(), news].concat(),
        ),
        ("half a message", claims(b'D', 1_000)),
        ("nothing", Vec::new()),
    ]
}

#[test]
fn an_odd_answer_harms_its_own_session_at_most() -> Result<()> {
    story(async || {
        for mode in BOTH {
            for (what, answer) in odd_answers() {
                let fake = Fake::start(Odd {
                    greeting: sane_greeting(),
                    answer,
                    closes: true,
                })
                .await?;
                let proxy = fake.proxy(mode).await?;
                let told = async {
                    let mut raw = Raw::logged_in(proxy.address).await?;
                    raw.send(&query("odd")).await?;
                    let mut all = Vec::new();
                    while let Some((tag, body)) = raw.hear().await? {
                        all.push((tag, if tag == b'E' { body } else { Vec::new() }));
                        // Where it was an answer after all, the session goes on.
                        if tag == b'Z' {
                            break;
                        }
                    }
                    anyhow::Ok(all)
                };
                let told = told.await.with_context(|| format!("{mode:?}: {what}"))?;
                ensure!(told.len() < 200_000);
                // Somebody else, on another connection.
                let mut raw = Raw::logged_in(proxy.address).await?;
                raw.send(&query("sane")).await?;
                let heard = raw.until(b'Z').await.with_context(|| what.to_owned())?;
                ensure!(heard.len() == 2, "{what}: {}", crate::raw::told(&heard));
            }
        }
        Ok(())
    })
}

#[test]
fn an_odd_greeting_is_an_error_in_time() -> Result<()> {
    story(async || {
        let iterations = |n: &str| {
            let asked = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
            let server = format!("\0\0\0\x0br=abc,s=c2FsdA==,i={n}");
            [asked, message(b'R', server.as_bytes())].concat()
        };
        let greetings = [
            ("silence", Vec::new()),
            ("no greeting", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            (
                "a kind of login that there is not",
                message(b'R', &[0, 0, 0, 99]),
            ),
            ("GSSAPI", message(b'R', &[0, 0, 0, 7])),
            (
                "a password in clear, and then nothing",
                message(b'R', &[0, 0, 0, 3]),
            ),
            ("SASL without mechanisms", message(b'R', b"\0\0\0\x0a\0")),
            ("a nonce of its own", iterations("4096")),
            ("hashing without an end", iterations("2000000000")),
            ("a negative number of hashes", iterations("-1")),
            ("rows before a login", message(b'D', b"\0\0")),
            ("1 GiB", claims(b'R', 0x3fff_ffff)),
            (
                "a key of no bytes",
                [message(b'R', &[0; 4]), message(b'K', b"")].concat(),
            ),
            ("an error without a code", error("SFATAL\0Mno\0\0")),
        ];
        let tries = greetings.into_iter().map(async |(what, greeting)| {
            let fake = Fake::start(Odd {
                greeting,
                answer: Vec::new(),
                closes: false,
            })
            .await?;
            let proxy = fake.proxy(PoolMode::Transaction).await?;
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&startup(&[("user", "app")])).await?;
            let said = raw.end().await.context(what)?;
            let right = said.starts_with("FATAL ");
            ensure!(right, "{what}: {said}");
            anyhow::Ok(())
        });
        futures_util::future::try_join_all(tries).await?;
        Ok(())
    })
}

/// A server that falls silent in the middle is waited for by who asked it, and by nobody else.
#[test]
fn a_server_that_falls_silent_holds_up_its_own_client_alone() -> Result<()> {
    story(async || {
        for mode in BOTH {
            let fake = Fake::start(Odd {
                greeting: sane_greeting(),
                answer: Vec::new(),
                closes: false,
            })
            .await?;
            let proxy = fake.proxy(mode).await?;
            let mut waits = Raw::logged_in(proxy.address).await?;
            waits.send(&query("odd")).await?;
            for _ in 0..5 {
                let mut raw = Raw::logged_in(proxy.address).await?;
                raw.send(&query("sane")).await?;
                ensure!(told(&raw.until(b'Z').await?) == "nothing");
            }
            let answer = tokio::time::timeout(Duration::from_millis(100), waits.hear()).await;
            ensure!(answer.is_err(), "it was answered");
        }
        Ok(())
    })
}
