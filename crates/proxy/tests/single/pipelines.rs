//! Pipelines that are cut in the middle: of each part the client knows what became of it, and the table agrees.

use crate::raw::{Heard, Raw, message, query, told};
use crate::server::{Server, story};
use anyhow::{Result, ensure};
use proxy::{Limits, PoolMode};
use std::time::Duration;

/// A statement without parameters, by the extended protocol.
fn part(sql: &str) -> Vec<u8> {
    let parse = [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    [
        message(b'P', &parse),
        message(b'B', &[0; 8]),
        message(b'E', &[0; 5]),
    ]
    .concat()
}

/// Statements up to a Sync.
fn batch(statements: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = statements.iter().flat_map(|sql| part(sql)).collect();
    bytes.extend(message(b'S', b""));
    bytes
}

fn insert(n: u32) -> String {
    format!("insert into cut values ({n})")
}

fn slowly(n: u32) -> String {
    format!("insert into cut select {n} from pg_sleep(60)")
}

/// What was heard, a letter each: statements that are done, errors by their code, and the status of each end.
fn heard(all: &[Heard]) -> String {
    let words = all.iter().filter_map(|one| match one.0 {
        b'C' => Some("done".to_owned()),
        b'E' => Some(told(std::slice::from_ref(one))),
        b'Z' => Some(String::from_utf8_lossy(&one.1).into_owned()),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Sends it, has the server die within the slow statement, and gives everything up to the end of the connection or to
/// so many ends of batches.
async fn cut(server: &Server, raw: &mut Raw, pipeline: &[Vec<u8>], ends: usize) -> Result<String> {
    server.sql("app", "truncate cut")?;
    raw.send(&pipeline.concat()).await?;
    let at_it = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let within = Duration::from_secs(60);
    lab::eventually("it is at the slow statement", within, async || {
        ensure!(server.psql(at_it)? == "1");
        Ok(())
    })
    .await?;
    tokio::task::block_in_place(|| {
        server.down("immediate")?;
        server.up()
    })?;
    let (mut all, mut left) = (Vec::new(), ends);
    while left > 0 {
        let Some(one) = raw.hear().await? else { break };
        left -= usize::from(one.0 == b'Z');
        all.push(one);
    }
    Ok(heard(&all))
}

const THERE: &str = "select string_agg(n::text, ' ' order by n) from cut";

#[test]
fn a_pipeline_that_is_cut_in_the_middle_says_what_became_of_each_part() {
    story(async |server| {
        server.sql("app", "create table cut (n int); grant all on cut to app")?;
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let proxy = server.trusting(mode, Limits::default()).await?;
            // Each part commits by itself: two are acknowledged, of the rest nothing is known, and nothing is said.
            let mut raw = Raw::logged_in(proxy.address).await?;
            let parts = [insert(1), insert(2), slowly(3), insert(4)];
            let pipeline = parts.map(|sql| batch(&[&sql]));
            let told = cut(server, &mut raw, &pipeline, 9).await?;
            ensure!(told == "done I done I FATAL 08007", "{mode:?}: {told}");
            ensure!(server.sql("app", THERE)? == "1 2", "{mode:?}");
            // A transaction is committed, the next one is lost in the middle: the session goes on behind its end.
            let mut raw = Raw::logged_in(proxy.address).await?;
            let pipeline = [
                batch(&["begin", &insert(5)]),
                batch(&["commit"]),
                batch(&["begin", &slowly(6)]),
                batch(&[&insert(7)]),
            ];
            let told = cut(server, &mut raw, &pipeline, 4).await?;
            let wanted = "done done T done I done ERROR 40001 E ERROR 25P02 E";
            ensure!(told == wanted, "{mode:?}: {told}");
            raw.send(&[batch(&["rollback"]), batch(&[&insert(8)])].concat())
                .await?;
            let mut rest = raw.until(b'Z').await?;
            rest.extend(raw.until(b'Z').await?);
            ensure!(
                heard(&rest) == "done I done I",
                "{mode:?}: {}",
                heard(&rest)
            );
            ensure!(server.sql("app", THERE)? == "5 8", "{mode:?}");
            // Its end is on the way, too: whether it was reached nobody can tell from here.
            let mut raw = Raw::logged_in(proxy.address).await?;
            let pipeline = [
                batch(&["begin", &insert(9), "commit"]),
                batch(&["begin", &slowly(10)]),
                batch(&["commit"]),
                batch(&[&insert(11)]),
            ];
            let told = cut(server, &mut raw, &pipeline, 9).await?;
            ensure!(
                told.starts_with("done done done I ") && told.ends_with("FATAL 08007"),
                "{mode:?}: {told}"
            );
            ensure!(server.sql("app", THERE)? == "9", "{mode:?}");
        }
        Ok(())
    });
}

/// One without a name that is too long to be read takes the place of a short one, whatever that was.
#[test]
fn a_statement_too_long_to_be_read_is_not_taken_for_the_one_before_it() {
    story(async |server| {
        server.sql("app", "create table cut (n int); grant all on cut to app")?;
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let proxy = server.trusting(mode, Limits::default()).await?;
            let mut raw = Raw::logged_in(proxy.address).await?;
            raw.send(&batch(&["select 1"])).await?;
            raw.until(b'Z').await?;
            let long = format!("{} /* {} */", slowly(1), "x".repeat(300_000));
            let told = cut(server, &mut raw, &[batch(&[&long])], 1).await?;
            ensure!(told == "FATAL 08007", "{mode:?}: {told}");
        }
        Ok(())
    });
}

/// Sends it to a backend that does not read, and has that end before it does.
async fn cut_unread(server: &Server, raw: &mut Raw, bytes: &[u8]) -> Result<()> {
    const ESTABLISHED: &str = "01";
    let of_app = "select pid from pg_stat_activity where backend_type = 'client backend' and usename = 'app'";
    let pid = tokio::task::block_in_place(|| server.psql(of_app))?;
    let signal = |name: &str| {
        let words = format!("kill -s {name} {pid}");
        server.run("sh", &["-c", &words]).map(drop)
    };
    signal("STOP")?;
    raw.send(bytes).await?;
    let end = format!(":{:04X}", server.port());
    lab::eventually("it is there", Duration::from_secs(60), async || {
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        let unread = table.lines().skip(1).any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_server = words[1].ends_with(&end) && words[3] == ESTABLISHED;
            is_server && !words[4].ends_with(":00000000")
        });
        ensure!(unread, "nothing waits to be read");
        Ok(())
    })
    .await?;
    signal("TERM")?;
    signal("CONT")
}

/// What is behind it waits until it is answered, and goes where it is begun anew.
#[test]
fn a_transaction_that_is_sent_without_waiting_begins_elsewhere() {
    story(async |server| {
        server.sql("app", "create table cut (n int); grant all on cut to app")?;
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            server.sql("app", "truncate cut")?;
            let proxy = server.trusting(mode, Limits::default()).await?;
            let mut raw = Raw::logged_in(proxy.address).await?;
            raw.send(&query("select 1")).await?;
            raw.until(b'Z').await?;
            let all = [query("begin"), batch(&[&insert(1)]), query("commit")];
            cut_unread(server, &mut raw, &all.concat()).await?;
            let mut said = Vec::new();
            for _ in 0..3 {
                said.extend(raw.until(b'Z').await?);
            }
            ensure!(
                heard(&said) == "done T done T done I",
                "{mode:?}: {}",
                heard(&said)
            );
            ensure!(server.sql("app", THERE)? == "1", "{mode:?}");
            drop((raw, proxy));
            nobody_is_left(server).await?;
        }
        Ok(())
    });
}

/// Where it fails, what was sent behind it commits by itself.
#[test]
fn a_transaction_whose_begin_is_not_answered_may_be_none() {
    story(async |server| {
        server.sql("app", "create table cut (n int); grant all on cut to app")?;
        let insert = query(&insert(1));
        for begin in [
            query("select 1/0; begin"),
            query("rollback and chain; begin isolation level bogus"),
            batch(&["begin read only deferrable bogus"]),
            batch(&["commit and chain", "begin"]),
            batch(&["rollback to nowhere", "begin"]),
        ] {
            for mode in [PoolMode::Session, PoolMode::Transaction] {
                let proxy = server.trusting(mode, Limits::default()).await?;
                let mut raw = Raw::logged_in(proxy.address).await?;
                raw.send(&query("select 1")).await?;
                raw.until(b'Z').await?;
                cut_unread(server, &mut raw, &[&begin[..], &insert].concat()).await?;
                let said = raw.end().await?;
                ensure!(said == "FATAL 08007", "{mode:?}: {said}");
                drop((raw, proxy));
                nobody_is_left(server).await?;
            }
        }
        Ok(())
    });
}

pub(crate) async fn nobody_is_left(server: &Server) -> Result<()> {
    lab::eventually("nobody is left", Duration::from_secs(60), async || {
        let left = "select count(*) from pg_stat_activity where usename = 'app'";
        let left = tokio::task::block_in_place(|| server.psql(left))?;
        ensure!(left == "0", "{left}");
        Ok(())
    })
    .await
}

fn tags(heard: &[Heard]) -> String {
    heard.iter().map(|(tag, _)| char::from(*tag)).collect()
}

/// What only prepares statements leaves nothing behind: its client does not notice that its server was lost.
#[test]
fn what_is_only_prepared_is_prepared_elsewhere() {
    story(async |server| {
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            for name in ["", "named"] {
                let parse = message(b'P', [name, "\0select 7\0\0\0"].concat().as_bytes());
                let describe = message(b'D', format!("S{name}\0").as_bytes());
                let bind = message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
                let execute = message(b'E', b"\0\0\0\0\0");
                let (sync, flush) = (message(b'S', b""), message(b'H', b""));
                let run = [bind, execute, sync.clone()].concat();
                let other = message(b'P', b"other\0select 1\0\0\0");
                let other = [other, flush.clone()].concat();
                let prepare = |end: &[u8]| [&parse[..], &describe, end].concat();
                for (what, before, asked, wanted) in [
                    ("with its end", query(""), prepare(&sync), "1tTZ"),
                    ("without it", query(""), prepare(&flush), "1tT"),
                    (
                        "another is prepared",
                        other,
                        prepare(&sync),
                        "EZ ERROR 40001",
                    ),
                    (
                        "in a transaction",
                        query("begin; select 1"),
                        prepare(&sync),
                        "EZ ERROR 40001",
                    ),
                    (
                        "it is run, too",
                        query(""),
                        [&parse[..], &run].concat(),
                        "EZ ERROR 40001",
                    ),
                ] {
                    let what = format!("{mode:?} {name:?} {what}");
                    let proxy = server.trusting(mode, Limits::default()).await?;
                    let mut raw = Raw::logged_in(proxy.address).await?;
                    raw.send(&before).await?;
                    let answered = if before[0] == b'Q' { b'Z' } else { b'1' };
                    raw.until(answered).await?;
                    cut_unread(server, &mut raw, &asked).await?;
                    let mut heard = Vec::new();
                    while tags(&heard) != wanted {
                        let Some(one) = raw.hear().await? else { break };
                        let is_last = one.0 == b'Z';
                        heard.push(one);
                        if is_last {
                            break;
                        }
                    }
                    let mut said = tags(&heard);
                    if said.contains('E') {
                        said = format!("{said} {}", told(&heard));
                    }
                    ensure!(said == wanted, "{what}: {said}");
                    if wanted.starts_with('1') {
                        raw.send(&run).await?;
                        let heard = raw.until(b'Z').await?;
                        ensure!(tags(&heard) == "2DCZ", "{what}: {}", tags(&heard));
                    }
                    drop((raw, proxy));
                    nobody_is_left(server).await?;
                }
            }
        }
        Ok(())
    });
}
