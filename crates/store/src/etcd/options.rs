//! Where an etcd cluster is, and how to be let in.

use certs::TlsError;
use certs::pem::{authority, certificates, certified};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// Everything an [`crate::EtcdStore`] wants to know.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `host:port` of members; one that answers is enough.
    pub members: Vec<String>,
    /// Where DNS names members, besides.
    pub srv: Option<EtcdSrv>,
    /// Whether the cluster is asked for its other members, which are then asked too.
    pub discover: bool,
    /// What every key of ours begins with: what we may surely read.
    pub prefix: String,
    pub tls: Option<EtcdTls>,
    pub login: Option<EtcdLogin>,
    /// How long any call may take.
    pub request_timeout: Duration,
}

impl EtcdOptions {
    pub fn new(members: Vec<String>, prefix: impl Into<String>) -> Self {
        Self {
            members,
            srv: None,
            discover: false,
            prefix: prefix.into(),
            tls: None,
            login: None,
            request_timeout: Duration::from_secs(1),
        }
    }
}

/// A domain whose SRV records name members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSrv {
    pub domain: String,
    /// Behind the service's name: `lab` for `_etcd-client-lab._tcp`.
    pub suffix: Option<String>,
}

/// Files for TLS. They are read again for every new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// The certificates in PEM of which one must have signed every member's.
    pub authority: PathBuf,
    /// Our own certificate with its key, both in PEM, where etcd asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl EtcdTls {
    /// Whether the files can be used. Blocks.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load().map(drop)
    }

    /// Blocks.
    pub(super) fn load(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = authority(&self.authority)?;
        let damaged = |source| TlsError::Damaged {
            path: self.authority.clone(),
            source,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(damaged)?
            .with_root_certificates(roots);
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let mine = certified(certificate, key, None, chain, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(mine)))
            }
        };
        Ok(config)
    }
}

/// A user of etcd. The password has no printable form.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for EtcdLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdLogin({})", self.user)
    }
}
