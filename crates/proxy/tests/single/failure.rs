//! The server goes and comes back, and what clients see of it.

use crate::raw::{Raw, message, query, told};
use crate::server::{Server, code, one, story};
use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, pin_mut};
use proxy::{Limits, PoolMode};
use std::time::Duration;

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

fn restart(server: &Server) -> Result<()> {
    tokio::task::block_in_place(|| {
        server.down("immediate")?;
        server.up()
    })
}

#[test]
fn idle_sessions_outlive_their_server() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            let prepared = client.prepare("select $1::int + 1").await?;
            client
                .batch_execute(
                    "set app.user_id = '7'; set search_path = pg_catalog; \
                     prepare q as select 5; begin; savepoint s; set work_mem = '3MB'; \
                     rollback to s; set statement_timeout = '77s'; commit",
                )
                .await?;
            restart(server)?;
            let shown = "select current_setting('app.user_id') || ' ' || \
                         current_setting('search_path') || ' ' || current_setting('work_mem') || \
                         ' ' || current_setting('statement_timeout')";
            ensure!(one(&client, shown).await? == "7 pg_catalog 4MB 77s");
            ensure!(
                client
                    .query_one(&prepared, &[&1_i32])
                    .await?
                    .get::<_, i32>(0)
                    == 2
            );
            ensure!(one(&client, "execute q").await? == "5");
        }
        Ok(())
    });
}

#[test]
fn a_lost_transaction_fails_and_its_session_lives() {
    story(async |server| {
        server.psql("create table postgres_only (a int)")?;
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            client
                .batch_execute("drop table if exists t; create table t (a int)")
                .await?;
            client
                .batch_execute("begin; insert into t values (1)")
                .await?;
            restart(server)?;
            ensure!(code(client.batch_execute("insert into t values (2)").await) == "ERROR 40001");
            ensure!(code(client.batch_execute("select 1").await) == "ERROR 25P02");
            client.batch_execute("rollback").await?;
            ensure!(one(&client, "select count(*) from t").await? == "0");
            // Who commits hears that there was no commit.
            client
                .batch_execute("begin; insert into t values (1)")
                .await?;
            restart(server)?;
            ensure!(code(client.batch_execute("commit").await) == "ERROR 40001");
            ensure!(one(&client, "select count(*) from t").await? == "0");
            // A statement that runs in a transaction.
            client
                .batch_execute("begin; insert into t values (1)")
                .await?;
            let (slept, stopped) = tokio::join!(
                client.batch_execute("select pg_sleep(30)"),
                stop_while(server, "select pg_sleep(30)")
            );
            stopped?;
            ensure!(code(slept) == "ERROR 40001");
            client.batch_execute("rollback").await?;
            ensure!(one(&client, "select count(*) from t").await? == "0");
        }
        Ok(())
    });
}

#[test]
fn a_transaction_that_has_only_begun_is_begun_again() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            client
                .batch_execute("drop table if exists begun; create table begun (a int)")
                .await?;
            let isolation = "show transaction_isolation";
            // Before the first statement.
            client
                .batch_execute("begin isolation level serializable")
                .await?;
            restart(server)?;
            ensure!(one(&client, isolation).await? == "serializable");
            client.batch_execute("insert into begun values (1)").await?;
            client.batch_execute("commit").await?;
            // Twice, and nothing between.
            client.batch_execute("start transaction").await?;
            restart(server)?;
            ensure!(one(&client, "select count(*) from begun").await? == "1");
            client.batch_execute("rollback").await?;
            client.batch_execute("begin").await?;
            restart(server)?;
            client.batch_execute("commit").await?;
            // What came behind it is lost, even if it has failed.
            client.batch_execute("begin").await?;
            ensure!(code(client.batch_execute("select 1/0").await) == "ERROR 22012");
            restart(server)?;
            ensure!(code(client.batch_execute("select 1").await) == "ERROR 25P02");
            client.batch_execute("rollback").await?;
            client.batch_execute("begin").await?;
            client
                .batch_execute("set transaction isolation level serializable")
                .await?;
            restart(server)?;
            ensure!(code(client.batch_execute("select 1").await) == "ERROR 40001");
            client.batch_execute("rollback").await?;
        }
        Ok(())
    });
}

/// A BEGIN within a transaction, or within what a Sync has still to end, begins nothing: what came before it is lost
/// with its server.
#[test]
fn a_transaction_that_was_begun_twice_is_lost_as_any_other() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, Limits::default()).await?;
            server.sql(
                "app",
                "drop table if exists twice; create table twice (a int); grant all on twice to app",
            )?;
            let client = proxy.client("app").await?;
            client.batch_execute("begin").await?;
            client.batch_execute("insert into twice values (1)").await?;
            client.batch_execute("begin").await?;
            restart(server)?;
            ensure!(
                code(client.batch_execute("commit").await) == "ERROR 40001",
                "{mode:?}"
            );
            let mut raw = Raw::logged_in(proxy.address).await?;
            let parse = message(b'P', b"\0insert into twice values (2)\0\0\0");
            let (bind, execute) = (message(b'B', &[0; 8]), message(b'E', &[0; 5]));
            raw.send(&[parse, bind, execute, query("begin")].concat())
                .await?;
            raw.until(b'Z').await?;
            restart(server)?;
            raw.send(&query("commit")).await?;
            let heard = told(&raw.until(b'Z').await?);
            ensure!(heard == "ERROR 40001", "{mode:?}: {heard}");
            ensure!(server.sql("app", "select count(*) from twice")? == "0");
        }
        Ok(())
    });
}

/// Whether its string was answered or not: what was asked in it can't be asked again, and what comes behind it is not
/// run outside of a transaction.
#[test]
fn a_transaction_that_begins_behind_something_else_is_lost_as_any_other() {
    const STRING: &str = "select 1; begin";
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            client
                .batch_execute("drop table if exists begun; create table begun (a int)")
                .await?;
            let is_in_failed_transaction = async || {
                let insert = client.batch_execute("insert into begun values (1)").await;
                ensure!(code(insert) == "ERROR 25P02", "{mode:?}");
                client.batch_execute("rollback").await?;
                ensure!(one(&client, "select count(*) from begun").await? == "0");
                Ok(())
            };
            client.batch_execute(STRING).await?;
            restart(server)?;
            ensure!(code(client.batch_execute("select 1").await) == "ERROR 40001");
            is_in_failed_transaction().await?;
            let lost = while_stopped(server, &client, STRING).await?;
            ensure!(code(lost) == "ERROR 40001", "{mode:?}");
            is_in_failed_transaction().await?;
        }
        Ok(())
    });
}

#[test]
fn a_begin_that_is_not_answered_does_not_fail() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            while_stopped(server, &client, "begin isolation level repeatable read").await??;
            ensure!(one(&client, "show transaction_isolation").await? == "repeatable read");
            client.batch_execute("commit").await?;
        }
        Ok(())
    });
}

/// Said behind an error, it is what brings a driver back.
#[test]
fn a_rollback_that_ends_nothing_does_not_fail() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            while_stopped(server, &client, "rollback").await??;
            let more = while_stopped(server, &client, "rollback; select 1").await?;
            ensure!(code(more) == "ERROR 40001", "{mode:?}");
            ensure!(one(&client, "select 1").await? == "1");
        }
        Ok(())
    });
}

/// What is said to something that is asked of a backend which stands still, and then dies.
async fn while_stopped(
    server: &Server,
    client: &tokio_postgres::Client,
    sql: &str,
) -> Result<Result<(), tokio_postgres::Error>> {
    const CHECKPOINTER: &str =
        "select pid from pg_stat_activity where backend_type = 'checkpointer'";
    let before = server.psql(CHECKPOINTER)?;
    let pid = one(client, "select pg_backend_pid()").await?;
    signal(&pid, "STOP")?;
    let asked = client.batch_execute(sql);
    pin_mut!(asked);
    let moment = Duration::from_millis(300);
    let waits = tokio::time::timeout(moment, &mut asked).await.is_err();
    // The postmaster starts everything anew.
    signal(&pid, "KILL")?;
    ensure!(waits, "a stopped backend has answered");
    let answer = asked.await;
    // Until the postmaster has seen the death it lets others in, whom it ends then.
    let limit = Duration::from_secs(30);
    lab::eventually("the server has begun anew", limit, async || {
        let now = server.psql(CHECKPOINTER)?;
        ensure!(!now.is_empty() && now != before, "not yet");
        Ok(())
    })
    .await?;
    Ok(answer)
}

fn signal(pid: &str, signal: &str) -> Result<()> {
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, pid])
        .status()?;
    ensure!(sent.success(), "kill -s {signal} {pid}");
    Ok(())
}

#[test]
fn an_unknown_outcome_is_said_to_be_unknown() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            let (slept, stopped) = tokio::join!(
                client.batch_execute("do $$ begin perform pg_sleep(30); end $$"),
                stop_while(server, "do $$")
            );
            stopped?;
            ensure!(code(slept) == "FATAL 08007");
        }
        Ok(())
    });
}

#[test]
fn what_cannot_be_rebuilt_ends_with_the_reason() {
    story(async |server| {
        for (sql, reason) in [
            ("create temp table x ()", "temporary objects"),
            ("listen x", "channels"),
            ("select pg_advisory_lock(1)", "advisory locks"),
            (
                "begin; declare c cursor with hold for select 1; commit",
                "cursors WITH HOLD",
            ),
            ("select setseed(0.5)", "random"),
        ] {
            let mode = BOTH[sql.len() % 2];
            let proxy = server.proxy(mode, Limits::default()).await?;
            let (client, connection) = proxy.config("app").connect(tokio_postgres::NoTls).await?;
            let connection = tokio::spawn(connection);
            ensure!(code(client.batch_execute(sql).await) == "ok", "{sql}");
            restart(server)?;
            // It is told at once, and not when it asks for something the next time.
            let ended = tokio::time::timeout(Duration::from_secs(10), connection).await??;
            let error = ended.expect_err(sql);
            let detail = error.as_db_error().and_then(|db| db.detail());
            let detail = detail.unwrap_or_default().to_owned();
            ensure!(code(Err::<(), _>(error)) == "FATAL 57P01", "{sql}");
            ensure!(detail.contains(reason), "{sql}: {detail}");
        }
        Ok(())
    });
}

#[test]
fn requests_wait_for_a_server_and_not_for_ever() {
    story(async |server| {
        let limits = Limits {
            hold_time: Duration::from_secs(2),
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        one(&a, "select 1").await?;
        tokio::task::block_in_place(|| server.down("immediate"))?;
        ensure!(code(a.batch_execute("select 1").await) == "ERROR 57P03");
        // The session lives, and a request that waits is served as soon as it can be.
        let up = async { tokio::task::block_in_place(|| server.up()) };
        let (one, other, up) =
            tokio::join!(a.batch_execute("select 1"), b.batch_execute("select 1"), up);
        up?;
        ensure!(code(one) == "ok" && code(other) == "ok");
        Ok(())
    });
}

/// Stops and starts the server once the statement is seen to run.
async fn stop_while(server: &Server, statement: &str) -> Result<()> {
    let running = format!(
        "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() \
         and query like '{}%'",
        statement.replace('\'', "''")
    );
    lab::eventually("the statement runs", Duration::from_secs(10), async || {
        ensure!(tokio::task::block_in_place(|| server.psql(&running))? == "1");
        Ok(())
    })
    .await?;
    restart(server)
}

#[test]
fn a_copy_that_is_cut_off_leaves_a_session_that_works() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            client
                .batch_execute("drop table if exists t; create table t (a int)")
                .await?;
            client.batch_execute("begin").await?;
            let sink = client.copy_in("copy t from stdin").await?;
            pin_mut!(sink);
            for line in ["1\n", "2\n"] {
                sink.send(std::io::Cursor::new(line.as_bytes())).await?;
            }
            restart(server)?;
            ensure!(code(sink.finish().await) == "ERROR 40001", "{mode:?}");
            ensure!(
                code(client.batch_execute("select 1").await) == "ERROR 25P02",
                "{mode:?}"
            );
            client.batch_execute("rollback").await?;
            ensure!(one(&client, "select count(*) from t").await? == "0");
        }
        Ok(())
    });
}

/// The key that a client was given at its login is good for whatever server it has by now, and for nobody else's.
#[test]
fn a_cancel_finds_a_session_that_has_moved() {
    use crate::raw::{Raw, packet, query, startup, told};
    const CANCEL_REQUEST: u32 = 80_877_102;
    const SLEEPERS: &str = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, Limits::default()).await?;
            let mut raw = Raw::connect(proxy.address).await?;
            raw.send(&startup(&[("user", "app")])).await?;
            let greeted = raw.until(b'Z').await?;
            let key = greeted.iter().find(|(tag, _)| *tag == b'K');
            let key = key.context("a key")?.1.clone();
            raw.send(&query("select 7")).await?;
            raw.until(b'Z').await?;
            restart(server)?;
            let other = proxy.client("app").await?;
            let token = other.cancel_token();
            let sleeping = async move { other.batch_execute("select pg_sleep(600)").await };
            let undisturbed = tokio::spawn(sleeping);
            raw.send(&query("select pg_sleep(600)")).await?;
            let sleepers = async |count: &str| {
                lab::eventually(count, Duration::from_secs(60), async || {
                    let now = tokio::task::block_in_place(|| server.psql(SLEEPERS))?;
                    ensure!(now == count, "{now} sleep");
                    Ok(())
                })
                .await
            };
            sleepers("2").await?;
            let mut cancel = Raw::connect(proxy.address).await?;
            cancel.send(&packet(CANCEL_REQUEST, &key)).await?;
            ensure!(cancel.end().await? == "nothing");
            ensure!(told(&raw.until(b'Z').await?) == "ERROR 57014", "{mode:?}");
            sleepers("1").await?;
            token.cancel_query(tokio_postgres::NoTls).await?;
            ensure!(code(undisturbed.await?) == "ERROR 57014", "{mode:?}");
        }
        Ok(())
    });
}

/// PostgreSQL goes on with a string behind a line break, with or without escapes as it began; and in some encodings of
/// clients a backslash may be half of a letter. Who reads either otherwise does not see the COMMIT.
#[test]
fn a_commit_between_strings_that_are_hard_to_read_is_never_denied() {
    use crate::raw::{Raw, message, query, startup};
    const STRINGS: [(&str, &[u8]); 2] = [("UTF8", b"E'a'\n'b\\''"), ("SJIS", b"E'\x83\\'")];
    const WIDE: &str = "create database wide owner app encoding 'UTF8' template template0";
    story(async |server| {
        server.psql(WIDE)?;
        server.sql("wide", "create table hidden (); grant all on hidden to app")?;
        for mode in BOTH {
            for (encoding, string) in STRINGS {
                let proxy = server.trusting(mode, Limits::default()).await?;
                let mut raw = Raw::connect(proxy.address).await?;
                raw.send(&startup(&[("user", "app"), ("database", "wide")]))
                    .await?;
                raw.until(b'Z').await?;
                let encoding = format!("set client_encoding to '{encoding}'");
                let begin = "begin; truncate hidden; insert into hidden default values";
                for sql in [&*encoding, begin] {
                    raw.send(&query(sql)).await?;
                    raw.until(b'Z').await?;
                }
                let end = b" from pg_sleep(60) -- '\0";
                let hiding = [b"select ", string, b"; commit; select ", string, end].concat();
                raw.send(&message(b'Q', &hiding)).await?;
                stop_while(server, "select E").await?;
                ensure!(raw.end().await? == "FATAL 08007", "{mode:?}: {encoding}");
                ensure!(server.sql("wide", "select count(*) from hidden")? == "1");
            }
        }
        Ok(())
    });
}

/// Its end begins another transaction, which is none: what would run in that is not to run outside of one.
#[test]
fn a_lost_transaction_is_not_chained_to_the_next_one() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            let table = "drop table if exists chained; create table chained (a int)";
            client.batch_execute(table).await?;
            for chaining in ["rollback and chain", "commit and chain"] {
                client.batch_execute("begin").await?;
                let insert = "insert into chained values (1)";
                client.batch_execute(insert).await?;
                restart(server)?;
                ensure!(code(client.batch_execute(chaining).await) == "ERROR 40001");
                for sql in [chaining, insert] {
                    ensure!(
                        code(client.batch_execute(sql).await) == "ERROR 25P02",
                        "{mode:?}"
                    );
                }
                client.batch_execute("rollback").await?;
                ensure!(one(&client, "select count(*) from chained").await? == "0");
            }
            // On a server they go on.
            client.batch_execute("begin; commit and chain").await?;
            client
                .batch_execute("insert into chained values (1)")
                .await?;
            client.batch_execute("rollback and chain; rollback").await?;
            ensure!(one(&client, "select count(*) from chained").await? == "0");
        }
        Ok(())
    });
}

/// Drivers keep the statements that they end transactions with: what was prepared and closed where there was no server
/// is so on the next one.
#[test]
fn statements_of_a_lost_transaction_outlive_it() {
    use crate::raw::{Raw, message, query, told};
    let sync = || message(b'S', b"");
    let parse = |name: &str, sql: &str| {
        let body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat();
        message(b'P', &body)
    };
    let run = |name: &str| {
        let bind = [b"\0", name.as_bytes(), &[0; 7]].concat();
        [message(b'B', &bind), message(b'E', &[0; 5]), sync()].concat()
    };
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, Limits::default()).await?;
            let mut raw = Raw::logged_in(proxy.address).await?;
            let mut say = async |bytes: Vec<u8>| -> Result<(String, Vec<u8>)> {
                raw.send(&bytes).await?;
                let heard = raw.until(b'Z').await?;
                Ok((told(&heard), heard.iter().map(|one| one.0).collect()))
            };
            let is_well = |(error, _): (String, Vec<u8>)| {
                ensure!(error == "nothing", "{mode:?}: {error}");
                Ok(())
            };
            is_well(say([parse("x", "select 42"), sync()].concat()).await?)?;
            is_well(say(query("begin; select now()")).await?)?;
            restart(server)?;
            ensure!(say(query("select 1")).await?.0 == "ERROR 40001");
            let close = [message(b'C', b"Sx\0"), sync()].concat();
            is_well(say(close).await?)?;
            is_well(say([parse("end", "ROLLBACK"), run("end")].concat()).await?)?;
            is_well(say([parse("x", "select 43"), run("x")].concat()).await?)?;
            // In another transaction, lost or not.
            is_well(say(query("begin; select now()")).await?)?;
            is_well(say(run("end")).await?)?;
            is_well(say(query("begin; select now()")).await?)?;
            restart(server)?;
            ensure!(say(query("select 1")).await?.0 == "ERROR 40001");
            is_well(say(run("end")).await?)?;
            let (error, heard) = say(run("x")).await?;
            ensure!(error == "nothing" && heard == b"2DCZ", "{mode:?}: {error}");
        }
        Ok(())
    });
}

#[test]
fn a_session_with_many_statements_moves() {
    use crate::raw::{Raw, message, query, told};
    const MANY: usize = 6_000;
    story(async |server| {
        let proxy = server
            .trusting(PoolMode::Session, Limits::default())
            .await?;
        let mut raw = Raw::logged_in(proxy.address).await?;
        for first in (0..MANY).step_by(500) {
            let parses = (first..first + 500).flat_map(|n| {
                let body = format!("s{n}\0select {n}\0\0\0");
                message(b'P', body.as_bytes())
            });
            let mut bytes: Vec<u8> = parses.collect();
            bytes.extend(message(b'S', b""));
            raw.send(&bytes).await?;
            raw.until(b'Z').await?;
        }
        restart(server)?;
        let prepared = "select count(*) from pg_prepared_statements";
        raw.send(&query(prepared)).await?;
        let heard = raw.until(b'Z').await?;
        ensure!(told(&heard) == "nothing", "{}", told(&heard));
        let row = heard.iter().find(|(tag, _)| *tag == b'D');
        ensure!(row.is_some_and(|(_, row)| row.ends_with(b"6000")));
        Ok(())
    });
}

/// A server that answers nothing when it is to have the session's settings keeps nobody for longer than a wait may last.
#[test]
fn a_server_that_hangs_while_a_session_gets_it_is_given_up() {
    story(async |server| {
        let limits = Limits {
            pool_size: 1,
            hold_time: Duration::from_secs(2),
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        a.batch_execute("set work_mem = '3MB'").await?;
        let pid = one(&b, "select pg_backend_pid()").await?;
        let signal = |name: &str| server.run("sh", &["-c", &format!("kill -s {name} {pid}")]);
        signal("STOP")?;
        let asked = tokio::time::timeout(Duration::from_secs(10), a.batch_execute("select 1"));
        let said = code(asked.await?);
        ensure!(said == "ERROR 57P03", "{said}");
        // Its place is free again, while it still hangs.
        ensure!(one(&a, "show work_mem").await? == "3MB");
        signal("CONT")?;
        Ok(())
    });
}

/// What a session has become its server is asked behind the answer, when its client may be gone.
#[test]
fn a_server_that_hangs_behind_a_function_keeps_no_place() {
    story(async |server| {
        let create = "create function odd() returns int language sql as 'select 1'";
        server.sql("app", create)?;
        let limits = Limits {
            pool_size: 1,
            hold_time: Duration::from_secs(3),
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let (gone, stays) = (proxy.client("app").await?, proxy.client("app").await?);
        let next = proxy.client("app").await?;
        one(&gone, "select odd()").await?;
        let mut config = tokio_postgres::Config::new();
        config.host_path(server.directory()).port(server.port());
        config.user("postgres").dbname("app");
        let (holder, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let lock = "begin; lock table pg_catalog.pg_settings in access exclusive mode";
        holder.batch_execute(lock).await?;
        ensure!(one(&gone, "select odd()").await? == "1");
        drop(gone);
        ensure!(one(&next, "select 7").await? == "7");
        ensure!(one(&stays, "select odd()").await? == "1");
        let said = code(stays.batch_execute("select 1").await);
        ensure!(said == "FATAL 57P01", "{said}");
        ensure!(one(&next, "select 7").await? == "7");
        Ok(())
    });
}
