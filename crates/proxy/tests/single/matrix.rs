//! What a session can have made of itself, one test for each thing: another server has it too after
//! the first one is lost, or the session ends and is told why.
//!
//! All rows are played at once, in both modes, against one failover; each test judges its own.

use crate::pair::{self, Pair};
use crate::server::{code, one};
use anyhow::{Context as _, Result, bail, ensure};
use proxy::{Limits, PoolMode};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls};

/// One thing that a session can have.
#[derive(Clone, Copy)]
struct Row {
    user: &'static str,
    /// What makes it, a request each. MODE is another word in each mode.
    made: &'static [&'static str],
    /// What is asked of it before and after.
    asked: &'static str,
    after: After,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// It is as it was.
    Same,
    /// The answer is this one.
    Answers(&'static str),
    /// The session has ended, and this was the reason.
    Closed(&'static str),
    /// The transaction is lost, and the session goes on.
    Lost,
    /// As it was, and what was prepared is gone.
    Discarded,
}

const fn same(made: &'static [&'static str], asked: &'static str) -> Row {
    row(made, asked, After::Same)
}

const fn closed(made: &'static [&'static str], reason: &'static str) -> Row {
    row(made, "select 1", After::Closed(reason))
}

const fn discarded(made: &'static [&'static str], asked: &'static str) -> Row {
    row(made, asked, After::Discarded)
}

const fn lost(made: &'static [&'static str]) -> Row {
    row(made, "select 1", After::Lost)
}

const fn row(made: &'static [&'static str], asked: &'static str, after: After) -> Row {
    Row {
        user: "app",
        made,
        asked,
        after,
    }
}

const fn by_superuser(row: Row) -> Row {
    Row {
        user: "other",
        ..row
    }
}

macro_rules! rows {
    ($($name:ident: $row:expr,)*) => {
        const ROWS: &[(&str, Row)] = &[$((stringify!($name), $row)),*];
        $(#[test]
        fn $name() {
            judge(stringify!($name));
        })*
    };
}

const TEMPORARY: &str = "temporary objects";
const LOCKS: &str = "advisory locks";

rows! {
    nothing: same(&[], "select 1"),
    settings_that_are_reported: same(
        &[
            "set application_name = 'a b'; set datestyle = 'german'; set timezone = 'Asia/Tokyo'",
            "set intervalstyle = 'iso_8601'; set client_encoding = 'latin1'",
            "set standard_conforming_strings = off",
            "set default_transaction_read_only = on",
        ],
        "select concat_ws('|', current_setting('application_name'), current_setting('datestyle'), \
         current_setting('timezone'), current_setting('intervalstyle'), \
         current_setting('client_encoding'), current_setting('standard_conforming_strings'), \
         current_setting('transaction_read_only'))",
    ),
    settings_that_are_not_reported: same(
        &[
            "set work_mem = '3MB'; set search_path to \"$user\", public, pg_catalog",
            "set session characteristics as transaction isolation level repeatable read, deferrable",
            "set local work_mem = '7MB'",
        ],
        "select concat_ws('|', current_setting('work_mem'), current_setting('search_path'), \
         current_setting('transaction_isolation'), current_setting('transaction_deferrable'))",
    ),
    settings_of_the_users_own: same(
        &[
            "set app.user_id = 'it''s \\ 7'; set \"App\".tenant to 5",
            "select set_config('app.through', 'a function', false), set_config('app.x', 'y', true)",
        ],
        "select concat_ws('|', current_setting('app.user_id'), current_setting('app.tenant'), \
         current_setting('app.through'), coalesce(nullif(current_setting('app.x', true), ''), 'no'))",
    ),
    settings_in_a_transaction: same(
        &[
            "begin; set local work_mem = '7MB'; set app.kept = '1'; savepoint s; \
             set app.kept = '2'; set app.gone = '1'; rollback to s; commit",
            "begin; set app.kept = '3'; rollback",
        ],
        "select concat_ws('|', current_setting('work_mem'), current_setting('app.kept'), \
         coalesce(nullif(current_setting('app.gone', true), ''), 'no'))",
    ),
    settings_that_were_reset: same(
        &["set work_mem = '3MB'; set app.a = '1'; set geqo = off; reset work_mem; set geqo to default"],
        "select concat_ws('|', current_setting('work_mem'), current_setting('geqo'), \
         current_setting('app.a'))",
    ),
    settings_of_the_role: same(&[], "select current_setting('statement_timeout')"),
    timeouts_and_durability: same(
        &["set statement_timeout = '70s'; set lock_timeout = 5000; set synchronous_commit = local; \
           set idle_in_transaction_session_timeout = '1h'"],
        "select concat_ws('|', current_setting('statement_timeout'), \
         current_setting('lock_timeout'), current_setting('synchronous_commit'), \
         current_setting('idle_in_transaction_session_timeout'))",
    ),
    a_role: same(&["set role reader"], "select concat_ws('|', session_user, current_user)"),
    another_session_authorization: by_superuser(closed(
        &["set session authorization app"],
        "another session authorization",
    )),
    a_session_authorization_of_a_block: by_superuser(closed(
        &["do $$ begin set session authorization app; end $$"],
        "another session authorization",
    )),
    statements_that_sql_has_prepared: same(
        &["prepare q (int, text) as select $1 + 1 || $2"],
        "execute q (4, 'x')",
    ),
    a_cursor: lost(&["begin; declare c cursor for select 1"]),
    a_cursor_with_hold: closed(
        &["begin; declare c cursor with hold for select 1; commit"],
        "cursors WITH HOLD",
    ),
    a_temporary_table: closed(&["create temp table x ()"], TEMPORARY),
    a_temporary_table_of_a_query: closed(&["select 1 as a into temp x"], TEMPORARY),
    a_temporary_view: closed(&["create or replace temporary view x as select 1"], TEMPORARY),
    a_temporary_sequence: closed(&["create temporary sequence x"], TEMPORARY),
    a_temporary_function: closed(
        &["create function pg_temp.x() returns int language sql as 'select 1'"],
        TEMPORARY,
    ),
    a_temporary_type: closed(&["create type pg_temp.x as (a int)"], TEMPORARY),
    a_table_that_the_search_path_makes_temporary: closed(
        &["set search_path = pg_temp; create table x ()"],
        TEMPORARY,
    ),
    a_temporary_table_of_a_block: closed(
        &["do $$ begin create temp table x (); end $$"],
        TEMPORARY,
    ),
    a_temporary_table_of_a_function: closed(&["select make_temporary()"], TEMPORARY),
    a_temporary_table_that_is_gone: same(
        &["create temp table x ()", "drop table x", "set work_mem = '3MB'"],
        "show work_mem",
    ),
    everything_discarded: discarded(
        &["create temp table x (); listen x; set work_mem = '7MB'; prepare q as select 1",
           "discard all", "set work_mem = '3MB'"],
        "select current_setting('work_mem') || count(*) from pg_prepared_statements \
         where from_sql",
    ),
    channels_that_are_left: same(&["listen x", "unlisten *"], "select 1"),
    channels: closed(&["listen x"], "channels"),
    channels_of_a_block: closed(&["do $$ begin execute 'listen x'; end $$"], "channels"),
    an_advisory_lock: closed(&["select pg_advisory_lock(hashtext('1 MODE'))"], LOCKS),
    a_shared_advisory_lock: closed(&["select pg_try_advisory_lock_shared(2)"], LOCKS),
    an_advisory_lock_of_a_function: closed(&["select take_lock(hashtext('3 MODE'))"], LOCKS),
    an_advisory_lock_that_is_gone: same(
        &["select pg_advisory_lock(hashtext('5 MODE'))", "select pg_advisory_unlock_all()"],
        "select 1",
    ),
    an_advisory_lock_of_a_transaction: lost(
        &["begin; select pg_advisory_xact_lock(hashtext('4 MODE'))"],
    ),
    row_locks: lost(&["begin; select * from plain for share"]),
    the_last_value_of_a_sequence: row(
        &["select nextval('numbers')"],
        "select currval('numbers')",
        After::Answers("ERROR 55000"),
    ),
    // Said again, the string would end before its end.
    a_setting_that_would_be_read_otherwise: closed(
        &[
            "set standard_conforming_strings = off",
            r"set app.y = 'q\'; create table hacked(); --'",
            "set standard_conforming_strings = on",
        ],
        "in a way that is not followed",
    ),
    a_seed: closed(&["select setseed(0.5)"], "random"),
    a_seed_that_was_set: closed(&["set seed to 0.5"], "random"),
    a_library: by_superuser(closed(&["load '$libdir/plpgsql'"], "library")),
    a_connection_of_dblink: closed(
        &["select dblink_connect('c', 'dbname=app port=' || current_setting('port') || \
           ' host=127.0.0.1 user=app password=pencil')"],
        "dblink",
    ),
    a_large_object: lost(&["begin; select lo_open(lo_creat(-1), 131072)"]),
    an_exported_snapshot: lost(&["begin isolation level repeatable read; select pg_export_snapshot()"]),
    a_prepared_transaction: same(
        &["begin; insert into plain values (7); prepare transaction 'MODE'"],
        "select count(*) from pg_prepared_xacts where gid = 'MODE'",
    ),
    a_setting_of_a_function: same(
        &["select change_setting('work_mem', '9MB')"],
        "show work_mem",
    ),
    a_setting_of_a_block: same(
        &["do $$ begin set enable_seqscan = off; end $$"],
        "show enable_seqscan",
    ),
    a_setting_that_a_function_takes_back: same(
        &["set work_mem = '9MB'", "do $$ begin reset work_mem; end $$"],
        "show work_mem",
    ),
    a_role_of_a_block: same(
        &["do $$ begin set role reader; end $$"],
        "select current_user",
    ),
    a_statement_of_a_block: same(
        &["do $$ begin execute 'prepare hidden as select 8'; end $$"],
        "execute hidden",
    ),
}

/// What became of each row, in each mode.
type Outcomes = BTreeMap<&'static str, Vec<Result<()>>>;

static PLAYED: LazyLock<Result<Outcomes>> = LazyLock::new(|| {
    let mut outcomes = Outcomes::new();
    pair::story(async |pair| play(pair, &mut outcomes).await)?;
    Ok(outcomes)
});

fn judge(name: &str) {
    let played = PLAYED.as_ref().unwrap_or_else(|error| panic!("{error:#}"));
    let outcomes = &played[name];
    assert_eq!(outcomes.len(), 2, "it was played in both modes");
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .map(|error| format!("{error:#}"))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A session with what its row has made of it.
struct Session {
    client: Client,
    connection: JoinHandle<Result<(), Error>>,
    prepared: tokio_postgres::Statement,
    asked: String,
    before: String,
}

async fn play(pair: &Pair, outcomes: &mut Outcomes) -> Result<()> {
    pair.a.sql(
        "app",
        "alter role other superuser; create role reader; grant reader to app; create table plain (a int); \
         insert into plain values (1); grant all on plain to app; create sequence numbers; \
         grant all on sequence numbers to app; create extension dblink; \
         alter role app set statement_timeout = '66s'; \
         create function make_temporary() returns void language plpgsql as \
         $$ begin create temp table x (); end $$; \
         create function take_lock(int) returns void language sql as \
         'select pg_advisory_lock($1)'; \
         create function change_setting(text, text) returns void language sql as \
         'select set_config($1, $2, false)'",
    )?;
    let limits = Limits {
        pool_size: 90,
        ..Limits::default()
    };
    let mut sessions = Vec::new();
    let mut proxies = Vec::new();
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let proxy = pair.proxy(mode, limits).await?;
        for (name, row) in ROWS {
            let (client, connection) = proxy.config(row.user).connect(NoTls).await?;
            let connection = tokio::spawn(connection);
            let outcomes = outcomes.entry(*name).or_default();
            match set_up(client, connection, row, mode).await {
                Ok(session) => sessions.push((*name, mode, row, session)),
                Err(error) => outcomes.push(Err(error.context(format!("{mode:?}")))),
            }
        }
        proxies.push(proxy);
    }
    pair.fail_over().await?;
    for (name, mode, row, session) in sessions {
        let judged = tokio::time::timeout(Duration::from_secs(20), look(row, session)).await;
        let judged = match judged {
            Ok(judged) => judged,
            Err(_) => Err(anyhow::anyhow!("no answer")),
        };
        let judged = judged.with_context(|| format!("{mode:?}"));
        outcomes.entry(name).or_default().push(judged);
    }
    Ok(())
}

async fn set_up(
    client: Client,
    connection: JoinHandle<Result<(), Error>>,
    row: &Row,
    mode: PoolMode,
) -> Result<Session> {
    let prepared = client.prepare("select $1::int + 1").await?;
    let named = |sql: &str| sql.replace("MODE", &format!("{mode:?}"));
    for sql in row.made {
        client.simple_query(&named(sql)).await.context(*sql)?;
    }
    let asked = named(row.asked);
    let before = match row.after {
        After::Same | After::Discarded => answer(&client, &asked).await,
        _ => String::new(),
    };
    ensure!(!before.starts_with("ERROR"), "{before}");
    Ok(Session {
        client,
        connection,
        prepared,
        asked,
        before,
    })
}

async fn look(row: &Row, session: Session) -> Result<()> {
    let Session {
        client,
        connection,
        prepared,
        asked,
        before,
    } = session;
    match row.after {
        After::Closed(reason) => {
            // It is told at once, and not when it asks for something the next time.
            let Err(error) = connection.await? else {
                bail!("it ended without a word");
            };
            let detail = error.as_db_error().and_then(|db| db.detail());
            let detail = detail.unwrap_or_default().to_owned();
            let code = code(Err::<(), _>(error));
            ensure!(
                code == "FATAL 57P01" && detail.contains(reason),
                "{code}: {detail}"
            );
        }
        After::Lost => {
            let told = answer(&client, &asked).await;
            ensure!(told == "ERROR 40001", "{told}");
            client.batch_execute("rollback").await?;
            alive(&client, &prepared).await?;
        }
        After::Same => {
            let after = answer(&client, &asked).await;
            ensure!(after == before, "before: {before}, after: {after}");
            alive(&client, &prepared).await?;
        }
        After::Discarded => {
            let after = answer(&client, &asked).await;
            ensure!(after == before, "before: {before}, after: {after}");
            let told = client.query_one(&prepared, &[&6_i32]).await;
            ensure!(code(told) == "ERROR 26000");
        }
        After::Answers(wanted) => {
            let after = answer(&client, &asked).await;
            ensure!(after == wanted, "{after}");
            alive(&client, &prepared).await?;
        }
    }
    Ok(())
}

/// What it prepared by the protocol at its beginning is there.
async fn alive(client: &Client, prepared: &tokio_postgres::Statement) -> Result<()> {
    let row = client.query_one(prepared, &[&6_i32]).await?;
    ensure!(row.get::<_, i32>(0) == 7);
    Ok(())
}

async fn answer(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Err(error) => code(Err::<(), _>(error)),
        Ok(_) => one(client, sql)
            .await
            .unwrap_or_else(|error| format!("{error:#}")),
    }
}
