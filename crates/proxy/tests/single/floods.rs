//! Clients that ask for as much as the protocol lets them: what it costs the proxy is bounded, and nobody else notices.

use crate::alone::Alone;
use crate::raw::{Raw, message, query, told};
use crate::server::{one, story};
use anyhow::{Context as _, ensure};
use proxy::{Limits, PoolMode};
use std::time::Duration;

const BOTH: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

#[test]
fn a_hundred_thousand_syncs_are_each_answered() {
    const SYNCS: usize = 100_000;
    story(async |server| {
        let proxy = Alone::start(server.port())?;
        let mut other = Raw::logged_in(proxy.address).await?;
        let mut raw = Raw::logged_in(proxy.address).await?;
        let flood = message(b'S', b"").repeat(SYNCS);
        // One who does not listen, and then one who does.
        raw.offer(&flood, Duration::from_secs(1)).await;
        other.send(&query("select 7")).await?;
        other.until(b'Z').await?;
        drop(raw);
        let mut raw = Raw::logged_in(proxy.address).await?;
        for some in flood.chunks(5 * 5_000) {
            raw.send(some).await?;
            for _ in 0..some.len() / 5 {
                ensure!(raw.hear().await? == Some((b'Z', b"I".to_vec())));
            }
        }
        raw.send(&query("select 7")).await?;
        ensure!(told(&raw.until(b'Z').await?) == "nothing");
        let kilobytes = proxy.memory("VmHWM")?;
        ensure!(kilobytes <= 48 * 1024, "{kilobytes} kB");
        Ok(())
    });
}

/// As many parameters as the protocol can count, with values and without.
#[test]
fn a_statement_may_have_65535_parameters() {
    const MOST: u16 = u16::MAX;
    story(async |server| {
        for mode in BOTH {
            let proxy = server.trusting(mode, Limits::default()).await?;
            let bystander = proxy.client("other").await?;
            for name in ["", "named"] {
                let mut raw = Raw::logged_in(proxy.address).await?;
                let list: Vec<_> = (1..=MOST).map(|n| format!("${n}")).collect();
                let sql = format!("select cardinality(array[{}]::text[])", list.join(","));
                let parse = [name, "\0", &sql, "\0\0\0"].concat();
                let mut bind = format!("\0{name}\0\0\0").into_bytes();
                bind.extend(MOST.to_be_bytes());
                for n in 0..MOST {
                    match n % 2 {
                        0 => bind.extend(b"\xff\xff\xff\xff"),
                        _ => bind.extend(b"\0\0\0\x03abc"),
                    }
                }
                bind.extend(b"\0\0");
                let describe = [&b"S"[..], name.as_bytes(), b"\0"].concat();
                let batch = [
                    message(b'P', parse.as_bytes()),
                    message(b'D', &describe),
                    message(b'B', &bind),
                    message(b'E', b"\0\0\0\0\0"),
                    message(b'S', b""),
                ];
                raw.send(&batch.concat()).await?;
                let heard = raw.until(b'Z').await?;
                let row = heard.iter().find(|(tag, _)| *tag == b'D');
                let told = || format!("{mode:?} {name:?}: {}", told(&heard));
                let (_, row) = row.with_context(told)?;
                ensure!(row.ends_with(b"65535"), "{mode:?}: {row:?}");
                // As many for a statement that wants one.
                let parse = message(b'P', b"few\0select $1::text\0\0\0");
                let wrong = [b"\0few\0", &bind[2 + name.len()..]].concat();
                raw.send(&[parse, message(b'B', &wrong), message(b'S', b"")].concat())
                    .await?;
                let refused = crate::raw::told(&raw.until(b'Z').await?);
                ensure!(refused == "ERROR 08P01", "{mode:?}: {refused}");
                ensure!(one(&bystander, "select 7").await? == "7");
            }
        }
        Ok(())
    });
}

/// What a client prepares the proxy remembers, and not without an end; when the client is gone, it is forgotten.
#[test]
fn who_prepares_without_an_end_is_ended() {
    story(async |server| {
        let proxy = Alone::start(server.port())?;
        let mut other = Raw::logged_in(proxy.address).await?;
        for _ in 0..3 {
            let mut raw = Raw::logged_in(proxy.address).await?;
            let mut said = String::new();
            for n in 0..1_000 {
                let text = format!("s{n}\0select '{}', {n}\0\0\0", "x".repeat(200_000));
                let batch = [message(b'P', text.as_bytes()), message(b'S', b"")];
                raw.send(&batch.concat()).await?;
                match raw.until(b'Z').await {
                    Ok(heard) => ensure!(told(&heard) == "nothing", "{}", told(&heard)),
                    Err(ended) => {
                        said = ended.to_string();
                        break;
                    }
                }
            }
            ensure!(said.ends_with("FATAL 53400"), "{said}");
            other.send(&query("select 7")).await?;
            other.until(b'Z').await?;
        }
        let kilobytes = proxy.memory("VmHWM")?;
        ensure!(kilobytes <= 200 * 1024, "{kilobytes} kB");
        Ok(())
    });
}

/// Behind an error the server throws everything away up to a Sync, and so does the proxy: also when the error may not
/// have been one of a request.
#[test]
fn what_is_thrown_away_is_not_remembered() {
    story(async |server| {
        let proxy = Alone::start(server.port())?;
        let wrong = message(b'B', b"\0nosuch\0\0\0\0\0\0\0");
        let slow = [
            message(b'P', b"\0select pg_sleep(60)\0\0\0"),
            message(b'B', &[0; 8]),
            message(b'E', &[0; 5]),
        ];
        let pad = "x".repeat(60_000);
        for (failing, code) in [(wrong, "26000"), (slow.concat(), "57014")] {
            let mut raw = Raw::logged_in(proxy.address).await?;
            raw.send(&query("set statement_timeout = '300ms'")).await?;
            raw.until(b'Z').await?;
            raw.send(&[failing, message(b'H', b"")].concat()).await?;
            let failed = told(&raw.until(b'E').await?);
            ensure!(failed == format!("ERROR {code}"), "{failed}");
            for n in 0..1_500 {
                let parse = format!("s{n}\0select '{n}{pad}'\0\0\0");
                let bind = format!("{n}{pad}\0\0\0\0\0\0\0\0");
                let both = [
                    message(b'P', parse.as_bytes()),
                    message(b'B', bind.as_bytes()),
                    query("select 1"),
                ];
                raw.send(&both.concat()).await?;
            }
            raw.send(&message(b'S', b"")).await?;
            let heard = told(&raw.until(b'Z').await?);
            ensure!(heard == "nothing", "{heard}");
            // What was said behind it is heard, and nothing of what was thrown away is there.
            let gone = [message(b'B', b"\0s7\0\0\0\0\0\0\0"), message(b'S', b"")];
            raw.send(&gone.concat()).await?;
            let heard = told(&raw.until(b'Z').await?);
            ensure!(heard == "ERROR 26000", "{heard}");
        }
        let kilobytes = proxy.memory("VmHWM")?;
        ensure!(kilobytes <= 64 * 1024, "{kilobytes} kB");
        Ok(())
    });
}

/// News may come at any time, also to who has asked for nothing.
#[test]
fn news_comes_between_and_within_everything() {
    story(async |server| {
        let proxy = server
            .trusting(PoolMode::Session, Limits::default())
            .await?;
        let mut raw = Raw::logged_in(proxy.address).await?;
        raw.send(&query("listen news")).await?;
        raw.until(b'Z').await?;
        server.sql(
            "app",
            "select pg_notify('news', n::text) from generate_series(1, 3000) n",
        )?;
        for n in 1..=3_000 {
            let (tag, body) = raw.hear().await?.context("news")?;
            let wanted = format!("news\0{n}\0");
            ensure!(tag == b'A' && body.ends_with(wanted.as_bytes()), "{n}");
        }
        raw.send(&query("select 1; notify news, 'own'; select 2"))
            .await?;
        let heard = raw.until(b'Z').await?;
        ensure!(heard.iter().any(|(tag, _)| *tag == b'A'), "nothing of it");
        Ok(())
    });
}
