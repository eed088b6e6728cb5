//! Certificates for the store's members and for REST, as `create` is told of them.
//!
//! **Invariant:** a node that has them does not lose them because a later `create` does not name them.

use super::path_value;
use crate::config::{Config, Endpoint, Raft};
use crate::exit::Failure;
use api::client::TrustOptions;
use api::{CertificateOptions, VerifyClient};
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

    /// For asking members whose REST ports have certificates of the same authority.
    pub(super) fn trust(&self) -> TrustOptions {
        TrustOptions {
            authority: Some(self.authority.clone()),
            own: Some((self.certificate.clone(), self.key.clone())),
            ..TrustOptions::default()
        }
    }
}

/// Whether a configuration has what is asked for; who asks for nothing gets what there is.
pub(super) fn is_same(asked: Option<&StoreFiles>, rest: bool, config: &Config) -> bool {
    let stored = asked.is_none_or(|files| {
        let is_so = |raft: &Raft| raft.tls == Some(files.options(&raft.advertise.host));
        config.raft().is_some_and(is_so)
    });
    let shared = || {
        let tls = config.raft()?.tls.as_ref()?;
        let rest = config.restapi.certificate.as_ref()?;
        let same = rest.certificate == tls.certificate && rest.key == tls.key;
        Some(same && rest.authority.as_ref() == Some(&tls.authority))
    };
    stored && (!rest || shared() == Some(true))
}

/// What `restapi` is to say of HTTPS: by `--rest-tls` the files of `tls`, the section of the store; else what there is.
pub(super) fn rest(
    asked: bool,
    tls: Option<&Value>,
    before: Option<&Config>,
) -> anyhow::Result<Vec<(&'static str, Value)>> {
    if asked {
        let Some(tls) = tls else {
            let failure = Failure::usage("--rest-tls: this node has no certificate");
            return Err(failure
                .hint("name one with --store-cert-file, --store-key-file and --store-ca-file")
                .into());
        };
        let files = [
            ("certfile", "cert_file"),
            ("keyfile", "key_file"),
            ("cafile", "ca_file"),
        ];
        return Ok(files.map(|(key, of)| (key, tls[of].clone())).into());
    }
    let kept = before.and_then(|config| config.restapi.certificate.as_ref());
    kept.map_or_else(|| Ok(Vec::new()), kept_rest)
}

/// The same as it is in a configuration.
fn kept_rest(options: &CertificateOptions) -> anyhow::Result<Vec<(&'static str, Value)>> {
    if options.passphrase.is_some() {
        let what = "restapi.keyfile_password is in the file, and would be lost";
        return Err(Failure::refused(what)
            .hint("change the file by hand")
            .into());
    }
    let mut kept = vec![
        ("certfile", path_value(&options.certificate)?),
        ("keyfile", path_value(&options.key)?),
    ];
    if let Some(authority) = &options.authority {
        kept.push(("cafile", path_value(authority)?));
    }
    match options.verify {
        VerifyClient::None => {}
        VerifyClient::Optional => kept.push(("verify_client", "optional".into())),
        VerifyClient::Required => kept.push(("verify_client", "required".into())),
    }
    if options.plain_http {
        kept.push(("plain_http", true.into()));
    }
    Ok(kept)
}

/// `restapi` of a file.
pub(super) fn restapi(
    listen: &Endpoint,
    connect: &Endpoint,
    https: &[(&'static str, Value)],
) -> Value {
    let mut section = json!({
        "listen": listen.to_string(),
        "connect_address": connect.to_string(),
    });
    for (key, value) in https {
        section[*key] = value.clone();
    }
    section
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
