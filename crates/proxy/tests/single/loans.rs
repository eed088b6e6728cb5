//! Clients that came with different settings share servers, and none of them can tell.
//!
//! What a client sees on a server that was started for somebody else is compared with what it sees on one of its own,
//! which it has in session mode.

use crate::raw::{Raw, message, query, startup, told};
use crate::server::{Server, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{Limits, PoolMode};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

type Settings<'a> = &'a [(&'a str, &'a str)];

const NAME: &str = r"one's \ $standfast$";
const NOTHING: Settings<'_> = &[];
const ONE: Settings<'_> = &[("application_name", NAME), ("client_encoding", "utf-8")];
const OTHER: Settings<'_> = &[("application_name", "other"), ("client_encoding", "UTF8")];
/// What the client is told of, too.
const REPORTED: [&str; 3] = ["application_name", "TimeZone", "client_encoding"];

/// All of it, as the client sees it and as others see the client.
const STATE: &str = "select concat_ws('|', current_setting('application_name'), \
    current_setting('TimeZone'), current_setting('work_mem'), \
    (select application_name from pg_stat_activity where pid = pg_backend_pid()))";

fn limits(pool_size: usize) -> Limits {
    Limits {
        pool_size,
        ..Limits::default()
    }
}

/// One who notes all that it is told.
struct Client {
    raw: Raw,
    told: BTreeMap<String, String>,
    /// What was done since the last step began.
    tags: Vec<String>,
    /// The name of another client was among it.
    heard_other: bool,
    status: u8,
}

impl Client {
    async fn start(address: SocketAddr, settings: Settings<'_>) -> Result<Self> {
        let mut raw = Raw::connect(address).await?;
        let all = [&[("user", "app"), ("database", "app")], settings].concat();
        raw.send(&startup(&all)).await?;
        let mut client = Self {
            raw,
            told: BTreeMap::new(),
            tags: Vec::new(),
            heard_other: false,
            status: b'I',
        };
        client.answer().await?;
        Ok(client)
    }

    /// The last row, or the last error.
    async fn answer(&mut self) -> Result<String> {
        let heard = self.raw.until(b'Z').await?;
        let mut row = String::new();
        for (tag, body) in &heard {
            match tag {
                b'S' => self.note(body),
                b'C' => self.tags.push(String::from_utf8_lossy(body).into()),
                b'D' => row = String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into(),
                b'Z' => self.status = body[0],
                _ => {}
            }
        }
        Ok(match told(&heard).as_str() {
            "nothing" => row,
            error => error.to_owned(),
        })
    }

    fn note(&mut self, body: &[u8]) {
        let mut words = body.split(|byte| *byte == 0);
        let mut word = || String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
        let (name, value) = (word(), word());
        self.heard_other |= name == "application_name" && value == "other";
        self.told.insert(name, value);
    }

    async fn ask(&mut self, sql: &str) -> Result<String> {
        self.raw.send(&query(sql)).await?;
        self.answer().await
    }

    /// One step of a script: a query, some at once (between `&`; `.` ends a COPY), or one by the extended protocol
    /// (behind `=`).
    async fn step(&mut self, step: &str) -> Result<String> {
        self.tags.clear();
        if let Some(sql) = step.strip_prefix('=') {
            self.raw.send(&extended(sql)).await?;
            return self.answer().await;
        }
        let all: Vec<_> = step.split('&').map(with_state).collect();
        let bytes = all.iter().map(|sql| match sql.as_str() {
            "." => message(b'c', b""),
            sql => query(sql),
        });
        self.raw.send(&bytes.collect::<Vec<_>>().concat()).await?;
        let mut answers = Vec::new();
        for _ in all.iter().filter(|sql| *sql != ".") {
            answers.push(self.answer().await?);
        }
        Ok(answers.join(" / "))
    }

    /// What it believes.
    fn believes(&self) -> String {
        let values = REPORTED.map(|name| self.told.get(name).map_or("?", String::as_str));
        values.join("|")
    }
}

fn with_state(sql: &str) -> String {
    sql.replace('?', STATE)
}

fn extended(sql: &str) -> Vec<u8> {
    let parse = [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    [
        message(b'P', &parse),
        message(b'B', &[0; 8]),
        message(b'E', &[0; 5]),
        message(b'S', b""),
    ]
    .concat()
}

/// `?` asks for all of it.
const SCRIPTS: &[&[&str]] = &[
    &["reset application_name", "?"],
    &[
        "set application_name = 'mine'",
        "?",
        "reset application_name",
        "?",
    ],
    &[
        "set application_name = 'other'",
        "?",
        "reset application_name",
        "?",
    ],
    &[
        "set application_name = 'mine'",
        "reset application_name",
        "?",
    ],
    &[
        "set intervalstyle = 'sql_standard'; set work_mem = '3MB'",
        "?",
        "reset all",
        "?",
    ],
    &["reset all", "?", "reset all", "?"],
    &["discard all", "?"],
    &[
        "set application_name = 'mine'; set work_mem = '3MB'",
        "discard all",
        "?",
    ],
    &[
        "select set_config('application_name', 'mine', false)",
        "?",
        "reset all",
        "?",
    ],
    // Beside others in one string, and as asyncpg says it.
    &["reset all; select 1", "?"],
    &[
        "set application_name = 'mine'; reset application_name; select 1",
        "?",
    ],
    &[
        "select pg_advisory_unlock_all(); close all; unlisten *; reset all;",
        "?",
    ],
    &["reset application_name; reset all", "?"],
    &["reset application_name; select 1/0", "?"],
    // Within a transaction.
    &["begin", "reset application_name", "?", "commit", "?"],
    &[
        "begin",
        "set application_name = 'mine'",
        "reset application_name",
        "?",
        "rollback",
        "?",
    ],
    &[
        "set application_name = 'mine'",
        "begin",
        "reset application_name",
        "?",
        "rollback",
        "?",
    ],
    &[
        "begin",
        "reset all",
        "set transaction isolation level serializable",
        "?",
        "commit",
        "?",
    ],
    &[
        "begin",
        "reset application_name; select 1",
        "set local application_name to default; select 1",
        "commit",
        "?",
    ],
    &[
        "begin",
        "set local application_name to default",
        "?",
        "commit",
        "?",
    ],
    &[
        "set application_name = 'mine'",
        "begin",
        "set local application_name to default",
        "?",
        "commit",
        "?",
    ],
    &[
        "begin",
        "reset application_name",
        "set application_name = 'mine'",
        "commit",
        "?",
    ],
    &[
        "begin",
        "savepoint s",
        "reset application_name",
        "?",
        "rollback to s",
        "?",
        "commit",
        "?",
    ],
    &[
        "begin",
        "savepoint s",
        "reset all",
        "release s",
        "?",
        "commit",
        "?",
    ],
    &["begin", "reset all", "select 1/0", "?", "rollback", "?"],
    &[
        "begin; reset application_name",
        "commit and chain",
        "select 1/0",
        "rollback",
        "?",
    ],
    &[
        "reset application_name; set local application_name = 'job'; do $$ begin end $$",
        "?",
        "?",
    ],
    &[
        "do $$ begin reset application_name; set local application_name = 'job'; end $$",
        "?",
        "?",
    ],
    &[
        "begin",
        "set application_name = 'mine'",
        "select 1/0",
        "rollback",
        "?",
    ],
    // At once.
    &["reset application_name&?&reset all&?"],
    &["begin&reset all&?&commit&?"],
    &["set work_mem = '3MB'&reset all; create temp table t (a int); copy t from stdin&.&?"],
    &["set application_name = 'mine'&?&discard all&?"],
    // By the extended protocol.
    &["=reset application_name", "?"],
    &["=reset all", "?", "=discard all", "?"],
    &[
        "begin",
        "=set application_name to default",
        "?",
        "commit",
        "?",
    ],
    &["begin", "=reset application_name", "?", "rollback", "?"],
    // By what functions do.
    &["do $$ begin reset application_name; end $$", "?"],
    &["do $$ begin reset all; end $$", "?"],
    &[
        "set application_name = 'mine'",
        "do $$ begin reset application_name; end $$",
        "?",
    ],
    &["do $$ begin set application_name = 'mine'; end $$", "?"],
    &[
        "begin",
        "do $$ begin reset application_name; end $$",
        "?",
        "commit",
        "?",
    ],
    &[
        "begin",
        "do $$ begin reset application_name; end $$",
        "?",
        "rollback",
        "?",
    ],
    // By who keeps its server.
    &[
        "create temp table t ()",
        "?",
        "reset all",
        "?",
        "discard all",
        "?",
    ],
    &[
        "listen x",
        "set application_name = 'mine'",
        "do $$ begin reset application_name; end $$",
        "?",
    ],
    &[
        "select 1 from set_config('application_name', null, false)",
        "?",
        "?",
    ],
    &[
        "begin",
        "reset application_name",
        "?",
        "commit and chain",
        "?",
        "commit",
        "?",
    ],
    // In a way that is not followed.
    &[
        "prepare p as select 1",
        "set application_name = 'other'",
        "?",
        "reset application_name",
        "?",
    ],
    &["listen x", "begin", "reset all", "?", "commit", "?"],
];

#[test]
fn nobody_can_tell_whose_server_it_was() {
    story(async |server| {
        let owning = server.trusting(PoolMode::Session, limits(2)).await?;
        for settings in [NOTHING, ONE] {
            for script in SCRIPTS {
                let played = play(owning.address, server, settings, script).await;
                played.with_context(|| format!("{settings:?}: {script:?}"))?;
            }
        }
        Ok(())
    });
}

/// Whether the client keeps its server behind this.
fn ties(step: &str) -> bool {
    let beginnings = [
        "create temp",
        "listen",
        "prepare",
        "reset all; create temp",
        "select 1 from set_config",
    ];
    step.split('&')
        .any(|sql| beginnings.iter().any(|it| sql.starts_with(it)))
}

async fn play(
    owning: SocketAddr,
    server: &Server,
    settings: Settings<'_>,
    script: &[&str],
) -> Result<()> {
    let mut alone = Client::start(owning, settings).await?;
    let sharing = server.trusting(PoolMode::Transaction, limits(1)).await?;
    let mut client = Client::start(sharing.address, settings).await?;
    // The one server that there may be is started for this one.
    let mut other = Client::start(sharing.address, OTHER).await?;
    let pid = "select pg_backend_pid()";
    ensure!(client.ask(pid).await? == other.ask(pid).await?);
    for step in script {
        let (own, lent) = (alone.step(step).await?, client.step(step).await?);
        ensure!(own == lent, "{step}: {lent}, not {own}");
        let (own, lent) = (&alone.tags, &client.tags);
        ensure!(own == lent, "{step}: done {lent:?}, not {own:?}");
        if client.status == b'I' && !script.iter().any(|step| ties(step)) {
            let state = other.ask(STATE).await?;
            ensure!(state.starts_with("other|"), "{state}");
        }
        let (own, lent) = (alone.believes(), client.believes());
        // What a function has done is found out behind its answer.
        ensure!(
            own == lent || step.starts_with("do"),
            "{step}: told {lent}, not {own}"
        );
    }
    let says_so = script.iter().any(|step| step.contains("'other'"));
    ensure!(
        says_so || !client.heard_other,
        "it has heard another one's name"
    );
    Ok(())
}

/// As many server connections as the pool has places, whoever comes.
#[test]
#[expect(clippy::print_stderr, reason = "the rates are for people who look")]
fn no_transaction_waits_for_a_login_because_of_a_name() {
    story(async |server| {
        for distinct in [false, true] {
            let proxy = server.trusting(PoolMode::Transaction, limits(2)).await?;
            let mut tasks = Vec::new();
            let begun = Instant::now();
            for n in 0..8 {
                let address = proxy.address;
                tasks.push(tokio::spawn(async move {
                    let name = format!("application {}", if distinct { n } else { 0 });
                    let settings = [("application_name", name.as_str())];
                    let mut client = Client::start(address, &settings).await?;
                    let mut pids = BTreeSet::new();
                    for _ in 0..200 {
                        let sql =
                            "select pg_backend_pid() || '|' || current_setting('application_name')";
                        let answer = client.ask(sql).await?;
                        let (pid, found) = answer.split_once('|').context("a pid")?;
                        ensure!(found == name, "{found}");
                        pids.insert(pid.to_owned());
                    }
                    Ok(pids)
                }));
            }
            let mut pids = BTreeSet::new();
            for task in tasks {
                pids.extend(task.await??);
            }
            let rate = 1600.0 / begun.elapsed().as_secs_f64();
            eprintln!(
                "distinct: {distinct}: {} servers, {rate:.0} transactions a second",
                pids.len()
            );
            ensure!(pids.len() <= 2, "{pids:?}");
        }
        Ok(())
    });
}

const PIDS: &str = "select coalesce(string_agg(pid::text, ' '), '') from pg_stat_activity \
    where usename = 'app'";

async fn backends(server: &Server, count: usize) -> Result<BTreeSet<String>> {
    let mut pids = BTreeSet::new();
    lab::eventually("so many servers", Duration::from_secs(30), async || {
        let now = tokio::task::block_in_place(|| server.psql(PIDS))?;
        pids = now.split(' ').map(str::to_owned).collect();
        ensure!(pids.len() == count, "{now}");
        Ok(())
    })
    .await?;
    Ok(pids)
}

#[test]
fn what_is_kept_open_is_for_everybody() {
    story(async |server| {
        let limits = Limits {
            pool_size_min: 2,
            ..limits(2)
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        let mut first = Client::start(proxy.address, &[("application_name", "first")]).await?;
        first.ask("select 1").await?;
        let warm = backends(server, 2).await?;
        let mut clients = Vec::new();
        for name in ["second", "third"] {
            let mut client = Client::start(proxy.address, &[("application_name", name)]).await?;
            client.ask("begin").await?;
            ensure!(warm.contains(&client.ask("select pg_backend_pid()").await?));
            ensure!(client.ask("show application_name").await? == name);
            clients.push(client);
        }
        Ok(())
    });
}

/// In session mode nobody gets what was started for somebody else, nor in transaction mode what differs by more.
#[test]
fn what_cannot_be_set_exactly_is_not_lent() {
    story(async |server| {
        let pid = "select pg_backend_pid()";
        for (mode, first, second) in [
            (
                PoolMode::Session,
                ("application_name", "a"),
                ("application_name", "b"),
            ),
            (
                PoolMode::Transaction,
                ("TimeZone", "Europe/Paris"),
                ("TimeZone", "Asia/Tokyo"),
            ),
            (
                PoolMode::Transaction,
                ("statement_timeout", "1h"),
                ("statement_timeout", "2h"),
            ),
            (
                PoolMode::Transaction,
                ("options", "-c TimeZone=UTC"),
                ("options", "-c TimeZone=Asia/Tokyo"),
            ),
            (
                PoolMode::Transaction,
                ("client_encoding", "UTF8"),
                ("client_encoding", "LATIN1"),
            ),
        ] {
            let proxy = server.trusting(mode, limits(2)).await?;
            let mut a = Client::start(proxy.address, &[first]).await?;
            let of_a = a.ask(pid).await?;
            let mut b = Client::start(proxy.address, &[second]).await?;
            ensure!(b.ask(pid).await? != of_a, "{first:?}");
            ensure!(a.ask(pid).await? == of_a, "{first:?}");
        }
        Ok(())
    });
}

#[test]
fn who_comes_with_nonsense_is_refused_as_by_postgresql() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, limits(1)).await?;
        let mut good = Client::start(proxy.address, ONE).await?;
        for bad in [
            ("TimeZone", "Nowhere/At all"),
            ("client_encoding", "klingon"),
            ("nonsense", "1"),
        ] {
            for _ in 0..2 {
                let mut raw = Raw::connect(proxy.address).await?;
                let settings = [("user", "app"), ("database", "app"), bad];
                raw.send(&startup(&settings)).await?;
                let end = raw.end().await?;
                ensure!(
                    end == "FATAL 22023" || end == "FATAL 42704",
                    "{bad:?}: {end}"
                );
            }
            ensure!(good.ask("show application_name").await? == NAME);
        }
        Ok(())
    });
}

/// Whose server is lost gets one of its own, or another one that is lent.
#[test]
fn a_session_that_was_lent_a_server_outlives_it() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, limits(1)).await?;
        let mut one = Client::start(proxy.address, ONE).await?;
        let mut other = Client::start(proxy.address, OTHER).await?;
        let mut plain = Client::start(proxy.address, NOTHING).await?;
        one.ask("set application_name = 'mine'").await?;
        let all = |of: &Client| of.believes();
        let before = [all(&one), all(&other), all(&plain)];
        let mut states = Vec::new();
        for client in [&mut one, &mut other, &mut plain] {
            states.push(client.ask(STATE).await?);
        }
        tokio::task::block_in_place(|| {
            server.down("immediate")?;
            server.up()
        })?;
        for _ in 0..2 {
            for (client, state) in [&mut one, &mut other, &mut plain].into_iter().zip(&states) {
                let now = client.ask(STATE).await?;
                ensure!(now == *state, "{now}, not {state}");
            }
        }
        ensure!([all(&one), all(&other), all(&plain)] == before);
        one.ask("reset application_name").await?;
        ensure!(one.ask("show application_name").await? == NAME);
        Ok(())
    });
}

/// What one prepares under its settings runs under another's.
#[test]
fn statements_are_shared_beside_settings() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, limits(1)).await?;
        let mut clients = [
            Client::start(proxy.address, ONE).await?,
            Client::start(proxy.address, OTHER).await?,
        ];
        let parse = message(b'P', b"s\0select current_setting('application_name')\0\0\0");
        let run = [
            message(b'B', b"\0s\0\0\0\0\0\0\0"),
            message(b'E', &[0; 5]),
            message(b'S', b""),
        ];
        for client in &mut clients {
            client
                .raw
                .send(&[parse.clone(), message(b'S', b"")].concat())
                .await?;
            client.answer().await?;
        }
        for _ in 0..2 {
            for (client, wanted) in clients.iter_mut().zip([NAME, "other"]) {
                client.raw.send(&run.concat()).await?;
                let answer: String = client.answer().await?;
                ensure!(answer == wanted, "{answer}");
            }
        }
        Ok(())
    });
}
