//! Several proxies of one cluster: they know each other, and a cancel finds its way.

use crate::pair::{Pair, story};
use crate::raw::{Raw, query, startup};
use crate::server::Running;
use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, Options, PoolMode, Presence};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const SLEEPERS: &str = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
/// Another proxy has sent it on.
const SENT_ON: u32 = 1 << 31;

async fn proxy(pair: &Pair, name: &str) -> Result<Running> {
    Running::of(Options {
        source: pair.source(),
        pool_mode: PoolMode::Transaction,
        auth: AuthMethod::Trust,
        presence: Presence {
            name: name.to_owned(),
            address: None,
        },
        ..pair.a.options()?
    })
    .await
}

/// Logged in, with the key that it was given.
async fn with_key(proxy: &Running) -> Result<(Raw, (u32, Vec<u8>))> {
    let mut raw = Raw::connect(proxy.address).await?;
    raw.send(&startup(&[("user", "app"), ("database", "app")]))
        .await?;
    let heard = raw.until(b'Z').await?;
    let key = heard.iter().find(|(tag, _)| *tag == b'K');
    let (id, secret) = key.context("a key")?.1.split_at(4);
    let id = u32::from_be_bytes(id.try_into()?);
    Ok((raw, (id, secret.to_vec())))
}

/// To the end: then it has been dealt with.
async fn cancel(at: &Running, (id, secret): &(u32, Vec<u8>)) -> Result<()> {
    let mut packet = u32::try_from(12 + secret.len())?.to_be_bytes().to_vec();
    packet.extend(80_877_102_u32.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(secret);
    let mut raw = Raw::connect(at.address).await?;
    raw.send(&packet).await?;
    ensure!(raw.hear().await?.is_none());
    Ok(())
}

async fn sleepers(pair: &Pair, count: &str) -> Result<()> {
    lab::eventually("so many sleep", SOON, async || {
        let now = tokio::task::block_in_place(|| pair.a.psql(SLEEPERS))?;
        ensure!(now == count, "{now}");
        Ok(())
    })
    .await
}

#[test]
fn a_cancel_finds_the_proxy_that_has_given_out_its_key() -> Result<()> {
    story(async |pair| {
        let (here, there) = (proxy(pair, "here").await?, proxy(pair, "there").await?);
        lab::eventually("they know each other", SOON, async || {
            for proxy in [&here, &there] {
                ensure!(proxy.handle.peers() == ["here", "there"]);
            }
            Ok(())
        })
        .await?;
        let (mut client, key) = with_key(&here).await?;
        client.send(&query("select pg_sleep(600)")).await?;
        sleepers(pair, "1").await?;
        // A wrong secret, one that was sent on already, and one for a proxy that is not there.
        let (id, secret) = key.clone();
        cancel(&there, &(id, vec![0; secret.len()])).await?;
        cancel(&there, &(id | SENT_ON, secret.clone())).await?;
        cancel(&there, &(id ^ 1 << 25, secret)).await?;
        sleepers(pair, "1").await?;
        cancel(&there, &key).await?;
        let told = client.until(b'Z').await?;
        let canceled = told
            .iter()
            .any(|(tag, body)| *tag == b'E' && body.windows(6).any(|window| window == b"C57014"));
        ensure!(canceled, "{told:?}");
        sleepers(pair, "0").await?;
        // Who leaves in peace is forgotten at once, not when its lease ends.
        drop(client);
        here.handle.drain();
        lab::eventually("one is left", SOON, async || {
            ensure!(there.handle.peers() == ["there"]);
            Ok(())
        })
        .await
    })
}

#[test]
fn what_a_proxy_has_seen_is_told() -> Result<()> {
    story(async |pair| {
        let proxy = proxy(pair, "one").await?;
        let epoch = async |epoch: u64| {
            lab::eventually("it is told", SOON, async || {
                let told = pair.proxies().await?;
                let wanted = format!("\"epoch\":{epoch}");
                ensure!(told.len() == 1 && told[0].contains(&wanted), "{told:?}");
                let address = format!("\"address\":\"{}\"", proxy.address);
                ensure!(told[0].contains(&address), "{told:?}");
                Ok(())
            })
            .await
        };
        epoch(1).await?;
        pair.fail_over().await?;
        epoch(2).await
    })
}
