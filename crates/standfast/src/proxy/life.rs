//! A proxy's life: it is told to read its files again, and to stop.
//!
//! **Invariant:** a broken file changes nothing.
//!
//! SIGTERM and SIGINT let transactions that are under way end, for `shutdown_time`; the second one,
//! and SIGQUIT, end everything at once.

use super::descriptors::Own;
use super::lookout;
use super::options::{addresses, options};
use crate::config::{Endpoint, ProxySection};
use crate::systemd::{self, State};
use ::proxy::{Handle, Proxy, Source};
use anyhow::Result;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

/// Serves until it is told to stop. `again` reads the section anew.
pub(crate) async fn serve(
    section: &ProxySection,
    source: Source,
    again: impl Fn() -> Result<ProxySection>,
) -> Result<()> {
    let mut signals = Signals::take()?;
    let proxy = Proxy::start(options(section, source.clone(), Own::Proxy).await?).await?;
    let handle = proxy.handle();
    for address in proxy.addresses() {
        tracing::info!(%address, "the proxy listens");
    }
    systemd::tell(State::Ready);
    let mut section = section.clone();
    let mut beside = metrics(&handle, &section);
    beside.spawn(lookout::watch(handle.clone(), source.clone()));
    let running = proxy.run();
    tokio::pin!(running);
    loop {
        tokio::select! {
            () = &mut running => return Ok(()),
            () = handle.ending() => break,
            asked = next(&mut signals, &handle) => match asked {
                Asked::Reload => {
                    systemd::tell(State::Reloading);
                    if let Some(new) = reload(&handle, &section, &source, &again).await {
                        section = new;
                    }
                    systemd::tell(State::Ready);
                }
                Asked::Stop => break,
                Asked::Quit => return Ok(()),
            },
        }
    }
    systemd::tell(State::Stopping);
    let clients = handle.clients();
    tracing::info!(clients, "stopping: what is under way may end");
    handle.drain();
    tokio::select! {
        () = &mut running => {}
        () = tokio::time::sleep(section.shutdown_time) => {
            tracing::warn!(clients = handle.clients(), "transactions still run and are cut off");
        }
        () = signals.told_again() => {
            tracing::warn!(clients = handle.clients(), "told again to stop");
        }
    }
    Ok(())
}

/// What is asked for next, by a signal or at the console.
async fn next(signals: &mut Signals, handle: &Handle) -> Asked {
    tokio::select! {
        asked = signals.next() => asked,
        () = handle.reload_wanted() => Asked::Reload,
        () = handle.stop_wanted() => Asked::Stop,
    }
}

/// Between two attempts to listen for Prometheus: a proxy that goes may still hold the port.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Serves the proxy's metrics until this is dropped, if they are wanted.
pub(crate) fn metrics(handle: &Handle, section: &ProxySection) -> JoinSet<()> {
    let mut task = JoinSet::new();
    if let Some(listen) = section.metrics_listen.clone() {
        let handle = handle.clone();
        task.spawn(async move {
            let listener = listen_for_metrics(&listen).await;
            api::serve_metrics(listener, move || handle.metrics()).await;
        });
    }
    task
}

async fn listen_for_metrics(listen: &Endpoint) -> TcpListener {
    let mut said = false;
    loop {
        let opened = async {
            let addresses = addresses(listen).await?;
            anyhow::Ok(TcpListener::bind(&addresses[..]).await?)
        };
        match opened.await {
            Ok(listener) => return listener,
            Err(error) if !said => {
                tracing::warn!("can't listen on {listen} for metrics yet: {error:#}");
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Takes what can change while it runs; gives the section that is in force then.
async fn reload(
    handle: &Handle,
    before: &ProxySection,
    source: &Source,
    again: &impl Fn() -> Result<ProxySection>,
) -> Option<ProxySection> {
    let read = async {
        let section = again()?;
        let options = options(&section, source.clone(), Own::Proxy).await?;
        anyhow::Ok((section, options))
    };
    match read.await {
        Err(error) => {
            tracing::error!("reload: {error:#}; everything stays as it was");
            handle.refuse_reload(&format!("{error:#}"));
            None
        }
        Ok((section, options)) => {
            if has_moved(before, &section) {
                tracing::warn!("reload: where the proxy listens changes at its next start only");
            }
            handle.reload(&options);
            tracing::info!("reloaded: users, rules, certificates, pool mode and limits");
            Some(section)
        }
    }
}

/// Whether clients would come in elsewhere.
pub(crate) fn has_moved(before: &ProxySection, now: &ProxySection) -> bool {
    now.listen != before.listen
        || now.listen_read != before.listen_read
        || now.unix_socket != before.unix_socket
        || now.metrics_listen != before.metrics_listen
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Reload,
    Stop,
    Quit,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.quit.recv() => Asked::Quit,
        }
    }

    /// To reload while it stops means nothing.
    async fn told_again(&mut self) {
        while self.next().await == Asked::Reload {}
    }
}
