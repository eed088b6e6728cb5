//! Certificates for the store's members, as `create` is told of them.
//!
//! **Invariant:** a node that has them does not lose them because a later `create` does not name them.

use super::path_value;
use crate::config::{Config, Raft};
use serde_json::{Value, json};
use std::path::PathBuf;
use store::{Tls, TlsOptions};

/// The three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: PathBuf,
}

impl StoreFiles {
    fn options(&self, host: &str) -> TlsOptions {
        TlsOptions {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authority: self.authority.clone(),
            host: Some(host.to_owned()),
            required: true,
        }
    }
}

/// Whether a configuration has what is asked for; who asks for nothing gets what there is.
pub(super) fn is_same(asked: Option<&StoreFiles>, config: &Config) -> bool {
    asked.is_none_or(|files| {
        let is_so = |raft: &Raft| raft.tls == Some(files.options(&raft.advertise.host));
        config.raft().is_some_and(is_so)
    })
}

/// `store.raft.tls`, with certificates that the other members will accept for `host`.
pub(super) fn section(
    asked: Option<&StoreFiles>,
    before: Option<&Config>,
    host: &str,
) -> anyhow::Result<Option<Value>> {
    let kept = before.and_then(|config| config.raft()?.tls.clone());
    let kept = kept.map(|options| TlsOptions {
        host: Some(host.to_owned()),
        ..options
    });
    let Some(options) = asked.map(|files| files.options(host)).or(kept) else {
        return Ok(None);
    };
    Tls::load(options.clone())?;
    let mut section = json!({
        "cert_file": path_value(&options.certificate)?,
        "key_file": path_value(&options.key)?,
        "ca_file": path_value(&options.authority)?,
    });
    if !options.required {
        section["required"] = false.into();
    }
    Ok(Some(section))
}
