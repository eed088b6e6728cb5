//! A session waits for its client, its server and its turn, and with several threads all of them come at any
//! moment, on any thread: none is missed.

use crate::raw::{Raw, message, query};
use crate::server::{Running, Server, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, Limits, PoolMode};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const SESSIONS: usize = 48;
const ROUNDS: usize = 500;

/// Whoever misses one hears nothing any more, and [`Raw`] waits for 20 seconds at most.
#[test]
fn no_session_sleeps_through_what_it_waits_for() {
    story(async |server| {
        let limits = Limits {
            pool_size: 6,
            ..Limits::default()
        };
        for mode in [PoolMode::Transaction, PoolMode::Session] {
            let mut threads = Builder::new_multi_thread();
            let threads = threads.worker_threads(4).enable_all().build()?;
            let served = serve(server, mode, limits, &threads).await;
            threads.shutdown_background();
            served.with_context(|| format!("{mode:?}"))?;
        }
        Ok(())
    });
}

/// A proxy with threads of its own, which its clients do not share.
async fn serve(server: &Server, mode: PoolMode, limits: Limits, threads: &Runtime) -> Result<()> {
    // In session mode there is no other turn than the first.
    let sessions = match mode {
        PoolMode::Session => limits.pool_size,
        _ => SESSIONS,
    };
    let mut options = server.options()?;
    options.pool_mode = mode;
    options.limits = limits;
    options.auth = AuthMethod::Trust;
    let proxy = threads.spawn(Running::of(options)).await??;
    let mut clients = JoinSet::new();
    for number in 0..sessions {
        let address = proxy.address;
        clients.spawn(async move {
            let mut client = Raw::logged_in(address).await?;
            for round in 0..ROUNDS {
                let played = transact(&mut client, number, round).await;
                played.with_context(|| format!("session {number}, round {round}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

/// One transaction, by one of the ways that differ in who waits for whom.
async fn transact(client: &mut Raw, number: usize, round: usize) -> Result<()> {
    let mark = format!("{number}.{round}");
    let asked = query(&format!("select '{mark}'"));
    match (number + round) % 4 {
        0 => client.send(&asked).await?,
        // The second half comes while the session looks at the first one.
        1 => {
            let (first, second) = asked.split_at(round % asked.len());
            client.send(first).await?;
            client.send(second).await?;
        }
        // The next request comes while the answer does.
        2 => {
            client.send(&query("begin")).await?;
            client.send(&asked).await?;
            client.send(&query("commit")).await?;
            client.until(b'Z').await?;
            expect(client, &mark).await?;
            client.until(b'Z').await?;
            return Ok(());
        }
        _ => {
            let parse = [b"\0select '", mark.as_bytes(), b"'\0\0\0"].concat();
            let batch = [
                message(b'P', &parse),
                message(b'B', b"\0\0\0\0\0\0\0\0"),
                message(b'E', b"\0\0\0\0\0"),
            ];
            client.send(&batch.concat()).await?;
            client.send(&message(b'S', b"")).await?;
        }
    }
    expect(client, &mark).await
}

/// The answer to this request, and to no other.
async fn expect(client: &mut Raw, mark: &str) -> Result<()> {
    let answer = client.until(b'Z').await?;
    let row = answer.iter().find(|(tag, _)| *tag == b'D');
    let (_, row) = row.context("no row")?;
    ensure!(row.ends_with(mark.as_bytes()), "{mark}: {row:?}");
    Ok(())
}
