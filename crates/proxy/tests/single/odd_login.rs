//! Servers that are odd while we log in at them: each is given up in time, with an error, and does not get more work
//! out of us than a server may.

use crate::raw::{Raw, hear_startup, message, startup};
use crate::server::Running;
use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, Limits, Options, PoolMode, Source, Users};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a server says at each step, given what the client has just said of SASL.
type Script = fn(step: usize, said: &str) -> Step;

enum Step {
    Say(Vec<u8>),
    /// The same, for as long as it is listened to.
    SayForEver(Vec<u8>),
    Silence,
}

struct Scripted {
    address: SocketAddr,
    /// Messages that the client has sent after the first question.
    answers: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    async fn start(script: Script) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let answers = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // How it ends is what the client says of it.
                tokio::spawn(play(stream, script, Arc::clone(&counted)));
            }
        });
        Ok(Self {
            address,
            answers,
            task,
        })
    }

    /// `patience`: how long a login at the server may take.
    async fn proxy(&self, patience: Duration) -> Result<Running> {
        Running::of(Options {
            listen: vec!["127.0.0.1:0".parse()?],
            pool_mode: PoolMode::Transaction,
            auth: AuthMethod::Trust,
            limits: Limits {
                hold_time: patience * 2,
                connect_time: patience,
                login_time: Duration::from_secs(60),
                ..Limits::default()
            },
            ..Options::new(
                Source::Server(self.address.to_string()),
                Users::parse("\"app\" \"pencil\"\n")?,
            )
        })
        .await
    }
}

async fn play(mut stream: TcpStream, script: Script, answers: Arc<AtomicU32>) -> Result<()> {
    hear_startup(&mut stream).await?;
    let mut said = String::new();
    for step in 0.. {
        match script(step, &said) {
            Step::Say(bytes) => stream.write_all(&bytes).await?,
            Step::SayForEver(bytes) => loop {
                stream.write_all(&bytes).await?;
            },
            Step::Silence => {}
        }
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length)? - 4];
        stream.read_exact(&mut body).await?;
        answers.fetch_add(1, Ordering::Relaxed);
        said = String::from_utf8_lossy(&body).into_owned();
    }
    Ok(())
}

fn asks_for_scram() -> Step {
    Step::Say(message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
}

/// The nonce that the client has just sent.
fn nonce(said: &str) -> &str {
    said.split_once(",r=").map_or("", |(_, nonce)| nonce)
}

fn challenge(text: &str) -> Step {
    Step::Say(message(b'R', &[b"\0\0\0\x0b", text.as_bytes()].concat()))
}

fn lets_in() -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'K', &[0, 0, 0, 9, 0, 0, 0, 9]),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn sane(said: &str) -> Step {
    challenge(&format!("r={}xyz,s=c2FsdA==,i=4096", nonce(said)))
}

/// Given up at once, after this many answers at most.
const fn at_once(answers_max: u32) -> (&'static str, u32) {
    ("FATAL 28000", answers_max)
}

/// Given up when the time for a login is over.
const IN_TIME: (&str, u32) = ("FATAL 57P03", u32::MAX);

/// What it is called, what the server does, and what becomes of it.
const ODD: &[(&str, Script, (&str, u32))] = &[
    (
        "100,001 rounds of hashing",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!("r={}xyz,s=c2FsdA==,i=100001", nonce(said))),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "rounds without number",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!("r={}xyz,s=c2FsdA==,i=99999999999", nonce(said))),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "no rounds",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!("r={}xyz,s=c2FsdA==,i=0", nonce(said))),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        // CVE-2026-6665
        "a nonce of 60,000 bytes",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!(
                "r={}{},s=c2FsdA==,i=4096",
                nonce(said),
                "x".repeat(60_000)
            )),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "a nonce and nothing of its own",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!("r={},s=c2FsdA==,i=4096", nonce(said))),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "a challenge of 100,000 bytes",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!(
                "r={}x,s={},i=4096",
                nonce(said),
                "c2FsdHNhbHRz".repeat(9_000)
            )),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "no salt",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!("r={}x,s=,i=4096", nonce(said))),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "a challenge that nobody has asked for",
        |step, _| match step {
            0 => challenge("r=abc,s=c2FsdA==,i=4096"),
            _ => Step::Silence,
        },
        at_once(0),
    ),
    (
        "an end before the beginning",
        |step, _| match step {
            0 => Step::Say(message(b'R', b"\0\0\0\x0cv=AAAA")),
            _ => Step::Silence,
        },
        at_once(0),
    ),
    (
        "a signature of somebody else",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => sane(said),
            2 => Step::Say(
                [
                    message(
                        b'R',
                        b"\0\0\0\x0cv=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                    ),
                    lets_in(),
                ]
                .concat(),
            ),
            _ => Step::Silence,
        },
        at_once(2),
    ),
    (
        // Whoever does not know the verifier must not be taken for the server.
        "no signature at all",
        |step, said| match step {
            0 => asks_for_scram(),
            1 => sane(said),
            2 => Step::Say(lets_in()),
            _ => Step::Silence,
        },
        at_once(2),
    ),
    (
        "no proof asked for",
        |step, _| match step {
            0 => asks_for_scram(),
            1 => Step::Say(lets_in()),
            _ => Step::Silence,
        },
        at_once(1),
    ),
    (
        "SASL again and again",
        // Each time it is begun anew.
        |_, _| asks_for_scram(),
        IN_TIME,
    ),
    (
        "parameters without an end",
        |step, _| match step {
            0 => Step::Say([message(b'R', &[0; 4]), many_parameters()].concat()),
            _ => Step::Silence,
        },
        at_once(0),
    ),
    (
        "one question again and again",
        |step, _| match step {
            0 => Step::SayForEver(message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")),
            _ => Step::Silence,
        },
        IN_TIME,
    ),
    (
        "notices without an end",
        |step, _| match step {
            0 => Step::SayForEver(message(b'N', b"SNOTICE\0C00000\0Mstill there\0\0")),
            _ => Step::Silence,
        },
        IN_TIME,
    ),
];

/// Of 10 MB, which is more than a session's may be.
fn many_parameters() -> Vec<u8> {
    let value = "x".repeat(1_000);
    let parameter = |n: u32| message(b'S', format!("p{n}\0{value}\0").as_bytes());
    (0..10_000).flat_map(parameter).collect()
}

#[test]
fn an_odd_login_is_given_up_and_costs_a_bounded_amount() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let tries = ODD
            .iter()
            .map(async |(what, script, (wanted, answers_max))| {
                let server = Scripted::start(*script).await?;
                let proxy = server.proxy(Duration::from_secs(2)).await?;
                let mut raw = Raw::connect(proxy.address).await?;
                raw.send(&startup(&[("user", "app")])).await?;
                let said = raw.end().await.context(*what)?;
                let answers = server.answers.load(Ordering::Relaxed);
                ensure!(said == *wanted, "{what}: {said}, {answers} answers");
                ensure!(answers <= *answers_max, "{what}: {answers} answers");
                anyhow::Ok(())
            });
        futures_util::future::try_join_all(tries).await.map(drop)
    })
}

/// What stands in the way of nothing: as many rounds as are allowed, notices and news before and within a login.
#[test]
fn what_is_odd_in_a_login_and_allowed_does_not_end_it() -> Result<()> {
    const ALLOWED: &[(&str, Script)] = &[
        ("100,000 rounds", |step, said| match step {
            0 => asks_for_scram(),
            1 => challenge(&format!("r={}xyz,s=c2FsdA==,i=100000", nonce(said))),
            _ => Step::Silence,
        }),
        (
            "a notice, and a nonce of 1,500 bytes",
            |step, said| match step {
                0 => {
                    let notice = message(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
                    let asks = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
                    Step::Say([notice, asks].concat())
                }
                1 => challenge(&format!(
                    "r={}{},s=c2FsdA==,i=4096",
                    nonce(said),
                    "x".repeat(1_500)
                )),
                _ => Step::Silence,
            },
        ),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for (what, script) in ALLOWED {
            let server = Scripted::start(*script).await?;
            let proxy = server.proxy(Duration::from_secs(60)).await?;
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&startup(&[("user", "app")])).await?;
            let proved = async || {
                let answers = server.answers.load(Ordering::Relaxed);
                ensure!(answers >= 2, "{what}: {answers} answers");
                Ok(())
            };
            lab::eventually(what, Duration::from_secs(60), proved).await?;
        }
        // And news in the middle of everything.
        let news: Script = |step, _| match step {
            0 => {
                let news = message(b'A', b"\0\0\0\x09channel\0payload\0");
                let head = [message(b'R', &[0; 4]), news.clone()].concat();
                let key = message(b'K', &[0, 0, 0, 9, 0, 0, 0, 9]);
                let standby = message(b'S', b"in_hot_standby\0off\0");
                Step::Say([head, key, news.clone(), standby, message(b'Z', b"I")].concat())
            }
            _ => Step::Say([message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()),
        };
        let server = Scripted::start(news).await?;
        let proxy = server.proxy(Duration::from_secs(60)).await?;
        let mut raw = Raw::logged_in(proxy.address).await?;
        raw.send(&crate::raw::query("sane")).await?;
        raw.until(b'Z').await.map(drop)
    })
}
