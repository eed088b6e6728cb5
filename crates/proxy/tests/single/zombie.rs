//! A primary that is dead and does not know it: its postmaster is gone, a backend works on.

use crate::pair;
use crate::server::code;
use anyhow::{Context as _, Result, ensure};
use proxy::{Limits, PoolMode};
use std::time::Duration;
use tokio_postgres::NoTls;

/// Busy for long enough that another can take over meanwhile, and no wait that a signal would end.
/// The commit must not wait for the standby, or the zombie would acknowledge nothing at all.
const WORK: &str = "set synchronous_commit = local; \
    do $$ declare until timestamptz := clock_timestamp() + '12 s'; \
    begin while clock_timestamp() < until loop end loop; end $$; \
    insert into";

#[test]
fn what_a_zombie_acknowledges_reaches_nobody() -> Result<()> {
    pair::story(async |pair| {
        pair.a.sql(
            "app",
            "create table zombie (who text); create table witness (who text); \
             grant all on zombie, witness to app, other",
        )?;
        let mut clients = Vec::new();
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let proxy = pair.proxy(mode, Limits::default()).await?;
            let client = proxy.client("app").await?;
            clients.push((mode, proxy, client));
        }
        // One that goes past the proxy sees what the zombie says.
        let direct = format!(
            "host=127.0.0.1 port={} user=app password=pencil dbname=app",
            pair.a.port()
        );
        let (direct, connection) = tokio_postgres::connect(&direct, NoTls).await?;
        tokio::spawn(connection);
        let by_zombie = tokio::spawn(async move {
            // In a table of its own: who waits for another's lock looks whether the postmaster lives, and ends.
            let told = direct
                .batch_execute(&format!("{WORK} witness values ('direct')"))
                .await;
            code(told)
        });
        let mut told = Vec::new();
        for (mode, proxy, client) in clients {
            let sql = format!("{WORK} zombie values ('{mode:?}')");
            told.push(tokio::spawn(async move {
                let told = client.batch_execute(&sql).await;
                (mode, proxy, code(told))
            }));
        }
        lab::eventually(
            "all three are at work",
            Duration::from_secs(20),
            async || {
                let busy = "select count(*) from pg_stat_activity where state = 'active' \
                        and query like '%insert into%' and pid <> pg_backend_pid()";
                ensure!(pair.a.psql(busy)? == "3");
                Ok(())
            },
        )
        .await?;
        pair.fail_over().await?;
        // Without this the test would show nothing: there was a zombie then, and it said yes.
        ensure!(!by_zombie.is_finished(), "the work was done too soon");
        for told in told {
            let limit = Duration::from_secs(20);
            let (mode, proxy, code) = tokio::time::timeout(limit, told)
                .await
                .context("it waits for a zombie")??;
            ensure!(code == "FATAL 08007", "{mode:?}: {code}");
            let next = proxy.client("app").await?;
            let rows = next.query("select who from zombie", &[]).await?;
            ensure!(rows.is_empty(), "{mode:?}");
        }
        let said = by_zombie.await?;
        ensure!(said == "ok", "the zombie acknowledged nothing: {said}");
        Ok(())
    })
}
