//! Plain use, in both modes.

use crate::server::{code, one, story};
use anyhow::{Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use proxy::{Limits, PoolMode};
use std::time::Duration;

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

#[test]
fn a_driver_works_as_it_does_with_the_server() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let mut client = proxy.client("app").await?;
            client
                .batch_execute("drop table if exists t; create table t (a int primary key, b text)")
                .await?;
            let insert = client.prepare("insert into t values ($1, $2)").await?;
            for a in 0..100_i32 {
                let b = "x".repeat(usize::try_from(a * 50)?);
                client.execute(&insert, &[&a, &b]).await?;
            }
            let rows = client.query("select a, b from t order by a", &[]).await?;
            ensure!(rows.len() == 100 && rows[99].get::<_, String>(1).len() == 99 * 50);
            // An error, and the session goes on.
            ensure!(code(client.execute(&insert, &[&1_i32, &"y"]).await) == "ERROR 23505");
            let transaction = client.transaction().await?;
            transaction
                .execute("delete from t where a > 5", &[])
                .await?;
            transaction.rollback().await?;
            ensure!(one(&client, "select count(*) from t").await? == "100");
            // Both ways of COPY.
            let sink = client.copy_in("copy t from stdin").await?;
            pin_mut!(sink);
            for a in 100..20_000 {
                let line = format!("{a}\t{}\n", "z".repeat(40));
                sink.send(std::io::Cursor::new(line.into_bytes())).await?;
            }
            ensure!(sink.finish().await? == 19_900);
            let source = client.copy_out("copy t to stdout").await?;
            pin_mut!(source);
            let mut bytes = 0;
            while let Some(part) = source.next().await {
                bytes += part?.len();
            }
            ensure!(bytes > 19_900 * 45, "{bytes}");
            // Rows larger than any buffer.
            let large = one(&client, "select repeat('y', 3000000)").await?;
            ensure!(large.len() == 3_000_000);
            let long = format!("select length('{}')", "v".repeat(1_000_000));
            ensure!(one(&client, &long).await? == "1000000");
            // Requests that do not wait for each other.
            let many = (0..50).map(|_| client.query("select a from t where a < 10", &[]));
            for rows in futures_util::future::join_all(many).await {
                ensure!(rows?.len() == 10);
            }
        }
        Ok(())
    });
}

#[test]
fn who_is_not_known_is_not_let_in() {
    story(async |server| {
        let proxy = server.proxy(PoolMode::Session, Limits::default()).await?;
        for (user, password) in [("app", "wrong"), ("nobody", "pencil"), ("postgres", "")] {
            let mut config = proxy.config(user);
            config.password(password);
            let refused = config.connect(tokio_postgres::NoTls).await;
            ensure!(code(refused.map(drop)) == "FATAL 28P01", "{user}");
        }
        // The server's own refusals come in its own words.
        let mut config = proxy.config("app");
        config.dbname("missing");
        let refused = config.connect(tokio_postgres::NoTls).await;
        ensure!(code(refused.map(drop)) == "FATAL 3D000");
        Ok(())
    });
}

#[test]
fn a_cancel_reaches_the_statement_and_nothing_else() {
    story(async |server| {
        for mode in BOTH {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let (client, other) = (proxy.client("app").await?, proxy.client("app").await?);
            let token = client.cancel_token();
            let sleeping = client.batch_execute("select pg_sleep(30)");
            let undisturbed = other.batch_execute("select pg_sleep(2)");
            let cancel = async {
                let sleeps =
                    "select count(*) > 1 from pg_stat_activity where query ~ 'pg_sleep.[23]'";
                let what = "both statements run";
                lab::eventually(what, Duration::from_secs(10), async || {
                    ensure!(server.psql(sleeps)? == "t");
                    Ok(())
                })
                .await?;
                token.cancel_query(tokio_postgres::NoTls).await?;
                anyhow::Ok(())
            };
            let (slept, other, sent) = tokio::join!(sleeping, undisturbed, cancel);
            sent?;
            ensure!(code(slept) == "ERROR 57014");
            ensure!(code(other) == "ok");
            ensure!(one(&client, "select 7").await? == "7");
        }
        Ok(())
    });
}

/// What psql prints of a script is the same with the proxy and without.
#[test]
fn psql_prints_the_same() -> Result<()> {
    let script = "create table p (a int); insert into p select generate_series(1,3);\n\
        \\d p\nselect * from p \\gdesc\nselect a from p order by a;\n\
        begin; select 1/0; select 2; rollback;\n\\copy p to stdout\nselect $1::int \\bind 5 \\g\n\
        listen x; notify x, 'hello'; select 1;\ndrop table p;\n";
    story(async |server| {
        let proxy = server.proxy(PoolMode::Session, Limits::default()).await?;
        let through = |port: u16| {
            let uri = format!(
                "host=127.0.0.1 port={port} user=app password=pencil dbname=app sslmode=disable"
            );
            server.run(
                "sh",
                &[
                    "-c",
                    &format!(
                        "printf '%s' \"$1\" | {} -X -a -d '{uri}' 2>&1",
                        server.program("psql")
                    ),
                    "sh",
                    script,
                ],
            )
        };
        let shown = tokio::task::block_in_place(|| through(proxy.address.port()))?;
        let direct = tokio::task::block_in_place(|| through(server.port()))?;
        let numbers = |text: &str| -> String {
            let words = text.split_whitespace();
            words
                .map(|word| if word.starts_with("PID") { "PID" } else { word })
                .collect::<Vec<_>>()
                .join(" ")
        };
        let cut = |text: &str| numbers(text.split("with PID").next().unwrap_or_default());
        ensure!(cut(&shown) == cut(&direct), "{shown}\n---\n{direct}");
        Ok(())
    });
    Ok(())
}
