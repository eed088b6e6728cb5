//! Several proxies of one cluster: they know each other, and a cancel finds its way.

use crate::pair::{Pair, story};
use crate::raw::{Raw, query, startup, told};
use crate::server::Running;
use crate::tls::{Authority, secured};
use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, ClientTls, Options, PoolMode, Presence, SslMode};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

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

/// Something on the way to an address that sees what passes.
struct Eavesdropper {
    address: SocketAddr,
    /// What was sent there, connection by connection.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Eavesdropper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Eavesdropper {
    /// Where it leads is said when that is known.
    async fn start(leads_to: Arc<OnceLock<SocketAddr>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (all, leads_to) = (Arc::clone(&all), Arc::clone(&leads_to));
                // A connection that breaks is noticed by those at its ends.
                tokio::spawn(async move { pass_on(client, &leads_to, &all).await });
            }
        });
        Ok(Self {
            address,
            heard,
            task,
        })
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().expect("its ear").clone()
    }
}

async fn pass_on(
    client: TcpStream,
    leads_to: &OnceLock<SocketAddr>,
    all: &Mutex<Vec<Vec<u8>>>,
) -> Result<()> {
    let at = {
        let mut all = all.lock().expect("its ear");
        all.push(Vec::new());
        all.len() - 1
    };
    let server = TcpStream::connect(leads_to.get().context("a way")?).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut room = vec![0; 4096];
    loop {
        let count = from_client.read(&mut room).await?;
        if count == 0 {
            break;
        }
        all.lock().expect("its ear")[at].extend_from_slice(&room[..count]);
        to_server.write_all(&room[..count]).await?;
    }
    to_server.shutdown().await?;
    back.await??;
    Ok(())
}

/// One of the cluster that clients speak TLS with, and that the others reach at this address.
async fn with_tls(
    pair: &Pair,
    name: &str,
    tls: ClientTls,
    address: Option<SocketAddr>,
) -> Result<Running> {
    Running::of(Options {
        source: pair.source(),
        pool_mode: PoolMode::Transaction,
        auth: AuthMethod::Trust,
        client_tls: tls,
        presence: Presence {
            name: name.to_owned(),
            address: address.map(|address| address.to_string()),
        },
        ..pair.a.options()?
    })
    .await
}

/// Asks for TLS, and gets it.
async fn by_tls(at: &Running, authority: &Authority) -> Result<TlsStream<TcpStream>> {
    let mut tcp = TcpStream::connect(at.address).await?;
    tcp.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await?;
    ensure!(tcp.read_u8().await? == b'S');
    secured(tcp, authority, None).await
}

#[test]
fn a_cancel_goes_on_to_another_proxy_as_hidden_as_it_came() -> Result<()> {
    story(async |pair| {
        let authority = Authority::new(&pair.a, "ours")?;
        authority.sign(&pair.a, "proxy", "127.0.0.1")?;
        let tls = |mode| ClientTls::load(&authority.files(mode, "proxy"));
        let there = with_tls(pair, "there", tls(SslMode::Allow)?, None).await?;
        for (mode, reached_hidden) in [(Some(SslMode::Allow), true), (None, false)] {
            let way = Arc::new(OnceLock::new());
            let between = Eavesdropper::start(Arc::clone(&way)).await?;
            let own = mode.map_or_else(|| Ok(ClientTls::default()), tls)?;
            let here = with_tls(pair, "here", own, Some(between.address)).await?;
            way.set(here.address).ok().context("one way")?;
            lab::eventually("they know each other", SOON, async || {
                ensure!(there.handle.peers() == ["here", "there"]);
                Ok(())
            })
            .await?;
            let (mut client, (id, secret)) = with_key(&here).await?;
            client.send(&query("select pg_sleep(600)")).await?;
            sleepers(pair, "1").await?;
            let mut packet = u32::try_from(12 + secret.len())?.to_be_bytes().to_vec();
            packet.extend(80_877_102_u32.to_be_bytes());
            packet.extend(id.to_be_bytes());
            packet.extend(&secret);
            let mut cancel = by_tls(&there, &authority).await?;
            cancel.write_all(&packet).await?;
            cancel.flush().await?;
            // To its end: then it has been dealt with.
            let _ = timeout(SOON, cancel.read(&mut [0; 1])).await?;
            if reached_hidden {
                let heard = between.heard();
                let [one] = &heard[..] else {
                    anyhow::bail!("{} connections", heard.len());
                };
                // The request for TLS, and a handshake behind it; nothing in clear.
                ensure!(
                    one.starts_with(b"\0\0\0\x08\x04\xd2\x16\x2f\x16"),
                    "{one:x?}"
                );
                let shown = one.windows(secret.len()).any(|some| some == secret);
                ensure!(!shown, "the key was there for all to see");
            } else {
                ensure!(between.heard().is_empty(), "{mode:?}: it went in clear");
                sleepers(pair, "1").await?;
                self::cancel(&there, &(id, secret)).await?;
                ensure!(between.heard().len() == 1, "{mode:?}");
            }
            ensure!(
                told(&client.until(b'Z').await?) == "ERROR 57014",
                "{mode:?}"
            );
            sleepers(pair, "0").await?;
            drop(client);
            here.handle.drain();
            lab::eventually("it is forgotten", SOON, async || {
                ensure!(there.handle.peers() == ["there"]);
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
}
