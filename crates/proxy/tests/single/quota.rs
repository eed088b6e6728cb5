//! How many connections to servers there may be.

use crate::server::{code, one, story};
use anyhow::ensure;
use proxy::{Limits, PoolMode};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const COUNT: &str =
    "select count(*) from pg_stat_activity where datname = 'app' and usename <> 'postgres'";

/// How long a request waits for a place. A login at the server must be possible in that time on a busy machine, too.
const HOLD: Duration = Duration::from_secs(2);

#[test]
fn a_database_gets_no_more_connections_than_it_may_and_idle_ones_make_room() {
    story(async |server| {
        let limits = Limits {
            database_servers_max: Some(1),
            hold_time: HOLD,
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        let app = proxy.client("app").await?;
        let mut config = proxy.config("other");
        config.dbname("app");
        let (other, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        for _ in 0..3 {
            ensure!(one(&app, "select current_user").await? == "app");
            ensure!(one(&other, "select current_user").await? == "other");
            ensure!(server.psql(COUNT)? == "1");
        }
        app.batch_execute("begin").await?;
        let error = other.batch_execute("select 1").await.unwrap_err();
        let detail = error
            .as_db_error()
            .and_then(|error| error.detail())
            .unwrap_or_default();
        ensure!(detail.contains("connections to the database"), "{error:?}");
        ensure!(code(other.batch_execute("select 1").await) == "ERROR 57P03");
        let (waited, ended) = tokio::join!(one(&other, "select current_user"), async {
            app.batch_execute("commit").await
        });
        ended?;
        ensure!(waited? == "other");
        Ok(())
    });
}

#[test]
fn a_user_gets_no_more_connections_than_it_may() {
    story(async |server| {
        let limits = Limits {
            user_servers_max: Some(2),
            hold_time: HOLD,
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Session, limits).await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        ensure!(one(&a, "select 1").await? == "1" && one(&b, "select 1").await? == "1");
        let third = proxy.client("app").await?;
        ensure!(code(third.batch_execute("select 1").await) == "ERROR 57P03");
        let other = proxy.client("other").await?;
        ensure!(one(&other, "select 1").await? == "1");
        drop(a);
        lab::eventually("the third gets in", SOON, async || {
            ensure!(one(&third, "select 1").await? == "1");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_pool_that_was_used_keeps_its_least() {
    story(async |server| {
        let limits = Limits {
            pool_size_min: 3,
            server_idle: Duration::ZERO,
            ..Limits::default()
        };
        let proxy = server.proxy(PoolMode::Transaction, limits).await?;
        ensure!(server.psql(COUNT)? == "0");
        drop(proxy.client("app").await?);
        for _ in 0..2 {
            lab::eventually("three are open", SOON, async || {
                ensure!(server.psql(COUNT)? == "3");
                Ok(())
            })
            .await?;
            server.psql(&COUNT.replace("count(*)", "count(pg_terminate_backend(pid))"))?;
        }
        Ok(())
    });
}

#[test]
fn who_has_waited_for_long_gets_a_connection_of_the_reserve() {
    story(async |server| {
        let limits = |after: Duration| Limits {
            pool_size: 1,
            reserve_size: 1,
            reserve_after: after,
            hold_time: HOLD,
            ..Limits::default()
        };
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let with = |options: &mut proxy::Options| {
                options.pool_mode = mode;
                options.limits = limits(Duration::from_millis(300));
                options.admins.look = vec!["other".to_owned()];
            };
            let proxy = server.proxy_with(with).await?;
            let mut clients = Vec::new();
            for _ in 0..3 {
                clients.push(proxy.client("app").await?);
            }
            let [a, b, c] = &clients[..] else {
                anyhow::bail!("three");
            };
            a.batch_execute("begin").await?;
            // The pool is empty and stays so; the reserve has one, and no more.
            b.batch_execute("begin").await?;
            ensure!(server.psql(COUNT)? == "2");
            ensure!(code(c.batch_execute("select 1").await) == "ERROR 57P03");
            a.batch_execute("commit").await?;
            b.batch_execute("commit").await?;
            if mode == PoolMode::Transaction {
                c.batch_execute("select 1").await?;
            }
            drop(clients);
            // What it has lent is closed again.
            lab::eventually("one is left", SOON, async || {
                ensure!(server.psql(COUNT)? == "1");
                Ok(())
            })
            .await?;
            let mut config = proxy.config("other");
            let (console, connection) = config
                .dbname("pgbouncer")
                .connect(tokio_postgres::NoTls)
                .await?;
            tokio::spawn(connection);
            let rows = console.simple_query("SHOW DATABASES").await?;
            let row = rows.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let shown = row.and_then(|row| row.get("reserve_pool_size"));
            ensure!(shown == Some("1"), "{shown:?}");
            drop(proxy);
            server.psql(&COUNT.replace("count(*)", "count(pg_terminate_backend(pid))"))?;
        }
        // Without a time there is none.
        let proxy = server
            .proxy(PoolMode::Transaction, limits(Duration::ZERO))
            .await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        a.batch_execute("begin").await?;
        ensure!(code(b.batch_execute("select 1").await) == "ERROR 57P03");
        Ok(())
    });
}
