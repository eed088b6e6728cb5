//! What clients that share servers see of each other: nothing.

use crate::raw::{Raw, message, told};
use crate::server::{code, one, story};
use anyhow::{Result, ensure};
use proxy::{Limits, PoolMode};

fn one_server() -> Limits {
    Limits {
        pool_size: 1,
        ..Limits::default()
    }
}

#[test]
fn many_clients_share_one_server() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        a.batch_execute(
            "set app.user_id = '7'; set search_path = pg_catalog; set work_mem = '3MB'",
        )
        .await?;
        let settings = "select current_setting('app.user_id', true) || ' ' || \
                        current_setting('search_path') || ' ' || current_setting('work_mem')";
        ensure!(
            one(
                &b,
                "select coalesce(nullif(current_setting('app.user_id', true), ''), 'none') \
                || current_setting('work_mem')"
            )
            .await?
                == "none4MB"
        );
        ensure!(one(&a, settings).await? == "7 pg_catalog 3MB");
        b.batch_execute("select set_config('app.user_id', '8', false)")
            .await?;
        ensure!(one(&a, "select current_setting('app.user_id')").await? == "7");
        ensure!(one(&b, "select current_setting('app.user_id')").await? == "8");
        // What is rolled back is not kept.
        a.batch_execute("begin; set app.user_id = '9'; rollback")
            .await?;
        one(&b, "select 1").await?;
        ensure!(one(&a, "select current_setting('app.user_id')").await? == "7");
        let pids = [
            one(&a, "select pg_backend_pid()").await?,
            one(&b, "select pg_backend_pid()").await?,
        ];
        ensure!(pids[0] == pids[1], "{pids:?}");
        Ok(())
    });
}

#[test]
fn prepared_statements_are_each_clients_own() {
    story(async |server| {
        let limits = Limits {
            prepared_max: 3,
            ..one_server()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        // The driver calls them the same: s0, s1, …
        let mut of_a = Vec::new();
        let mut of_b = Vec::new();
        for n in 0..6_i32 {
            of_a.push(a.prepare(&format!("select $1::int + {n}")).await?);
            of_b.push(b.prepare(&format!("select $1::int * {n}")).await?);
        }
        let same = b.prepare("select $1::int + 5").await?;
        for round in 0..3_i32 {
            for n in 0..6_i32 {
                let at = usize::try_from(n)?;
                let (sum, product) = (
                    a.query_one(&of_a[at], &[&round]).await?,
                    b.query_one(&of_b[at], &[&round]).await?,
                );
                ensure!(sum.get::<_, i32>(0) == round + n);
                ensure!(product.get::<_, i32>(0) == round * n);
            }
            ensure!(b.query_one(&same, &[&1_i32]).await?.get::<_, i32>(0) == 6);
        }
        let held = one(&a, "select count(*) from pg_prepared_statements").await?;
        ensure!(held.parse::<u32>()? <= 3, "{held}");
        // One that fails harms no other.
        ensure!(code(a.prepare("select nonsense").await) == "ERROR 42703");
        ensure!(a.query_one(&of_a[0], &[&1_i32]).await?.get::<_, i32>(0) == 1);
        drop(of_a);
        ensure!(b.query_one(&same, &[&1_i32]).await?.get::<_, i32>(0) == 6);
        Ok(())
    });
}

/// The server reads the first Sync as part of the COPY and answers the second one: what was sent
/// behind it must not be taken for older than it is.
#[test]
fn what_is_sent_behind_a_copy_is_matched_with_its_answers() {
    story(async |server| {
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let proxy = server.trusting(mode, one_server()).await?;
            let mut raw = Raw::logged_in(proxy.address).await?;
            raw.send(&message(
                b'Q',
                b"drop table if exists c; create table c (a int)\0",
            ))
            .await?;
            raw.until(b'Z').await?;
            let sync = message(b'S', b"");
            let copy = [
                message(b'P', b"\0copy c from stdin\0\0\0"),
                message(b'B', b"\0\0\0\0\0\0\0\0"),
                message(b'E', b"\0\0\0\0\0"),
                sync.clone(),
                message(b'd', b"1\n"),
                sync.clone(),
                message(b'c', b""),
                sync.clone(),
                // A driver that drops one statement and prepares the next.
                message(b'C', b"Sother\0"),
                sync.clone(),
                message(b'P', b"mine\0select 7\0\0\0"),
                sync.clone(),
            ];
            raw.send(&copy.concat()).await?;
            for _ in 0..3 {
                let heard = raw.until(b'Z').await?;
                ensure!(told(&heard) == "nothing", "{mode:?}: {}", told(&heard));
            }
            let run = [
                message(b'B', b"\0mine\0\0\0\0\0\0\0"),
                message(b'E', b"\0\0\0\0\0"),
                sync.clone(),
            ];
            for _ in 0..2 {
                raw.send(&run.concat()).await?;
                let heard = raw.until(b'Z').await?;
                ensure!(told(&heard) == "nothing", "{mode:?}: {}", told(&heard));
                ensure!(
                    heard
                        .iter()
                        .any(|(tag, row)| *tag == b'D' && row.ends_with(b"7"))
                );
            }
        }
        Ok(())
    });
}

#[test]
fn a_text_that_two_clients_read_differently_is_two_statements() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        b.batch_execute("set standard_conforming_strings = off")
            .await?;
        let text = r"select 'a\x42'";
        let (of_a, of_b) = (a.prepare(text).await?, b.prepare(text).await?);
        for _ in 0..2 {
            ensure!(a.query_one(&of_a, &[]).await?.get::<_, &str>(0) == r"a\x42");
            ensure!(b.query_one(&of_b, &[]).await?.get::<_, &str>(0) == "aB");
        }
        Ok(())
    });
}

#[test]
fn the_next_client_finds_prepared_what_the_last_one_had() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        for _ in 0..3 {
            let client = proxy.client("app").await?;
            let statement = client.prepare("select $1::int + 1").await?;
            let row = client.query_one(&statement, &[&1_i32]).await?;
            ensure!(row.get::<_, i32>(0) == 2);
        }
        let client = proxy.client("app").await?;
        let held = "select count(*) from pg_prepared_statements where statement like '%+ 1'";
        ensure!(one(&client, held).await? == "1");
        Ok(())
    });
}

#[test]
fn what_cannot_be_shared_stays_with_its_client() {
    story(async |server| {
        let limits = Limits {
            pool_size: 2,
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        a.batch_execute("create temp table mine (x int); insert into mine values (1)")
            .await?;
        a.batch_execute("prepare q as select 5; select pg_advisory_lock(1)")
            .await?;
        ensure!(code(b.batch_execute("select * from mine").await) == "ERROR 42P01");
        ensure!(code(b.batch_execute("execute q").await) == "ERROR 26000");
        ensure!(one(&b, "select pg_try_advisory_xact_lock(1)").await? == "f");
        ensure!(one(&a, "select count(*) from mine").await? == "1");
        ensure!(one(&a, "execute q").await? == "5");
        drop(a);
        // What the client leaves behind is wiped off before the next one has it.
        lab::eventually(
            "the lock is gone",
            std::time::Duration::from_secs(10),
            async || {
                ensure!(one(&b, "select pg_try_advisory_xact_lock(1)").await? == "t");
                Ok(())
            },
        )
        .await?;
        let clients = [proxy.client("app").await?, proxy.client("app").await?];
        for client in &clients {
            ensure!(code(client.batch_execute("select * from mine").await) == "ERROR 42P01");
        }
        Ok(())
    });
}

#[test]
fn a_session_leaves_nothing_to_the_next_one() -> Result<()> {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Session, one_server()).await?;
        let first = proxy.client("app").await?;
        first
            .batch_execute(
                "create temp table mine (x int); set work_mem = '3MB'; prepare q as select 5; \
                 listen x; set app.u = '1'; select pg_advisory_lock(1)",
            )
            .await?;
        let pid = one(&first, "select pg_backend_pid()").await?;
        drop(first);
        let next = proxy.client("app").await?;
        ensure!(one(&next, "select pg_backend_pid()").await? == pid);
        ensure!(one(&next, "show work_mem").await? == "4MB");
        ensure!(code(next.batch_execute("select * from mine").await) == "ERROR 42P01");
        ensure!(code(next.batch_execute("execute q").await) == "ERROR 26000");
        let left = "select count(*) from pg_locks where locktype = 'advisory'";
        ensure!(one(&next, left).await? == "0");
        ensure!(one(&next, "select coalesce(current_setting('app.u', true), '')").await? == "");
        Ok(())
    });
    Ok(())
}

/// PostgreSQL reads the constants of a text when it is prepared: by the settings of whoever prepares it.
#[test]
fn a_statement_is_shared_only_with_those_who_read_it_alike() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        let epoch = "select extract(epoch from '2024-01-01 00:00'::timestamptz)::text";
        let date = "select to_char('01/02/2024'::date, 'Mon')";
        let null = "select count(*)::text from (values (null::int)) v (a) where a = null";
        let interval = "select (extract(epoch from '-1 2:03:04'::interval))::text";
        let tests = [
            ("timezone = 'UTC'", "timezone = 'America/Lima'", epoch),
            ("datestyle = 'ISO, MDY'", "datestyle = 'ISO, DMY'", date),
            (
                "transform_null_equals = on",
                "transform_null_equals = off",
                null,
            ),
            (
                "intervalstyle = 'sql_standard'",
                "intervalstyle = 'postgres'",
                interval,
            ),
        ];
        for (one_way, other_way, text) in tests {
            for in_transaction in [false, true] {
                let ask = async |setting: &str| -> Result<String> {
                    let client = proxy.client("app").await?;
                    let set = match in_transaction {
                        true => format!("begin; set local {setting}"),
                        false => format!("set {setting}"),
                    };
                    client.batch_execute(&set).await?;
                    let statement = client.prepare(text).await?;
                    let said: String = client.query_one(&statement, &[]).await?.get(0);
                    if in_transaction {
                        client.batch_execute("commit").await?;
                    }
                    // It is his own while his server has it.
                    client.batch_execute(&format!("set {other_way}")).await?;
                    let again: String = client.query_one(&statement, &[]).await?.get(0);
                    ensure!(said == again, "{text}: {said} and then {again}");
                    Ok(said)
                };
                let (one, other) = (ask(one_way).await?, ask(other_way).await?);
                ensure!(one != other, "{setting}: {one}", setting = one_way);
                ensure!(ask(one_way).await? == one && ask(other_way).await? == other);
            }
        }
        Ok(())
    });
}

#[test]
fn a_constant_that_stands_for_the_moment_is_its_clients_own() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        let text = "select 'now'::timestamptz::text";
        let mut said = Vec::new();
        for _ in 0..2 {
            let client = proxy.client("app").await?;
            let statement = client.prepare(text).await?;
            let first: String = client.query_one(&statement, &[]).await?.get(0);
            let again: String = client.query_one(&statement, &[]).await?.get(0);
            ensure!(first == again);
            said.push(first);
        }
        ensure!(said[0] != said[1], "{said:?}");
        Ok(())
    });
}

#[test]
fn tenants_with_tables_of_one_name_share_no_statement() {
    story(async |server| {
        server.sql(
            "app",
            "create schema one; create schema other; create table one.t (a int); \
             create table other.t (a text, b int); insert into one.t values (1); \
             insert into other.t values ('x', 2); \
             grant usage on schema one, other to app; grant select on one.t, other.t to app",
        )?;
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        for local in ["", "local "] {
            for (schema, columns) in [("one", 1), ("other", 2), ("one", 1)] {
                let client = proxy.client("app").await?;
                let set = format!("begin; set {local}search_path = {schema}");
                client.batch_execute(&set).await?;
                let statement = client.prepare("select * from t").await?;
                let row = client.query_one(&statement, &[]).await?;
                ensure!(row.len() == columns);
                client.batch_execute("commit").await?;
            }
        }
        Ok(())
    });
}

/// PostgreSQL refuses a statement for good whose table has other columns now. Who prepares it anew has a new one.
#[test]
fn a_table_that_has_changed_is_read_by_a_statement_that_is_prepared_anew() {
    story(async |server| {
        let make = "create table changing (a int); grant select on changing to app";
        server.sql("app", make)?;
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        let text = "select * from changing";
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        let (of_a, of_b) = (a.prepare(text).await?, b.prepare(text).await?);
        a.query(&of_a, &[]).await?;
        b.query(&of_b, &[]).await?;
        server.sql("app", "alter table changing add column b int")?;
        ensure!(code(a.query(&of_a, &[]).await.map(drop)) == "ERROR 0A000");
        for client in [&a, &b, &proxy.client("app").await?] {
            let anew = client.prepare(text).await?;
            ensure!(anew.columns().len() == 2);
            client.query(&anew, &[]).await?;
        }
        // As at PostgreSQL, what was there before is what it was.
        ensure!(code(b.query(&of_b, &[]).await.map(drop)) == "ERROR 0A000");
        Ok(())
    });
}

/// Of a text that is too long to be kept, only the beginning is read.
#[test]
fn a_long_statement_ties_its_client_only_if_it_changes_the_session() {
    story(async |server| {
        server.sql(
            "app",
            "create table long (a text); grant all on long to app",
        )?;
        let proxy = server.proxy(PoolMode::Transaction, one_server()).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        let long = "x".repeat(300_000);
        let one_text = format!("insert into long values ('{long}')");
        let texts = [
            format!("{one_text}; {one_text}"),
            format!("begin; {one_text}; commit"),
            format!("select 1 / 0, '{long}'"),
            one_text,
        ];
        for text in texts {
            let done = code(a.batch_execute(&text).await);
            ensure!(
                done == if text.contains('/') {
                    "ERROR 22012"
                } else {
                    "ok"
                }
            );
            ensure!(one(&b, "select 7").await? == "7");
        }
        ensure!(one(&a, "select count(*) from long").await? == "4");
        // What a function has done is not another client's.
        let hidden = "select set_config('work_mem', '3MB', false)";
        let text = format!("do $$ begin perform '{long}'; execute $q${hidden}$q$; end $$");
        a.batch_execute(&text).await?;
        ensure!(one(&b, "show work_mem").await? == "4MB");
        ensure!(one(&a, "show work_mem").await? == "3MB");
        drop(a);
        let (a, late) = (proxy.client("app").await?, proxy.client("app").await?);
        late.batch_execute(&format!("select '{long}'; set app.x = 'late'"))
            .await?;
        ensure!(one(&late, "show app.x").await? == "late");
        // It has the only server.
        let waits =
            tokio::time::timeout(std::time::Duration::from_millis(300), one(&a, "select 1"));
        ensure!(waits.await.is_err());
        Ok(())
    });
}
