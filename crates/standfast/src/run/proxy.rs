//! The proxy of a node: every node's port leads to the primary.
//!
//! **Invariant:** whatever becomes of the proxy, the node goes on: it has threads of its own, a share
//! of the file descriptors and no more, and a port or a file that it can't have is tried again.
//!
//! It reads the cluster from the node's own view of the store, and writes nothing there but where it
//! is itself.

use crate::config::{Config, Endpoint, ProxySection};
use crate::paths::Homes;
use crate::proxy::Own;
use ::proxy::{Handle, Options, Proxy, Source};
use ::store::Store;
use ::store::layout::Keys;
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

/// Between two attempts to start.
const AGAIN: Duration = Duration::from_secs(5);
/// The node's end waits no longer than this for transactions that run elsewhere.
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct NodeProxy {
    runtime: Option<Runtime>,
    reload: Arc<Notify>,
    /// What is left to do is told to end.
    ending: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    patience: Duration,
}

/// What the proxy's thread knows of the node.
struct Place {
    file: PathBuf,
    /// The node's, and the host under which its Postgres is reached.
    name: String,
    host: Option<String>,
    source: Source,
    reload: Arc<Notify>,
    ending: watch::Receiver<bool>,
}

impl NodeProxy {
    /// `None`: the node's file has no section `proxy`.
    pub(super) fn start(
        config: &Config,
        store: &Arc<dyn Store>,
        keys: &Keys,
    ) -> Result<Option<Self>> {
        let Some(section) = config.proxy.clone() else {
            return Ok(None);
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(section.threads)
            .thread_name("proxy")
            .enable_all()
            .build()
            .context("can't start the proxy's threads")?;
        let reload = Arc::new(Notify::new());
        let (ending, told) = watch::channel(false);
        let (done, ended) = watch::channel(false);
        let place = Place {
            file: config.file.clone(),
            name: config.name.to_string(),
            host: config
                .postgresql
                .as_ref()
                .map(|postgresql| postgresql.connect_address.host.clone()),
            source: Source::Store {
                store: Arc::clone(store),
                keys: keys.clone(),
            },
            reload: Arc::clone(&reload),
            ending: told,
        };
        let patience = section.shutdown_time.min(PATIENCE_MAX);
        runtime.spawn(async move {
            place.serve(section).await;
            done.send_replace(true);
        });
        Ok(Some(Self {
            runtime: Some(runtime),
            reload,
            ending,
            ended,
            patience,
        }))
    }

    /// The node's file is read again.
    pub(super) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Lets transactions end, and comes back when they have, or their time is up.
    pub(super) async fn drain(&mut self) {
        self.ending.send_replace(true);
        // It fails when the proxy is gone already.
        let _ = tokio::time::timeout(self.patience, self.ended.wait_for(|ended| *ended)).await;
    }
}

impl Drop for NodeProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Place {
    async fn serve(self, mut section: ProxySection) {
        let mut ending = self.ending.clone();
        let mut said = String::new();
        let proxy = loop {
            match self.start(&section).await {
                Ok(proxy) => break proxy,
                Err(error) => {
                    let why = format!("{error:#}");
                    if why != said {
                        tracing::error!(
                            error = why,
                            "the node's proxy can't start, the node goes on"
                        );
                        said = why;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.reload.notified() => if let Ok(new) = self.read() { section = new },
                () = told(&mut ending) => return,
            }
        };
        for address in proxy.addresses() {
            tracing::info!(%address, "the node's proxy listens");
        }
        let handle = proxy.handle();
        let _metrics = crate::proxy::metrics(&handle, &section);
        let running = proxy.run();
        tokio::pin!(running);
        loop {
            tokio::select! {
                () = &mut running => return,
                () = self.reload.notified() => self.reload(&handle, &mut section).await,
                () = handle.reload_wanted() => self.reload(&handle, &mut section).await,
                () = handle.stop_wanted() => {
                    tracing::warn!("the node's proxy ends with the node, not by its console");
                }
                () = told(&mut ending) => break,
            }
        }
        handle.drain();
        running.await;
    }

    async fn start(&self, section: &ProxySection) -> Result<Proxy> {
        let options = self.options(section).await?;
        Ok(Proxy::start(options).await?)
    }

    async fn options(&self, section: &ProxySection) -> Result<Options> {
        let mut options = crate::proxy::options(section, self.source.clone(), Own::Node).await?;
        options.presence.name.clone_from(&self.name);
        if options.presence.address.is_none()
            && let Some(host) = &self.host
        {
            // Where it listens may be every address of the machine.
            let address = Endpoint::new(host.clone(), section.listen.port);
            options.presence.address = Some(address.to_string());
        }
        Ok(options)
    }

    /// A broken file the node itself tells of.
    fn read(&self) -> Result<ProxySection> {
        let (config, _) = Config::load(&self.file, &Homes::from_env())?;
        config.proxy.ok_or_else(|| {
            let what = "the file has no proxy any more: it ends with the node";
            tracing::warn!("{what}");
            anyhow::anyhow!(what)
        })
    }

    async fn reload(&self, handle: &Handle, section: &mut ProxySection) {
        let new = match self.read() {
            Ok(new) => new,
            Err(error) => return handle.refuse_reload(&format!("{error:#}")),
        };
        match self.options(&new).await {
            Ok(options) => {
                if crate::proxy::has_moved(section, &new) {
                    tracing::warn!("where the proxy listens changes at the node's next start");
                }
                handle.reload(&options);
                *section = new;
                tracing::info!("reloaded: the proxy's users, rules, certificates and limits");
            }
            Err(error) => {
                tracing::error!("reload: {error:#}; the proxy stays as it was");
                handle.refuse_reload(&format!("{error:#}"));
            }
        }
    }
}

/// Until it is told to end, or nobody can tell any more.
async fn told(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}
