//! Without a cluster: servers that are only looked at.

use crate::pair::story;
use crate::server::{Running, code, one};
use anyhow::{Result, ensure};
use proxy::{OnLossyFailover, Options, PoolMode, Source};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
const WHERE: &str = "select current_setting('port')";

#[test]
fn of_several_servers_the_newest_primary_is_followed() -> Result<()> {
    story(async |pair| {
        let (a, b) = (pair.a.port(), pair.b.port());
        let with = |on_lossy_failover| {
            anyhow::Ok(Options {
                source: Source::Servers {
                    // The standby first: order says nothing.
                    addresses: vec![format!("127.0.0.1:{b}"), format!("127.0.0.1:{a}")],
                    user: "app".to_owned(),
                    database: "app".to_owned(),
                },
                pool_mode: PoolMode::Session,
                on_lossy_failover,
                ..pair.a.options()?
            })
        };
        let careful = Running::of(with(OnLossyFailover::Disconnect)?).await?;
        let careless = Running::of(with(OnLossyFailover::Continue)?).await?;
        let (ends, goes_on) = (careful.client("app").await?, careless.client("app").await?);
        ensure!(one(&ends, WHERE).await? == a.to_string());
        ensure!(one(&goes_on, WHERE).await? == a.to_string());
        goes_on.batch_execute("set search_path = public").await?;
        tokio::task::block_in_place(|| {
            pair.a.kill_postmaster()?;
            pair.b.promote()?;
            pair.b.sql(
                "postgres",
                "alter system set synchronous_standby_names = ''",
            )
        })?;
        ensure!(one(&goes_on, WHERE).await? == b.to_string());
        ensure!(one(&goes_on, "show search_path").await? == "public");
        // Nobody can tell that nothing was lost.
        lab::eventually("the careful one has seen it", SOON, async || {
            let new = careful.client("app").await?;
            ensure!(one(&new, WHERE).await? == b.to_string());
            Ok(())
        })
        .await?;
        ensure!(code(ends.batch_execute("select 1").await) == "FATAL 57P01");
        // The old primary comes back as it was, and is not believed.
        lab::eventually("its last processes are gone", SOON, async || {
            tokio::task::block_in_place(|| pair.a.up())
        })
        .await?;
        let new = Running::of(with(OnLossyFailover::Continue)?).await?;
        for proxy in [&careless, &careful, &new] {
            let client = proxy.client("app").await?;
            ensure!(one(&client, WHERE).await? == b.to_string());
        }
        // Whom a loss was kept from does not end for it later.
        careless.handle.reload(&with(OnLossyFailover::Disconnect)?);
        let kill =
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'app'";
        tokio::task::block_in_place(|| pair.b.psql(kill))?;
        // What it asks while the server ends may be answered with 40001.
        lab::eventually("it has moved", SOON, async || {
            ensure!(one(&goes_on, "show search_path").await? == "public");
            Ok(())
        })
        .await?;
        Ok(())
    })
}
