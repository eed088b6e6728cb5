//! `standfast proxy`: turns a proxy's file into a running proxy.

use crate::config::{Endpoint, LogLevel, ProxyConfig, ProxySource};
use crate::exit::ExitCode;
use crate::paths::Homes;
use crate::run::etcd_options;
use crate::{cli::meant, logging};
use ::proxy::{Options, Proxy, Source, Users};
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use store::layout::Keys;
use store::{EtcdStore, RemoteOptions, RemoteStore, Secret, Store, Tls};
use tokio::net::lookup_host;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) fn run(file: &Path, level: Option<LogLevel>, homes: &Homes) -> Result<ExitCode> {
    let (config, warnings) = ProxyConfig::load(file, homes)?;
    let _ending = logging::start(&meant::log(config.log.clone(), level));
    for warning in warnings {
        tracing::warn!("{}: {warning}", file.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let served = runtime.block_on(serve(config));
    // Whoever is still served is cut off: the process ends.
    runtime.shutdown_background();
    served.map(|()| ExitCode::Ok)
}

async fn serve(config: ProxyConfig) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let users_file = &config.users_file;
    let users = std::fs::read_to_string(users_file)
        .with_context(|| format!("can't read {}", users_file.display()))?;
    let users = Users::parse(&users).with_context(|| users_file.display().to_string())?;
    let options = Options {
        listen: addresses(&config.listen).await?,
        source: source(config.source)?,
        pool_mode: config.pool_mode,
        users,
        auth: config.auth,
        on_lossy_failover: config.on_lossy_failover,
        limits: config.limits,
    };
    let proxy = Proxy::start(options).await?;
    for address in proxy.addresses() {
        tracing::info!(%address, "the proxy listens");
    }
    tokio::select! {
        () = proxy.run() => {}
        _ = terminate.recv() => tracing::info!("told to stop"),
        _ = interrupt.recv() => tracing::info!("told to stop"),
    }
    Ok(())
}

/// All addresses that a host stands for; `*` is every one of the machine.
async fn addresses(listen: &Endpoint) -> Result<Vec<SocketAddr>> {
    let host = match listen.host.as_str() {
        "*" => "0.0.0.0",
        host => host,
    };
    let found = lookup_host((host, listen.port)).await;
    let found = found.with_context(|| format!("can't look up {listen}"))?;
    Ok(found.collect())
}

/// Must be called in a runtime.
fn source(source: ProxySource) -> Result<Source> {
    let (store, keys): (Arc<dyn Store>, Keys) = match source {
        ProxySource::Server(server) => return Ok(Source::Server(server.to_string())),
        ProxySource::Raft {
            scope,
            namespace,
            members,
            secret_file,
            tls,
        } => {
            let addresses = members.iter().map(Endpoint::to_string).collect();
            let secret = Secret::read(&secret_file).context("cluster secret")?;
            let cluster = format!("{namespace}/{scope}");
            let tls = tls.map(Tls::load).transpose().context("store.raft.tls")?;
            let options = RemoteOptions {
                tls,
                ..RemoteOptions::new(addresses, cluster, secret)
            };
            let keys = Keys::new(&namespace, &scope);
            (Arc::new(RemoteStore::new(options)), keys)
        }
        ProxySource::Etcd {
            scope,
            namespace,
            etcd,
        } => {
            let keys = Keys::new(&namespace, &scope);
            let client = EtcdStore::new(etcd_options(&etcd, &keys)).context("etcd3")?;
            (Arc::new(client), keys)
        }
    };
    Ok(Source::Store { store, keys })
}
