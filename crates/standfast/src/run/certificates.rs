//! Certificates between the store's members: read when the node starts, when they change, and when it is told to.

use crate::config::Config;
use anyhow::{Context as _, Result};
use api::Certificate;
use api::client::Trust;
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

/// That of the REST port.
pub(super) fn rest(config: &Config) -> Result<Option<Certificate>> {
    let options = config.restapi.certificate.clone();
    options
        .map(|options| Certificate::load(options).context("restapi.certfile"))
        .transpose()
}

/// For what agents ask each other.
pub(super) fn trust(config: &Config) -> Trust {
    let options = &config.trust;
    if config.restapi.certificate.is_some() && options.authority.is_none() && !options.insecure {
        tracing::warn!(
            "the authority of the members' REST certificates is not named (restapi.cafile or ctl.cacert): members are \
             believed that the system's authorities have signed, or that this node's own certificate file names"
        );
    }
    Trust::new(options.clone())
}

/// Reads the files of the REST port again, on a thread that a hung disk may keep.
pub(super) fn reload_rest(certificate: Option<&Certificate>) {
    let Some(certificate) = certificate.cloned() else {
        return;
    };
    tokio::task::spawn_blocking(move || match certificate.reload() {
        Ok(()) => tracing::info!("reloaded: restapi.certfile"),
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::error!(
                error = format!("{error:#}"),
                "the REST certificate cannot be used, the one before stays in force"
            );
        }
    });
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
