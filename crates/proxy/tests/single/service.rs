//! What a proxy is told while it runs, and its other ways in.

use crate::server::{PASSWORD, Running, code, one, story};
use anyhow::ensure;
use proxy::{AuthMethod, AuthQuery, Limits, PoolMode, UnixSocket, Users};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::NoTls;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn other_options_count_from_now_on_and_nobody_is_dropped() {
    story(async |server| {
        let proxy = server
            .proxy(PoolMode::Transaction, Limits::default())
            .await?;
        let client = proxy.client("app").await?;
        client
            .batch_execute("begin; set local work_mem = '7MB'")
            .await?;
        let mut options = server.options()?;
        options.pool_mode = PoolMode::Transaction;
        options.users = Users::parse(&format!("\"app\" \"changed\"\n\"new\" \"{PASSWORD}\""))?;
        options.limits.pool_size = 1;
        options.limits.hold_time = Duration::from_millis(300);
        server.psql("create role new login password 'pencil'")?;
        proxy.handle.reload(&options);
        // Who is there stays, whatever has become of its password.
        ensure!(one(&client, "show work_mem").await? == "7MB");
        let refused = proxy.config("app").connect(NoTls).await;
        ensure!(code(refused.map(drop)) == "FATAL 28P01");
        let refused = proxy.config("other").connect(NoTls).await;
        ensure!(code(refused.map(drop)) == "FATAL 28P01");
        let mut config = proxy.config("new");
        config.dbname("app");
        let (new, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        ensure!(one(&new, "select 7").await? == "7");
        // The pool of one is in use, and who waits for it waits no longer than is said now.
        let (second, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        new.batch_execute("begin").await?;
        ensure!(code(second.batch_execute("select 1").await) == "ERROR 57P03");
        client.batch_execute("commit").await?;
        // And larger again.
        options.limits.pool_size = 2;
        proxy.handle.reload(&options);
        ensure!(code(second.batch_execute("select 1").await) == "ok");
        Ok(())
    });
}

#[test]
fn told_to_stop_it_lets_transactions_end_and_nobody_in() {
    story(async |server| {
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let mut proxy = server.proxy(mode, Limits::default()).await?;
            let (idle, busy) = (proxy.client("app").await?, proxy.client("app").await?);
            let unused = proxy.client("app").await?;
            ensure!(one(&idle, "select 7").await? == "7");
            busy.batch_execute("begin; create temp table t (a int)")
                .await?;
            proxy.handle.drain();
            lab::eventually("the idle ones are gone", SOON, async || {
                ensure!(idle.is_closed() && unused.is_closed());
                Ok(())
            })
            .await?;
            lab::eventually("nobody gets in", SOON, async || {
                ensure!(proxy.config("app").connect(NoTls).await.is_err());
                Ok(())
            })
            .await?;
            ensure!(one(&busy, "select count(*) from t").await? == "0");
            ensure!(!proxy.task.is_finished());
            ensure!(code(busy.batch_execute("commit").await) == "ok");
            tokio::time::timeout(SOON, &mut proxy.task).await??;
            ensure!(busy.is_closed() || code(busy.batch_execute("select 1").await) != "ok");
            ensure!(proxy.handle.clients() == 0);
        }
        Ok(())
    });
}

#[test]
fn a_client_that_is_ended_is_told_why() {
    story(async |server| {
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let proxy = server.proxy(mode, Limits::default()).await?;
            let (client, connection) = proxy.config("app").connect(NoTls).await?;
            let ended = tokio::spawn(connection);
            ensure!(one(&client, "select 7").await? == "7");
            proxy.handle.drain();
            let ended = tokio::time::timeout(SOON, ended).await??;
            ensure!(code(ended) == "FATAL 57P01", "{mode:?}");
        }
        Ok(())
    });
}

/// What the server tells of a user is its password, too, if that is what it keeps.
#[test]
fn a_plain_password_that_the_server_tells_counts_as_long_as_it_tells_it() {
    story(async |server| {
        server.psql("create role asker login superuser password 'pencil'")?;
        let secrets = "create table secrets as select 'app' as name, 'pencil' as password";
        server.sql("app", secrets)?;
        let query = AuthQuery {
            user: "asker".to_owned(),
            query: "select name, password from public.secrets where name = $1".to_owned(),
            database: Some("app".to_owned()),
        };
        let proxy = server
            .proxy_with(|options| {
                options.users = Users::parse("\"asker\" \"pencil\"").unwrap_or_default();
                options.auth_query = Some(query);
            })
            .await?;
        let connect = async |password: &str| {
            let mut config = proxy.config("app");
            config.password(password);
            code(config.connect(NoTls).await.map(drop))
        };
        ensure!(connect("pencil").await == "ok");
        server.psql("alter role app password 'other'")?;
        server.psql("update secrets set password = 'other'")?;
        ensure!(connect("pencil").await == "FATAL 28P01");
        ensure!(connect("other").await == "ok");
        server.psql("update secrets set password = ''")?;
        for password in ["", "other"] {
            ensure!(connect(password).await == "FATAL 28P01");
        }
        Ok(())
    });
}

#[test]
fn an_empty_secret_is_no_password() {
    story(async |server| {
        for method in [AuthMethod::Scram, AuthMethod::Md5] {
            let proxy = server
                .proxy_with(|options| {
                    options.users = Users::parse("\"app\" \"\"").unwrap_or_default();
                    options.auth = method;
                    options.admins.look = vec!["app".to_owned()];
                })
                .await?;
            for password in ["", "pencil"] {
                let mut config = proxy.config("app");
                // No server has a say in it.
                config.password(password).dbname("pgbouncer");
                let refused = code(config.connect(NoTls).await.map(drop));
                ensure!(refused == "FATAL 28P01", "{method:?}: {refused}");
            }
        }
        Ok(())
    });
}

#[test]
fn users_that_no_file_lists_are_looked_for_at_the_server() {
    story(async |server| {
        server.psql("create role asker login superuser password 'pencil'")?;
        let query = AuthQuery {
            user: "asker".to_owned(),
            query: AuthQuery::DEFAULT.to_owned(),
            database: None,
        };
        let proxy = server.proxy_with(|options| {
            options.users = Users::parse("\"asker\" \"pencil\"").unwrap_or_default();
            options.auth_query = Some(query);
            options.pool_mode = PoolMode::Transaction;
            options.limits.hold_time = Duration::from_secs(1);
        });
        let proxy = proxy.await?;
        let client = proxy.client("app").await?;
        ensure!(one(&client, "select current_user").await? == "app");
        let connect = async |user: &str, password: &str, database: &str| {
            let mut config = proxy.config(user);
            config.password(password).dbname(database);
            code(config.connect(NoTls).await.map(drop))
        };
        ensure!(connect("app", "wrong", "app").await == "FATAL 28P01");
        ensure!(connect("nobody", "pencil", "app").await == "FATAL 28P01");
        // Whether there is such a database is for those to know who are let in.
        ensure!(connect("app", "wrong", "missing").await == "FATAL 28P01");
        // What an asker sets as a client has no say in what its name finds.
        server.sql(
            "app",
            "create schema evil; create table evil.pg_authid as \
            select 'app'::name as rolname, 'stolen' as rolpassword, true as rolcanlogin, \
            null::timestamptz as rolvaliduntil",
        )?;
        let tricked = proxy.config("asker").dbname("app").connect(NoTls).await?;
        tokio::spawn(tricked.1);
        tricked
            .0
            .batch_execute("set search_path = evil, pg_catalog")
            .await?;
        ensure!(connect("app", "stolen", "app").await == "FATAL 28P01");
        // A new password counts at once, an expired one no more.
        server.psql("alter role app password 'other'")?;
        ensure!(connect("app", "pencil", "app").await == "FATAL 28P01");
        ensure!(connect("app", "other", "app").await == "ok");
        server.psql("alter role app valid until '2001-01-01'")?;
        ensure!(connect("app", "other", "app").await == "FATAL 28P01");
        server.psql("alter role app valid until 'infinity' nologin")?;
        ensure!(connect("app", "other", "app").await == "FATAL 28P01");
        server.down("immediate")?;
        ensure!(connect("app", "other", "app").await == "FATAL 57P03");
        Ok(())
    });
}

#[test]
fn another_proxy_takes_over_without_a_moment_in_which_nobody_listens() {
    story(async |server| {
        let path = server.directory().join("takeover");
        let socket = server.directory().join(".s.PGSQL.6432");
        let with = |options: &mut proxy::Options| {
            options.takeover = Some(path.clone());
            let path = socket.clone();
            options.unix_sockets = vec![UnixSocket { path, mode: 0o777 }];
        };
        let mut old = server.proxy_with(with).await?;
        let (idle, busy) = (old.client("app").await?, old.client("app").await?);
        busy.batch_execute("begin").await?;
        let cancel = busy.cancel_token();
        // Somebody comes in all the time.
        let config = old.config("app");
        let stop = Arc::new(AtomicBool::new(false));
        let coming = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut count = 0;
                // On a machine that is slow just then it goes on until it has come some times.
                while !stop.load(Ordering::Relaxed) || count <= 3 {
                    let (client, connection) = config.connect(NoTls).await?;
                    drop((client, connection));
                    count += 1;
                }
                anyhow::Ok(())
            }
        });
        // One that can't listen takes nothing over.
        let broken = server.proxy_with(|options| {
            with(options);
            options.listen = vec![old.address, ([192, 0, 2, 1], 1).into()];
        });
        ensure!(broken.await.is_err());
        ensure!(one(&idle, "select 7").await? == "7");
        let new = server.proxy_with(|options| {
            with(options);
            options.listen = vec![old.address];
        });
        let new = new.await?;
        lab::eventually("the idle one is ended", SOON, async || {
            ensure!(idle.is_closed());
            Ok(())
        })
        .await?;
        // The old one's transaction goes on, and its key works with the new one.
        ensure!(!old.task.is_finished());
        let (slept, sent) = tokio::join!(busy.batch_execute("select pg_sleep(30)"), async {
            let sleeps = "select count(*) > 0 from pg_stat_activity where query ~ '^select pg_sl'";
            lab::eventually("it sleeps", SOON, async || {
                ensure!(server.psql(sleeps)? == "t");
                Ok(())
            })
            .await?;
            anyhow::Ok(cancel.cancel_query(NoTls).await?)
        });
        sent?;
        ensure!(code(slept) == "ERROR 57014");
        busy.batch_execute("rollback").await?;
        tokio::time::timeout(SOON, &mut old.task).await??;
        stop.store(true, Ordering::Relaxed);
        coming.await??;
        ensure!(socket.exists() && path.exists());
        ensure!(one(&new.client("app").await?, "select 7").await? == "7");
        Ok(())
    });
}

/// Who has paused the one has paused the other.
#[test]
fn another_proxy_takes_over_the_pause_too() {
    story(async |server| {
        let path = server.directory().join("takeover");
        let with = |options: &mut proxy::Options| {
            options.takeover = Some(path.clone());
            options.admins.everything = vec!["app".to_owned()];
        };
        let mut old = server.proxy_with(with).await?;
        let order = async |proxy: &Running, command: &str| {
            let mut config = proxy.config("app");
            let (client, connection) = config.dbname("pgbouncer").connect(NoTls).await?;
            tokio::spawn(connection);
            anyhow::Ok(client.simple_query(command).await.map(drop)?)
        };
        order(&old, "PAUSE").await?;
        let new = server.proxy_with(|options| {
            with(options);
            options.listen = vec![old.address];
        });
        let new = new.await?;
        // Until then it might still take in whoever comes.
        tokio::time::timeout(SOON, &mut old.task).await??;
        let coming = new.client("app");
        tokio::pin!(coming);
        let short = Duration::from_millis(300);
        let early = tokio::time::timeout(short, &mut coming).await;
        ensure!(
            early.is_err(),
            "it is paused: {:?}",
            early.map(|it| it.map(drop))
        );
        order(&new, "RESUME").await?;
        ensure!(one(&coming.await?, "select 7").await? == "7");
        Ok(())
    });
}

#[test]
fn by_unix_socket_the_machines_own_users_get_in_without_a_password() {
    story(async |server| {
        let account = server.run("sh", &["-c", "id -un"])?;
        server.psql("alter role postgres password 'pencil'")?;
        if account != "postgres" {
            server.psql(&format!(
                "create role \"{account}\" login superuser password 'pencil'"
            ))?;
        }
        let path = server.directory().join(".s.PGSQL.6432");
        let proxy = server.proxy_with(|options| {
            options.auth = AuthMethod::Peer;
            let users = format!("\"{account}\" \"{PASSWORD}\"\n\"app\" \"{PASSWORD}\"");
            options.users = Users::parse(&users).unwrap_or_default();
            let path = path.clone();
            options.unix_sockets = vec![UnixSocket { path, mode: 0o777 }];
        });
        let proxy = proxy.await?;
        let directory = server.directory().display();
        let at = format!("host={directory} port=6432 dbname=app");
        ensure!(server.psql_by(&format!("{at} user={account}"), "select 7")? == "7");
        let said = server.psql_by(&format!("{at} user=app"), "select 7")?;
        ensure!(
            said.contains("peer authentication failed for user \"app\""),
            "{said}"
        );
        // By the network nobody is known like that.
        let refused = proxy.config("app").connect(NoTls).await;
        ensure!(code(refused.map(drop)) == "FATAL 28000");
        // A second proxy does not take the socket away.
        let second = server.proxy_with(|options| {
            let path = path.clone();
            options.unix_sockets = vec![UnixSocket { path, mode: 0o777 }];
        });
        ensure!(second.await.is_err());
        proxy.handle.drain();
        lab::eventually("the socket is gone", SOON, async || {
            ensure!(!path.exists());
            Ok(())
        })
        .await
    });
}
