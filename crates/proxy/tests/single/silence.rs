//! A store that is silent, that refuses, or that has no such cluster: whoever asks is told.

use crate::console::{console, rows};
use crate::pair::{Pair, story};
use crate::server::{Running, one};
use anyhow::{Context as _, Result, ensure};
use proxy::{Admins, Limits, Options, PoolMode, Source};
use std::sync::Arc;
use std::time::Duration;
use store::layout::Keys;
use store::{Fault, MemoryStore};

const SOON: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(1);

async fn proxy(pair: &Pair, store: &MemoryStore, scope: &str) -> Result<Running> {
    Running::of(Options {
        source: Source::Store {
            store: Arc::new(store.clone()),
            keys: Keys::new("service", scope),
        },
        pool_mode: PoolMode::Session,
        limits: Limits {
            hold_time: HOLD,
            ..Limits::default()
        },
        admins: Admins {
            everything: vec!["app".to_owned()],
            look: Vec::new(),
        },
        ..pair.a.options()?
    })
    .await
}

/// Waits until `SHOW CLUSTER` says so of a key.
async fn shown(proxy: &Running, key: &str, wanted: &str) -> Result<String> {
    let console = console(proxy, "app").await?;
    let mut found = String::new();
    lab::eventually("it is shown", SOON, async || {
        let rows = rows(&console, "SHOW CLUSTER").await?;
        let row = rows.iter().find(|row| row["key"] == key);
        let value = &row.with_context(|| format!("{key}: {rows:?}"))?["value"];
        ensure!(value.contains(wanted), "{value}");
        found.clone_from(value);
        Ok(())
    })
    .await?;
    Ok(found)
}

/// What a request hears that found no server.
async fn detail(asked: Result<String>) -> Result<String> {
    let error = asked.err().context("nobody could answer")?;
    let error = error.downcast::<tokio_postgres::Error>()?;
    let said = error.as_db_error().with_context(|| format!("{error:?}"))?;
    ensure!(said.code().code() == "57P03", "{said:?}");
    Ok(said.detail().unwrap_or_default().to_owned())
}

#[test]
fn a_silent_store_is_told_of_and_changes_nothing() -> Result<()> {
    story(async |pair| {
        let store = pair.handle();
        let proxy = proxy(pair, &store, "pair").await?;
        let client = proxy.client("app").await?;
        ensure!(one(&client, "select 7").await? == "7");
        shown(&proxy, "store", "answers").await?;
        let metrics = proxy.handle.metrics();
        ensure!(metrics.contains("\nstandfast_proxy_store 1\n"), "{metrics}");
        let silent = "\nstandfast_proxy_store_silent_seconds 0\n";
        ensure!(metrics.contains(silent), "{metrics}");
        store.set_fault(Fault::Unreachable);
        let said = shown(&proxy, "store", "has been silent since ").await?;
        ensure!(said.ends_with("cut off by the test"), "{said}");
        let primary = shown(&proxy, "primary", ", as it was last").await?;
        ensure!(primary.starts_with("a at "), "{primary}");
        let metrics = proxy.handle.metrics();
        ensure!(metrics.contains("\nstandfast_proxy_store 0\n"), "{metrics}");
        ensure!(!metrics.contains(silent), "{metrics}");
        // It is of no importance before the primary is gone.
        ensure!(one(&client, "select 7").await? == "7");
        tokio::task::block_in_place(|| pair.a.down("immediate"))?;
        lab::eventually("its server is gone", SOON, async || {
            let detail = detail(one(&client, "select 7").await).await?;
            ensure!(
                detail.contains("; the store has been silent since "),
                "{detail}"
            );
            Ok(())
        })
        .await?;
        tokio::task::block_in_place(|| pair.a.up())?;
        store.set_fault(Fault::None);
        let said = shown(&proxy, "store", "answers").await?;
        ensure!(said == "answers", "{said}");
        shown(&proxy, "primary", "a at ").await?;
        ensure!(one(&client, "select 7").await? == "7");
        Ok(())
    })
}

#[test]
fn a_store_that_never_answers_and_one_without_the_cluster_are_told_apart() -> Result<()> {
    story(async |pair| {
        let cut_off = pair.handle();
        cut_off.set_fault(Fault::Unreachable);
        let never = proxy(pair, &cut_off, "pair").await?;
        let elsewhere = proxy(pair, &pair.handle(), "pear").await?;
        let absent =
            "the store answers, and has no cluster pear in the namespace service; it has pair";
        shown(&elsewhere, "primary", &format!("none: {absent}")).await?;
        shown(&elsewhere, "store", "answers").await?;
        ensure!(elsewhere.handle.primary_is_missing().await == absent);
        let unheard = "the store has not answered yet: store not reachable: cut off by the test";
        shown(&never, "primary", &format!("none: {unheard}")).await?;
        for (proxy, why) in [(&elsewhere, absent), (&never, unheard)] {
            let refused = proxy.client("app").await.map(|_| String::new());
            let said = detail(refused).await?;
            ensure!(said == why, "{said}");
        }
        cut_off.set_fault(Fault::None);
        shown(&never, "primary", "a at ").await?;
        Ok(())
    })
}
