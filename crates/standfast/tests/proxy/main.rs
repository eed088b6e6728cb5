//! `standfast proxy` as it is run: what signals do to it, and how a newer process takes its place.

#![allow(
    clippy::unwrap_used,
    reason = "a test that can't go on has failed; helpers outside of #[test] are not exempt by themselves"
)]

mod scene;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use scene::{Home, SOON, ended_with, one};

#[test]
fn a_reload_counts_for_those_who_come_and_drops_nobody() -> Result<()> {
    scene::play(async |home| {
        home.certify("first")?;
        home.write("pool_mode: transaction", "pencil")?;
        let proxy = home.start()?;
        let (client, _) = home.client("pencil").await?;
        client
            .batch_execute("begin; set local work_mem = '7MB'")
            .await?;
        ensure!(home.sees("first")?);
        // A file that is wrong changes nothing.
        std::fs::write(home.file(), "proxy: {listen: nowhere}")?;
        proxy.signal(Signal::HUP)?;
        proxy.says("everything stays as it was").await?;
        ensure!(one(&client, "show work_mem").await? == "7MB");
        drop(home.client("pencil").await?);
        home.certify("second")?;
        home.write("pool_mode: transaction, max_client_conn: 2", "changed")?;
        proxy.signal(Signal::HUP)?;
        proxy.says("reloaded").await?;
        let refused = home.client("pencil").await;
        ensure!(refused.is_err(), "the old password");
        ensure!(one(&client, "show work_mem").await? == "7MB");
        let (second, _) = home.client("changed").await?;
        ensure!(one(&second, "select 7").await? == "7");
        let third = home.config("changed").connect(tokio_postgres::NoTls).await;
        let code = third
            .err()
            .and_then(|error| Some(error.code()?.code().to_owned()));
        ensure!(code.as_deref() == Some("53300"), "{code:?}");
        client.batch_execute("commit").await?;
        drop(second);
        lab::eventually("there is room again", SOON, async || {
            ensure!(home.sees("second")? && !home.sees("first")?);
            Ok(())
        })
        .await
    })
}

#[test]
fn told_to_stop_it_waits_for_transactions_and_ends_the_idle() -> Result<()> {
    scene::play(async |home| {
        home.write("pool_mode: session", "pencil")?;
        for signal in [Signal::TERM, Signal::INT] {
            let mut proxy = home.start()?;
            let (_idle, idle_ends) = home.client("pencil").await?;
            let (busy, busy_ends) = home.client("pencil").await?;
            busy.batch_execute("begin; create temp table t (a int)")
                .await?;
            proxy.signal(signal)?;
            ensure!(ended_with(idle_ends).await? == "57P01");
            ensure!(one(&busy, "select count(*) from t").await? == "0");
            busy.batch_execute("commit").await?;
            ensure!(ended_with(busy_ends).await? == "57P01");
            ensure!(proxy.ended().await?.success());
        }
        Ok(())
    })
}

/// Patroni: Configuration | `Type=notify` of systemd | works, of the proxy too; `notify-reload` as well
#[test]
fn the_service_manager_is_told() -> Result<()> {
    scene::play(async |home| {
        home.write("pool_mode: session", "pencil")?;
        let manager = home.manager()?;
        let hear = async || {
            let mut room = [0; 256];
            let count = tokio::time::timeout(SOON, manager.recv(&mut room)).await??;
            anyhow::Ok(String::from_utf8(room[..count].to_vec())?)
        };
        let mut proxy = home.start()?;
        ensure!(hear().await? == "READY=1");
        drop(home.client("pencil").await?);
        proxy.signal(Signal::HUP)?;
        let reloading = hear().await?;
        ensure!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        ensure!(hear().await? == "READY=1");
        proxy.signal(Signal::TERM)?;
        ensure!(hear().await? == "STOPPING=1");
        ensure!(proxy.ended().await?.success());
        Ok(())
    })
}

#[test]
fn a_primary_that_is_gone_is_said_and_that_it_is_back() -> Result<()> {
    scene::play(async |home| {
        home.write_servers("pencil")?;
        let proxy = home.start()?;
        let (client, _) = home.client("pencil").await?;
        ensure!(one(&client, "select 7").await? == "7");
        home.stop_server()?;
        proxy
            .says("the proxy knows no primary, clients wait")
            .await?;
        proxy
            .says("can `check_user` log in at each of `servers`")
            .await?;
        home.start_server()?;
        proxy.says("the proxy knows a primary after_s=").await
    })
}

/// The clients hear why; whoever looks after the proxy reads its log.
#[test]
fn who_waits_in_vain_and_who_is_one_too_many_is_in_the_log_once() -> Result<()> {
    scene::play(async |home| {
        home.write(
            "pool_mode: session, hold_time: 1, max_client_conn: 2",
            "pencil",
        )?;
        let proxy = home.start()?;
        let (a, _ends) = home.client("pencil").await?;
        let (b, _ends) = home.client("pencil").await?;
        for _ in 0..3 {
            let refused = home.client("pencil").await.err().context("a third")?;
            let refused = format!("{refused:#}");
            ensure!(refused.contains("max_client_conn"), "{refused}");
        }
        home.stop_server()?;
        for client in [&a, &b] {
            ensure!(one(client, "select 1").await.is_err());
        }
        for said in [
            "a client is turned away: the proxy is full",
            "max_client_conn=2",
            "a request got no server in time",
            "can't connect to 127.0.0.1:",
        ] {
            proxy.says(said).await?;
        }
        ensure!(proxy.count("the proxy is full")? == 1);
        ensure!(proxy.count("a request got no server in time")? == 1);
        Ok(())
    })
}

/// Each client reads the server's words, or waits; the log has them once.
#[test]
fn a_login_that_the_server_refuses_is_said_once_with_its_words() -> Result<()> {
    const SAID: &str = "the server refuses the proxy's login";
    scene::play(async |home| {
        home.write("pool_mode: session", "pencil")?;
        home.psql("alter role postgres password 'another'")?;
        home.rules("host all all 127.0.0.1/32 scram-sha-256\n")?;
        let proxy = home.start()?;
        for _ in 0..3 {
            let refused = home.client("pencil").await;
            ensure!(refused.is_err(), "its password is another there");
        }
        for part in [
            SAID,
            "WARN",
            "user=\"postgres\"",
            "database=\"postgres\"",
            "server=\"127.0.0.1:",
            "password authentication failed for user",
        ] {
            proxy.says(part).await?;
        }
        ensure!(proxy.count(SAID)? == 1, "as often as clients came");
        // It may be closed for a moment only: that is said when it lasts.
        home.rules("host all all 127.0.0.1/32 reject\n")?;
        lab::eventually("the rule is said", SOON, async || {
            let _ = home.client("pencil").await;
            ensure!(proxy.count(SAID)? == 2, "not yet");
            Ok(())
        })
        .await?;
        proxy.says("pg_hba.conf rejects connection").await
    })
}

#[test]
fn told_again_it_ends_at_once() -> Result<()> {
    scene::play(async |home| {
        home.write("pool_mode: session, shutdown_time: 3600", "pencil")?;
        let (term, int) = (Signal::TERM, Signal::INT);
        for signals in [
            &[term, term][..],
            &[term, int],
            &[int, term],
            &[Signal::QUIT],
        ] {
            let mut proxy = home.start()?;
            let (busy, _) = home.client("pencil").await?;
            busy.batch_execute("begin").await?;
            for (number, signal) in signals.iter().enumerate() {
                proxy.signal(*signal)?;
                if number + 1 < signals.len() {
                    proxy.says("stopping: what is under way may end").await?;
                    ensure!(one(&busy, "select 7").await? == "7");
                }
            }
            ensure!(proxy.ended().await?.success());
            ensure!(busy.batch_execute("select 1").await.is_err());
        }
        Ok(())
    })
}

#[test]
fn a_newer_process_takes_the_place_of_the_older() -> Result<()> {
    scene::play(async |home| {
        let socket = home.path("takeover.sock");
        let more = format!("pool_mode: session, takeover_socket: {socket}");
        home.write(&more, "pencil")?;
        let mut older = home.start()?;
        let (_idle, idle_ends) = home.client("pencil").await?;
        let (busy, _) = home.client("pencil").await?;
        busy.batch_execute("begin").await?;
        // One that can't start leaves everything as it is.
        std::fs::write(home.path("users.txt"), "nonsense")?;
        let mut failed = home.start()?;
        ensure!(!failed.ended().await?.success());
        drop(home.client("pencil").await?);
        home.write(&more, "changed")?;
        let newer = home.start()?;
        newer.says("taken over").await?;
        ensure!(ended_with(idle_ends).await? == "57P01");
        let (new, _) = home.client("changed").await?;
        ensure!(one(&new, "select 7").await? == "7");
        // A cancel comes in at the newer one, and is for a session of the older.
        let slow = busy.cancel_token();
        let (slept, canceled) = tokio::join!(busy.batch_execute("select pg_sleep(60)"), async {
            home.sleeps().await?;
            slow.cancel_query(tokio_postgres::NoTls).await?;
            anyhow::Ok(())
        });
        canceled?;
        let code = slept.err().context("it slept well")?;
        ensure!(code.code().map(|code| code.code()) == Some("57014"));
        busy.batch_execute("rollback").await.ok();
        ensure!(older.ended().await?.success());
        ensure!(one(&new, "select 8").await? == "8");
        Ok(())
    })
}

impl Home {
    /// Until somebody sleeps at the server.
    async fn sleeps(&self) -> Result<()> {
        lab::eventually("it sleeps", SOON, async || {
            let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
            ensure!(self.psql(sql)? == "1");
            Ok(())
        })
        .await
    }
}
