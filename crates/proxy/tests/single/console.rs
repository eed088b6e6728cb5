//! The administrator's console, and what the proxy counts.

use crate::raw::{Raw, query};
use crate::server::{Running, Server, code, one, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{Admins, PoolMode};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

const SOON: Duration = Duration::from_secs(20);

async fn administered(server: &Server, mode: PoolMode) -> Result<Running> {
    server
        .proxy_with(|options| {
            options.pool_mode = mode;
            options.admins = Admins {
                everything: vec!["app".to_owned()],
                look: vec!["other".to_owned()],
            };
        })
        .await
}

pub(crate) async fn console(proxy: &Running, user: &str) -> Result<Client> {
    let mut config = proxy.config(user);
    let (client, connection) = config
        .dbname("pgbouncer")
        .connect(tokio_postgres::NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Every row, by its columns' names.
pub(crate) async fn rows(console: &Client, command: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let answer = console.simple_query(command).await?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let named = rows.map(|row| {
        let names = row.columns().iter().enumerate();
        let named = names.map(|(at, column)| {
            let value = row.get(at).unwrap_or_default();
            (column.name().to_owned(), value.to_owned())
        });
        named.collect()
    });
    Ok(named.collect())
}

#[test]
fn who_is_one_too_many_is_told_and_an_administrator_is_none() {
    story(async |server| {
        let proxy = server
            .proxy_with(|options| {
                options.limits.clients_max = 2;
                options.admins.look = vec!["other".to_owned()];
            })
            .await?;
        let (a, _b) = (proxy.client("app").await?, proxy.client("app").await?);
        // psql asks for TLS first, and would not show what is said in place of an answer to that.
        let (host, port) = (proxy.address.ip(), proxy.address.port());
        let conninfo = format!("host={host} port={port} user=app dbname=app sslmode=prefer");
        let said = server.run("psql", &["-X", "-c", "select 1", &conninfo]);
        let said = said.err().context("a third is let in")?.to_string();
        ensure!(said.contains("sorry, too many clients already"), "{said}");
        // Who is in can cancel.
        let cancel = a.cancel_token();
        let ask = async {
            lab::eventually("it sleeps", SOON, async || {
                let asleep = server
                    .psql("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")?;
                ensure!(asleep.trim() == "1", "{asleep}");
                Ok(())
            })
            .await?;
            anyhow::Ok(cancel.cancel_query(tokio_postgres::NoTls).await?)
        };
        let (slept, asked) = tokio::join!(a.batch_execute("select pg_sleep(60)"), ask);
        asked?;
        let slept = code(slept);
        ensure!(slept == "ERROR 57014", "{slept}");
        let look = console(&proxy, "other").await?;
        ensure!(!rows(&look, "show clients").await?.is_empty());
        // By the name of an administrator alone nobody has a server.
        ensure!(code(proxy.config("other").connect(tokio_postgres::NoTls).await) == "FATAL 53300");
        Ok(())
    });
}

#[test]
fn the_console_shows_who_is_there_and_what_ties_them() {
    story(async |server| {
        let proxy = administered(server, PoolMode::Transaction).await?;
        let look = console(&proxy, "other").await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        a.batch_execute("create temp table t (x int)").await?;
        b.batch_execute("begin; select 1").await?;
        let help = rows(&look, "SHOW HELP;").await?;
        for command in help.iter().map(|row| &row["command"]) {
            if command.starts_with("SHOW") {
                rows(&look, command)
                    .await
                    .with_context(|| command.clone())?;
            }
        }
        let sessions = rows(&look, "show sessions").await?;
        ensure!(sessions.len() == 2, "{sessions:?}");
        let tied = sessions[0]["movable"] == "no" && sessions[0]["holds"] == "temporary objects";
        ensure!(tied, "{sessions:?}");
        let moves = sessions[1]["movable"] == "yes" && sessions[1]["state"] == "active";
        ensure!(moves, "{sessions:?}");
        let pools = rows(&look, "SHOW POOLS").await?;
        let pool = pools.first().context("a pool")?;
        ensure!(
            (&*pool["database"], &*pool["cl_active"], &*pool["sv_active"]) == ("app", "2", "2"),
            "{pool:?}"
        );
        // While a server is asked what its session has become, it is nobody's to cancel, and shown by its number alone.
        let shown = async || {
            let servers = rows(&look, "SHOW SERVERS").await?;
            let active = servers.iter().filter(|row| row["state"] == "active");
            ensure!(active.count() == 2, "{servers:?}");
            for row in &servers {
                let at = format!("{}:{}", row["addr"], row["port"]);
                ensure!(at == format!("127.0.0.1:{}", server.port()), "{row:?}");
                ensure!(row["connect_time"].ends_with(" UTC"), "{row:?}");
            }
            Ok(())
        };
        lab::eventually("both servers are shown", SOON, shown).await?;
        let clients = rows(&look, "SHOW CLIENTS").await?;
        ensure!(clients[0]["connect_time"].ends_with(" UTC"), "{clients:?}");
        b.batch_execute("commit").await?;
        a.batch_execute("drop table t").await?;
        // The client has its answer before the server is asked what the session has become.
        let freed = async || {
            let sessions = rows(&look, "SHOW SESSIONS").await?;
            ensure!(sessions[0]["movable"] == "yes", "{sessions:?}");
            Ok(())
        };
        lab::eventually("nothing ties it any more", SOON, freed).await?;
        drop(a);
        let stats = rows(&look, "SHOW STATS").await?;
        let done: u64 = stats[0]["total_xact_count"].parse()?;
        ensure!(done >= 2, "{stats:?}");
        let queries =
            ["avg_query_count", "total_query_count"].map(|name| stats[0][name].parse::<u64>());
        let [average, total] = queries;
        ensure!(average? <= total?, "{stats:?}");
        for column in ["avg_xact_count", "avg_recv", "avg_sent", "avg_wait_time"] {
            stats[0][column].parse::<u64>()?;
        }
        for (typed, code, said) in [
            (
                "SHOW NONSENSE",
                SqlState::SYNTAX_ERROR,
                "There is SHOW CLIENTS|CLUSTER|",
            ),
            (
                "KILL app",
                SqlState::SYNTAX_ERROR,
                ", PAUSE, RESUME, RECONNECT, ",
            ),
            (
                "pause app",
                SqlState::FEATURE_NOT_SUPPORTED,
                "PAUSE takes no database",
            ),
        ] {
            let error = look.simple_query(typed).await.expect_err(typed);
            let error = error.as_db_error().context("an answer")?;
            let text = format!("{} {}", error.message(), error.hint().unwrap_or_default());
            ensure!(*error.code() == code && text.contains(said), "{text}");
        }
        ensure!(code(look.simple_query("PAUSE").await) == "ERROR 42501");
        let metrics = proxy.handle.metrics();
        let labels = "user=\"app\",database=\"app\",route=\"write\"";
        let line = format!("standfast_proxy_transactions_total{{{labels}}} ");
        ensure!(metrics.contains(&line), "{metrics}");
        // A user who is neither has no business there.
        let outsider = administered(server, PoolMode::Session).await?;
        outsider.handle.reload(&server.options()?);
        ensure!(console(&outsider, "app").await.is_err());
        Ok(())
    });
}

#[test]
fn what_is_paused_waits_and_nothing_under_way_is_cut_off() {
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        story(async move |server| {
            let proxy = server
                .proxy_with(|options| {
                    options.pool_mode = mode;
                    options.limits.pool_size_min = 2;
                    options.admins.everything = vec!["app".to_owned()];
                })
                .await?;
            let admin = console(&proxy, "app").await?;
            let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
            b.batch_execute("set work_mem = '7MB'").await?;
            a.batch_execute("begin; select 1").await?;
            let pause = admin.simple_query("PAUSE");
            tokio::pin!(pause);
            let short = Duration::from_millis(200);
            ensure!(
                timeout(short, &mut pause).await.is_err(),
                "a transaction is open"
            );
            let asked = one(&b, "show work_mem");
            tokio::pin!(asked);
            ensure!(timeout(short, &mut asked).await.is_err(), "it is paused");
            a.batch_execute("select 2; commit").await?;
            pause.await?;
            let idle = async || {
                let mut servers = rows(&admin, "SHOW SERVERS").await?;
                servers.retain(|row| row["state"] == "idle");
                anyhow::Ok(servers)
            };
            // Nobody needs them now, and who pauses may want the server for himself.
            ensure!(idle().await?.is_empty(), "{:?}", idle().await?);
            let gone = async || {
                let sql = "select count(*) from pg_stat_activity where usename = 'app'";
                let left = tokio::task::block_in_place(|| server.sql("postgres", sql))?;
                // In session mode a client keeps its own.
                let kept = mode == PoolMode::Session || left == "0";
                ensure!(kept, "{left}");
                Ok(())
            };
            lab::eventually("idle connections are closed", SOON, gone).await?;
            // The server may go now, and nobody notices.
            tokio::task::block_in_place(|| server.down("fast").and_then(|()| server.up()))?;
            ensure!(timeout(short, &mut asked).await.is_err(), "it is paused");
            ensure!(idle().await?.is_empty(), "none is opened for later");
            admin.simple_query("RESUME").await?;
            ensure!(asked.await? == "7MB");
            ensure!(one(&a, "select 3").await? == "3");
            Ok(())
        });
    }
}

/// It can't go to another server: it waits with the one that it has, hears what that has to say, and its end.
#[test]
fn what_is_tied_to_its_server_is_paused_with_it() {
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        story(async move |server| {
            let proxy = server
                .proxy_with(|options| {
                    options.pool_mode = mode;
                    options.auth = proxy::AuthMethod::Trust;
                    options.admins.everything = vec!["app".to_owned()];
                })
                .await?;
            let admin = console(&proxy, "app").await?;
            server.sql("app", "create table late (n int); grant all on late to app")?;
            let mut tied = Raw::logged_in(proxy.address).await?;
            tied.send(&query("listen news; select pg_advisory_lock(7)"))
                .await?;
            tied.until(b'Z').await?;
            let there = |what: &str| tokio::task::block_in_place(|| server.sql("app", what));
            for is_restarted in [false, true] {
                // Within a transaction it finishes that.
                tied.send(&query("begin")).await?;
                tied.until(b'Z').await?;
                let short = Duration::from_millis(200);
                {
                    let pause = admin.simple_query("PAUSE");
                    tokio::pin!(pause);
                    ensure!(timeout(short, &mut pause).await.is_err(), "one is open");
                    tied.send(&query("insert into late values (1); commit"))
                        .await?;
                    tied.until(b'Z').await?;
                    timeout(SOON, &mut pause).await??;
                }
                there("truncate late")?;
                tied.send(&query("insert into late values (2)")).await?;
                ensure!(timeout(short, tied.hear()).await.is_err(), "it is paused");
                there("notify news")?;
                let heard = tied.hear().await?.map(|(tag, _)| tag);
                ensure!(heard == Some(b'A'), "{heard:?}");
                ensure!(timeout(short, tied.hear()).await.is_err(), "it is paused");
                ensure!(there("select count(*) from late")? == "0");
                let clients = rows(&admin, "SHOW CLIENTS").await?;
                ensure!(
                    clients.iter().any(|row| row["state"] == "waiting"),
                    "{clients:?}"
                );
                if is_restarted {
                    tokio::task::block_in_place(|| server.down("fast").and_then(|()| server.up()))?;
                    let told = tied.end().await?;
                    ensure!(told == "FATAL 57P01", "{mode:?}: {told}");
                }
                admin.simple_query("RESUME").await?;
                if !is_restarted {
                    let told = crate::raw::told(&tied.until(b'Z').await?);
                    ensure!(told == "nothing", "{told}");
                    ensure!(there("select count(*) from late")? == "1");
                }
            }
            Ok(())
        });
    }
}

#[test]
fn servers_are_left_when_the_console_says_so() {
    story(async |server| {
        let proxy = administered(server, PoolMode::Transaction).await?;
        let admin = console(&proxy, "app").await?;
        let (a, b) = (proxy.client("app").await?, proxy.client("app").await?);
        let pid = "select pg_backend_pid()";
        a.batch_execute("begin").await?;
        let (of_a, of_b) = (one(&a, pid).await?, one(&b, pid).await?);
        admin.simple_query("RECONNECT").await?;
        ensure!(one(&a, pid).await? == of_a, "a transaction keeps its own");
        a.batch_execute("commit").await?;
        let after = [one(&a, pid).await?, one(&b, pid).await?];
        ensure!(
            !after.contains(&of_a) && !after.contains(&of_b),
            "{after:?}"
        );
        let handle = proxy.handle.clone();
        let refused = async {
            handle.reload_wanted().await;
            handle.refuse_reload("line 3 of the users file");
        };
        let (said, ()) = tokio::join!(admin.simple_query("RELOAD"), refused);
        let said = said.expect_err("it was refused");
        let said = said.as_db_error().map(|it| it.message().to_owned());
        ensure!(
            said.as_deref() == Some("line 3 of the users file"),
            "{said:?}"
        );
        Ok(())
    });
}

/// Who is not listed is no guest of the console's, and who may look changes nothing, however it is said.
#[test]
fn the_console_does_only_what_its_user_may() {
    const ORDERS: [&str; 5] = ["PAUSE", "RESUME", "RECONNECT", "RELOAD", "SHUTDOWN"];
    story(async |server| {
        let proxy = server
            .proxy_with(|options| {
                options.admins.look = vec!["other".to_owned()];
            })
            .await?;
        let turned_away = async |database: &str| {
            let mut config = proxy.config("app");
            let refused = config.dbname(database).connect(tokio_postgres::NoTls).await;
            let refused = refused.map(drop).expect_err("he is no administrator");
            refused.as_db_error().cloned().context("an answer")
        };
        let said = turned_away("pgbouncer").await?;
        ensure!(said.message() == "not allowed", "{said}");
        ensure!(*said.code() == SqlState::INSUFFICIENT_PRIVILEGE, "{said}");
        let hint = said.hint().unwrap_or_default();
        ensure!(hint.contains("admin_users"), "{said:?}");
        // That name may be a real database's.
        let said = turned_away("standfast").await?;
        ensure!(*said.code() == SqlState::INVALID_CATALOG_NAME, "{said}");
        let look = console(&proxy, "other").await?;
        // What PgBouncer sets there stands in a file here; what drivers say of their own accord is let pass.
        for said in ["set default_pool_size=30", "SET pool_mode = 'session'"] {
            ensure!(
                code(look.simple_query(said).await) == "ERROR 0A000",
                "{said}"
            );
        }
        look.simple_query("set extra_float_digits = 3").await?;
        for order in ORDERS {
            for said in [
                order.to_owned(),
                order.to_lowercase(),
                format!("  {order} ; "),
            ] {
                let refused = look.simple_query(&said).await;
                ensure!(code(refused) == "ERROR 42501", "{said}");
            }
            // Nothing is hidden behind what he may say.
            for said in [
                format!("SHOW POOLS; {order}"),
                format!("/* */ {order}"),
                format!("SHOW\0{order}"),
            ] {
                let refused = look.simple_query(&said).await;
                ensure!(refused.is_err(), "{said}");
            }
        }
        let app = proxy.client("app").await?;
        ensure!(one(&app, "select 7").await? == "7");
        Ok(())
    });
}

/// Drivers that ask by the extended protocol hear that they can't, once for each batch, and go on.
#[test]
fn the_console_refuses_what_it_does_not_speak_and_goes_on() {
    use crate::raw::{Raw, claims, message, query, startup, told};
    story(async |server| {
        let proxy = server
            .proxy_with(|options| {
                options.admins.look = vec!["app".to_owned()];
                options.auth = proxy::AuthMethod::Trust;
            })
            .await?;
        let mut raw = Raw::connect(proxy.address).await?;
        raw.send(&startup(&[("user", "app"), ("database", "pgbouncer")]))
            .await?;
        raw.until(b'Z').await?;
        let parse = message(b'P', b"\0SHOW POOLS\0\0\0");
        let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
        let execute = message(b'E', b"\0\0\0\0\0");
        let sync = message(b'S', b"");
        raw.send(
            &[
                parse,
                bind,
                execute,
                sync.clone(),
                sync,
                query("SHOW VERSION"),
            ]
            .concat(),
        )
        .await?;
        let tags = |heard: &[crate::raw::Heard]| -> String {
            heard.iter().map(|(tag, _)| char::from(*tag)).collect()
        };
        let refused = raw.until(b'Z').await?;
        ensure!(told(&refused) == "ERROR 0A000" && tags(&refused) == "EZ");
        ensure!(tags(&raw.until(b'Z').await?) == "Z");
        ensure!(tags(&raw.until(b'Z').await?) == "TDCZ");
        raw.send(&claims(b'Q', i32::MAX)).await?;
        ensure!(raw.end().await? == "FATAL 08P01");
        Ok(())
    });
}
