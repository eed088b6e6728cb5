//! Certificates between the store's members: read when the node starts, when they change, and when it is told to.

use crate::config::Config;
use anyhow::{Context as _, Result};
use store::Tls;

pub(super) fn load(config: &Config) -> Result<Option<Tls>> {
    let Some(options) = config.raft().and_then(|raft| raft.tls.as_ref()) else {
        return Ok(None);
    };
    let tls = Tls::load(options.clone()).context("store.raft.tls")?;
    if !options.required {
        tracing::warn!(
            "store.raft.tls.required is false: peers without TLS are let in, and what they and this node say is not encrypted"
        );
    }
    Ok(Some(tls))
}

/// Reads the files again, on a thread that a hung disk may keep.
pub(super) fn reload(tls: Option<&Tls>) {
    let Some(tls) = tls.cloned() else { return };
    tokio::task::spawn_blocking(move || match tls.reload() {
        Ok(()) => tracing::info!("reloaded: the certificates of store.raft.tls"),
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::error!(
                error = format!("{error:#}"),
                "the certificates cannot be used, those read before stay in force"
            );
        }
    });
}
