//! The port of those who only read.

use crate::pair::{Pair, story};
use crate::server::{Running, code, one};
use anyhow::{Result, ensure};
use proxy::{Options, PoolMode};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

async fn proxy(pair: &Pair, mode: PoolMode) -> Result<Running> {
    let options = Options {
        source: pair.source(),
        listen_read: vec!["127.0.0.1:0".parse()?],
        pool_mode: mode,
        ..pair.a.options()?
    };
    Running::of(options).await
}

const WHERE: &str =
    "select current_setting('port') || ' ' || current_setting('transaction_read_only')";

#[test]
fn who_only_reads_goes_to_a_standby_that_keeps_up_and_to_the_primary_where_there_is_none()
-> Result<()> {
    story(async |pair| {
        let on_a = format!("{} on", pair.a.port());
        let on_b = format!("{} on", pair.b.port());
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            pair.tell_of_standby("standby", 1000).await?;
            let proxy = proxy(pair, mode).await?;
            let new = async || one(&proxy.reader("app").await?, WHERE).await;
            lab::eventually("the standby is known", SOON, async || {
                ensure!(new().await? == on_b);
                Ok(())
            })
            .await?;
            let writer = proxy.client("app").await?;
            ensure!(one(&writer, WHERE).await? == format!("{} off", pair.a.port()));
            let staying = proxy.reader("app").await?;
            ensure!(one(&staying, WHERE).await? == on_b);
            ensure!(code(staying.batch_execute("create table t ()").await) == "ERROR 25006");
            // It falls behind: nobody new goes there, and at the primary nobody writes by mistake.
            pair.tell_of_standby("standby", 100 << 20).await?;
            lab::eventually("the primary is read from", SOON, async || {
                ensure!(new().await? == on_a);
                Ok(())
            })
            .await?;
            let fallen_back = proxy.reader("app").await?;
            ensure!(code(fallen_back.batch_execute("create table t ()").await) == "ERROR 25006");
            // The same by its tag.
            let tags = r#"{"noloadbalance":true}"#;
            pair.tell_of_standby("standby", 0).await?;
            lab::eventually("the standby is read from again", SOON, async || {
                ensure!(new().await? == on_b);
                Ok(())
            })
            .await?;
            pair.tell_of_tagged_standby("standby", 0, tags).await?;
            lab::eventually("the tag keeps readers away", SOON, async || {
                ensure!(new().await? == on_a);
                Ok(())
            })
            .await?;
            let stays = mode == PoolMode::Session;
            ensure!(one(&staying, WHERE).await? == if stays { &*on_b } else { &*on_a });
            // It stops being a standby: who is still there is moved.
            pair.tell_of_standby("joining", 0).await?;
            let there = "select count(*) from pg_stat_activity where usename = 'app'";
            lab::eventually("nobody is at the standby", SOON, async || {
                ensure!(pair.b.psql(there)? == "0");
                Ok(())
            })
            .await?;
            ensure!(one(&staying, WHERE).await? == on_a);
        }
        Ok(())
    })
}

/// Who came to read can't have committed anything, whatever functions it has called; unless it has said that it wants
/// to write.
#[test]
fn a_reader_whose_server_is_lost_hears_that_nothing_was_committed() -> Result<()> {
    const AT_WORK: &str =
        "select count(*) from pg_stat_activity where state = 'active' and usename = 'app'";
    story(async |pair| {
        let version: u32 = pair.b.psql("show server_version_num")?.parse()?;
        // Before, a server does not report whether its transactions begin read-only.
        let known = version >= 140_000;
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            pair.tell_of_standby("standby", 0).await?;
            let proxy = proxy(pair, mode).await?;
            lab::eventually("the standby is known", SOON, async || {
                let place = one(&proxy.reader("app").await?, WHERE).await?;
                ensure!(place == format!("{} on", pair.b.port()));
                Ok(())
            })
            .await?;
            let alone = proxy.reader("app").await?;
            let prepared = proxy.reader("app").await?;
            let twice = proxy.reader("app").await?;
            let writes = proxy.reader("app").await?;
            let lifted = "set default_transaction_read_only = off";
            writes.batch_execute(lifted).await?;
            let ask = "with w as (select pg_sleep(60)) select count(*) from w";
            let statement = prepared.prepare(ask).await?;
            let told = async {
                tokio::join!(
                    alone.batch_execute("select pg_sleep(60)"),
                    prepared.query(&statement, &[]),
                    twice.batch_execute("select pg_sleep(60); select pg_sleep(0)"),
                    writes.batch_execute("select pg_sleep(60)"),
                )
            };
            let restarted = async {
                lab::eventually("all are at work", SOON, async || {
                    ensure!(pair.b.psql(AT_WORK)? == "4");
                    Ok(())
                })
                .await?;
                tokio::task::block_in_place(|| {
                    pair.b.down("immediate")?;
                    pair.b.up()
                })
            };
            let ((a, b, c, d), restarted) = tokio::join!(told, restarted);
            restarted?;
            let wanted = match known {
                true => "ERROR 40001",
                false => "FATAL 08007",
            };
            let codes = [code(a), code(b), code(c), code(d)];
            let unknown = "FATAL 08007";
            ensure!(codes == [wanted, wanted, unknown, unknown], "{codes:?}");
            if known {
                for goes_on in [&alone, &prepared] {
                    ensure!(one(goes_on, "select 7").await? == "7");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_failover_does_not_leave_a_reader_at_the_new_primary_to_write() -> Result<()> {
    story(async |pair| {
        pair.tell_of_standby("standby", 0).await?;
        let proxy = proxy(pair, PoolMode::Session).await?;
        let reader = proxy.reader("app").await?;
        lab::eventually("the standby is read from", SOON, async || {
            let new = proxy.reader("app").await?;
            ensure!(
                one(&new, WHERE)
                    .await?
                    .starts_with(&pair.b.port().to_string())
            );
            Ok(())
        })
        .await?;
        reader.batch_execute("set search_path = public").await?;
        pair.fail_over().await?;
        let port = pair.b.port();
        ensure!(one(&reader, WHERE).await? == format!("{port} on"));
        ensure!(one(&reader, "show search_path").await? == "public");
        ensure!(one(&reader, "select pg_is_in_recovery()").await? == "f");
        let writer = proxy.client("app").await?;
        ensure!(one(&writer, WHERE).await? == format!("{port} off"));
        Ok(())
    })
}
