//! The node's ports. The store's peers and HTTP may share one: the first bytes tell them apart.

use super::threads::Elsewhere;
use crate::config::{Config, Endpoint};
use anyhow::{Context as _, Result};
use api::Api;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use store::{RaftStore, Strangers};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// How long a connection may take to say what it is.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// How many may be about to say it. More than that is no reason to keep others out, nor to run out of descriptors.
const SILENT_MAX: usize = 256;

/// Bound before anything else is begun, so that a taken port is an error and not half a node.
#[derive(Debug)]
pub(crate) struct Ports {
    shared: TcpListener,
    store: Option<TcpListener>,
}

impl Ports {
    pub(crate) async fn bind(config: &Config, elsewhere: &Elsewhere) -> Result<Self> {
        let shared = elsewhere.rest.spawn(bind(config.restapi.listen.clone()));
        let shared = shared.await??;
        let store = match config.raft().and_then(|raft| raft.listen.as_ref()) {
            Some(endpoint) => Some(elsewhere.store.spawn(bind(endpoint.clone())).await??),
            None => None,
        };
        Ok(Self { shared, store })
    }

    /// Serves until the process ends. Without a member there are no peers.
    pub(crate) fn serve(self, raft: Option<&RaftStore>, api: &Api, elsewhere: &Elsewhere) {
        if let (Some(listener), Some(raft)) = (self.store, raft) {
            let _there = elsewhere.store.enter();
            if let Err(error) = raft.serve(listener) {
                tracing::error!(%error, "the store's port can't be served");
            }
        }
        let (raft, api, store) = (raft.cloned(), api.clone(), elsewhere.store.clone());
        let silent = Arc::new(Strangers::new(SILENT_MAX));
        elsewhere.rest.spawn(async move {
            loop {
                match self.shared.accept().await {
                    Ok((stream, _)) => {
                        let (raft, api, store) = (raft.clone(), api.clone(), store.clone());
                        let silent = Arc::clone(&silent);
                        tokio::spawn(sort(stream, silent, raft, api, store));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }
}

async fn bind(endpoint: Endpoint) -> Result<TcpListener> {
    TcpListener::bind((endpoint.host.as_str(), endpoint.port))
        .await
        .with_context(|| format!("can't listen on {endpoint}"))
}

async fn sort(
    stream: TcpStream,
    silent: Arc<Strangers>,
    raft: Option<RaftStore>,
    api: Api,
    store: Handle,
) {
    let is_peer = {
        let from = stream.peer_addr().map(|address| address.ip());
        let mut silent = silent.enter(from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        tokio::select! {
            looked = tokio::time::timeout(FIRST_BYTES, is_peer(&stream)) => looked,
            () = silent.displaced() => return,
        }
    };
    match is_peer {
        Ok(Ok(true)) => {
            let Some(raft) = raft else {
                return tracing::debug!("a peer of an embedded store, which this node has not");
            };
            // On the store's thread for the rest of its life.
            match stream.into_std() {
                Ok(stream) => drop(store.spawn(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => raft.serve_connection(stream).await,
                        Err(error) => tracing::warn!(%error, "can't serve a peer"),
                    }
                })),
                Err(error) => tracing::warn!(%error, "can't serve a peer"),
            }
        }
        Ok(Ok(false)) => api.serve_connection(stream).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Looks at the first bytes without taking them.
async fn is_peer(stream: &TcpStream) -> std::io::Result<bool> {
    let preface = RaftStore::PREFACE;
    let mut first = [0; RaftStore::PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if first[..seen] != preface[..seen] || seen == 0 {
            return Ok(false);
        }
        if seen == preface.len() {
            return Ok(true);
        }
        // The preface's bytes come in one packet; a slow sender is looked at again until the limit.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
