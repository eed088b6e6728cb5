//! What one client leaves on a server, and what the next one finds of it: nothing.

use crate::raw::{Raw, claims, message, query, told};
use crate::server::{Running, Server, code, one, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{Limits, PoolMode};
use std::time::Duration;
use tokio_postgres::Client;

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

/// Everything of a session that a client could have left.
const STATE: &str = "select concat_ws('|', session_user, current_user, \
    current_setting('work_mem'), current_setting('search_path'), current_setting('timezone'), \
    current_setting('application_name'), current_setting('default_transaction_read_only'), \
    coalesce(nullif(current_setting('app.x', true), ''), 'no'), \
    coalesce(nullif(current_setting('app.hidden', true), ''), 'no'), \
    (select count(*) from pg_prepared_statements where name not like 'standfast%'), \
    (select count(*) from pg_listening_channels()), \
    (select count(*) from pg_cursors where is_holdable), \
    (select count(*) from pg_class where relnamespace = pg_my_temp_schema()), \
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()))";

const MESSES: [&str; 21] = [
    "set work_mem = '3MB'; set search_path = pg_catalog; set timezone = 'Asia/Tokyo'",
    "update pg_settings set setting = '3MB' where name = 'work_mem'",
    "with a as (select 'search_path' as name) update pg_catalog.\"pg_settings\" as s \
     set setting = 'pg_catalog' from a where s.name = a.name",
    "set app.x = 'secret'; set application_name = 'somebody'",
    "set default_transaction_read_only = on",
    "set role reader",
    "select change_setting('app.hidden', 'secret')",
    "select change_setting('work_mem', '5MB'), change_setting('role', 'reader')",
    "do $$ begin set app.hidden = 'secret'; set timezone = 'Asia/Tokyo'; end $$",
    "prepare q as select 'secret'",
    "create temp table secret as select 1",
    "select make_temporary()",
    "select truncate_x('secret')",
    "select set_config_for('secret')",
    "select has_access('secret')",
    "select own.log('secret')",
    "explain analyze create temp table secret as select 1",
    "select pg_advisory_lock(1); select take_lock(2)",
    "listen secret",
    "begin; declare secret cursor with hold for select 1; commit",
    "begin; set work_mem = '3MB'; select pg_advisory_lock(3); create temp table secret (); \
     set session characteristics as transaction read only; insert into plain values (666)",
];

#[test]
fn nothing_is_left_to_the_next_client() {
    story(async |server| {
        server.sql(
            "app",
            "create role reader; grant reader to app; create table plain (a int); \
             grant all on plain to app; \
             create function make_temporary() returns void language plpgsql as \
             $$ begin create temp table secret (); end $$; \
             create function take_lock(int) returns void language sql as \
             'select pg_advisory_lock($1)'; \
             create function change_setting(text, text) returns void language sql as \
             'select set_config($1, $2, false)'; \
             create schema own; grant usage on schema own to app",
        )?;
        // Of names that are nearly those of PostgreSQL's own functions.
        for name in ["truncate_x", "set_config_for", "has_access", "own.log"] {
            let body = "language sql as 'select set_config(''app.hidden'', $1, false)'";
            let create = format!("create function {name}(text) returns text {body}");
            server.sql("app", &create)?;
        }
        for mode in BOTH {
            for mess in MESSES {
                let played = leak(server, mode, mess).await;
                played.with_context(|| format!("{mode:?}: {mess}"))?;
            }
        }
        Ok(())
    });
}

async fn leak(server: &Server, mode: PoolMode, mess: &str) -> Result<()> {
    let limits = Limits {
        // In transaction mode it may have to keep its own.
        pool_size: match mode {
            PoolMode::Session => 1,
            PoolMode::Transaction => 2,
        },
        ..Limits::default()
    };
    let proxy = server.proxy(mode, limits).await?;
    let fresh = one(&proxy.client("app").await?, STATE).await?;
    let first = proxy.client("app").await?;
    let prepared = first.prepare("select 'secret'").await?;
    ensure!(code(first.batch_execute(mess).await) == "ok");
    if mode == PoolMode::Transaction {
        // Beside it.
        for _ in 0..2 {
            find_nothing(&proxy, &fresh).await?;
        }
        let in_transaction = mess.starts_with("begin; set");
        ensure!(in_transaction || first.query(&prepared, &[]).await?.len() == 1);
    }
    // After it, without a word of goodbye and whatever it was at.
    drop((prepared, first));
    for _ in 0..3 {
        find_nothing(&proxy, &fresh).await?;
    }
    Ok(())
}

async fn find_nothing(proxy: &Running, fresh: &str) -> Result<()> {
    let next = proxy.client("app").await?;
    let found = one(&next, STATE).await?;
    ensure!(found == fresh, "found {found}, not {fresh}");
    ensure!(code(next.batch_execute("execute q").await) == "ERROR 26000");
    ensure!(one(&next, "select count(*) from plain").await? == "0");
    let free = "select pg_try_advisory_xact_lock_shared(9)";
    ensure!(one(&next, free).await? == "t");
    Ok(())
}

/// A session that keeps its server for one reason takes off what a function has set before it lets go of it.
#[test]
fn nothing_is_left_by_who_has_kept_its_server_for_a_while() {
    story(async |server| {
        server.sql("app", HIDE)?;
        let limits = Limits {
            pool_size: 1,
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let first = proxy.client("app").await?;
        for sql in ["prepare q as select 1", "select hide()", "deallocate q"] {
            first.batch_execute(sql).await?;
        }
        let next = proxy.client("app").await?;
        ensure!(one(&next, HIDDEN).await? == "nothing");
        Ok(())
    });
}

/// Between the answer to its function call and the look at what that has done.
#[test]
fn nothing_is_left_by_who_goes_before_it_was_looked_at() {
    use crate::alone::Alone;
    use crate::raw::{Raw, query};
    const STATE: &str =
        "select state from pg_stat_activity where query like '%hide%' and pid <> pg_backend_pid()";
    story(async |server| {
        server.sql("app", HIDE)?;
        let proxy = Alone::start(server.port())?;
        let becomes = async |state: &str| {
            lab::eventually(state, Duration::from_secs(30), async || {
                let now = tokio::task::block_in_place(|| server.psql(STATE))?;
                ensure!(now == state, "{now}");
                Ok(())
            })
            .await
        };
        let mut first = Raw::logged_in(proxy.address).await?;
        first.send(&query("select hide() from pg_sleep(2)")).await?;
        becomes("active").await?;
        proxy.signal("STOP")?;
        becomes("idle").await?;
        first.reset()?;
        proxy.signal("CONT")?;
        let mut next = Raw::logged_in(proxy.address).await?;
        next.send(&query(HIDDEN)).await?;
        let heard = next.until(b'Z').await?;
        let row = heard.iter().find(|(tag, _)| *tag == b'D');
        let row = row.context("a row")?;
        ensure!(row.1.ends_with(b"nothing"), "{row:?}");
        Ok(())
    });
}

const HIDE: &str = "create function hide() returns text language sql as \
    $$ select set_config('app.hidden', 'secret', false) $$";
const HIDDEN: &str = "select coalesce(nullif(current_setting('app.hidden', true), ''), 'nothing')";

#[test]
fn a_notification_goes_to_who_listens() {
    story(async |server| {
        let limits = Limits {
            pool_size: 3,
            ..Limits::default()
        };
        for mode in BOTH {
            let proxy = server.proxy(mode, limits).await?;
            let (listener, mut connection) =
                proxy.config("app").connect(tokio_postgres::NoTls).await?;
            let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(async move {
                let next = |cx: &mut std::task::Context<'_>| connection.poll_message(cx);
                let mut next = next;
                while let Some(Ok(message)) = std::future::poll_fn(&mut next).await {
                    if let tokio_postgres::AsyncMessage::Notification(it) = message {
                        let _ = heard.send(it.payload().to_owned());
                    }
                }
            });
            let other = proxy.client("app").await?;
            listener.batch_execute("listen news").await?;
            for n in 0..5 {
                other.batch_execute(&format!("notify news, '{n}'")).await?;
            }
            for n in 0..5 {
                let told = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await?;
                ensure!(told == Some(n.to_string()), "{told:?}");
            }
            // In no mode does anybody else hear it.
            ensure!(one(&other, "select count(*) from pg_listening_channels()").await? == "0");
        }
        Ok(())
    });
}

/// Some drivers drop what the protocol has prepared by SQL.
#[test]
fn what_the_protocol_has_prepared_is_dropped_by_sql_for_its_client_alone() {
    story(async |server| {
        for mode in BOTH {
            for extended in [false, true] {
                drop_by_sql(server, mode, extended)
                    .await
                    .with_context(|| format!("{mode:?}, extended: {extended}"))?;
            }
        }
        Ok(())
    });
}

async fn drop_by_sql(server: &Server, mode: PoolMode, extended: bool) -> Result<()> {
    let proxy = server.proxy(mode, Limits::default()).await?;
    let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
    let of_a = a.prepare("select 1 + $1::int").await?;
    let of_b = b.prepare("select 1 + $1::int").await?;
    // The driver has numbered it among all that its process has prepared.
    let mut name = None;
    for n in 0..1_000 {
        let candidate = format!("s{n}");
        if code(deallocate(&a, &candidate, extended).await) == "ok" {
            name = Some(candidate);
            break;
        }
    }
    let name = name.context("no statement of that name")?;
    ensure!(code(a.query(&of_a, &[&1_i32]).await) == "ERROR 26000");
    ensure!(b.query_one(&of_b, &[&1_i32]).await?.get::<_, i32>(0) == 2);
    // Twice is once too often.
    ensure!(code(deallocate(&a, &name, extended).await) == "ERROR 26000");
    ensure!(code(a.batch_execute("deallocate all").await) == "ok");
    ensure!(b.query_one(&of_b, &[&1_i32]).await?.get::<_, i32>(0) == 2);
    Ok(())
}

/// By a query of its own, or by the extended protocol.
async fn deallocate(
    client: &Client,
    name: &str,
    extended: bool,
) -> Result<(), tokio_postgres::Error> {
    let sql = format!("deallocate {name}");
    match extended {
        true => client.query_typed(&sql, &[]).await.map(drop),
        false => client.batch_execute(&sql).await,
    }
}

/// The server waits for the rest of it, and would take the next client's words for that.
#[test]
fn half_a_message_is_not_left_to_the_next_client() {
    story(async |server| {
        server.sql("app", "create table half (n int); grant all on half to app")?;
        let limits = Limits {
            pool_size: 1,
            ..Limits::default()
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        let mut raw = Raw::logged_in(proxy.address).await?;
        raw.send(&query("copy half from stdin")).await?;
        raw.until(b'G').await?;
        // More than is looked at in one piece, and the COPY has failed before it is there.
        let bad = message(b'd', b"no number\n");
        let half = [claims(b'd', 1_000_000), vec![b'x'; 400_000]].concat();
        raw.send(&[bad, half].concat()).await?;
        let heard = told(&raw.until(b'Z').await?);
        ensure!(heard == "ERROR 22P02", "{heard}");
        // It ends behind what it has sent.
        drop(raw);
        // It came with the same settings.
        let mut next = Raw::logged_in(proxy.address).await?;
        next.send(&query("select 7")).await?;
        next.until(b'D').await?;
        Ok(())
    });
}
