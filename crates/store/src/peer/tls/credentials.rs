//! Certificate, key and authority: from files to what a handshake needs.
//!
//! **Invariant:** credentials exist only if the other members would accept them now: the certificate is of the
//! authority, in force, fit for both sides of a connection, names this node, and belongs to the key.

use super::TlsOptions;
use certs::TlsError;
use certs::pem::{authority, certificates, certified};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, ServerConfig};

pub(super) struct Credentials {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    as_client: Arc<dyn ClientCertVerifier>,
    as_server: Arc<WebPkiServerVerifier>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// `now` is the calendar's.
    pub(super) fn load(options: &TlsOptions, now: UnixTime) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&options.certificate)?;
        let roots = Arc::new(authority(&options.authority)?);
        let damaged = |source| TlsError::Damaged {
            path: options.authority.clone(),
            source,
        };
        let as_client =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| damaged(Error::General(error.to_string())))?;
        let as_server = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| damaged(Error::General(error.to_string())))?;
        let mine = certified(
            &options.certificate,
            &options.key,
            None,
            chain.clone(),
            &provider,
        )?;
        let mine = Arc::new(SingleCertAndKey::from(mine));
        let refused = |source| TlsError::Refused {
            path: options.certificate.clone(),
            source,
        };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?
            .with_webpki_verifier(Arc::clone(&as_server))
            .with_client_cert_resolver(Arc::clone(&mine) as _);
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?
            .with_client_cert_verifier(Arc::clone(&as_client))
            .with_cert_resolver(mine);
        // A resumed session would skip the look at the certificate, which may have expired since.
        client.resumption = Resumption::disabled();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let credentials = Self {
            client: Arc::new(client),
            server: Arc::new(server),
            chain,
            as_client,
            as_server,
        };
        credentials.check(options, now)?;
        Ok(credentials)
    }

    /// Whether the others would accept this node's certificate at `now`.
    pub(super) fn check(&self, options: &TlsOptions, now: UnixTime) -> Result<(), TlsError> {
        let Some((first, between)) = self.chain.split_first() else {
            return Err(TlsError::NoCertificate {
                path: options.certificate.clone(),
            });
        };
        self.as_client
            .verify_client_cert(first, between, now)
            .map_err(|error| refusal(options, error))?;
        let Some(host) = &options.host else {
            return Ok(());
        };
        let other_name = || TlsError::OtherName {
            path: options.certificate.clone(),
            host: host.clone(),
        };
        let name = ServerName::try_from(host.as_str()).map_err(|_| other_name())?;
        self.as_server
            .verify_server_cert(first, between, &name, &[], now)
            .map_err(|error| refusal(options, error))?;
        Ok(())
    }

    /// When the certificate expires, if that is before `soon`.
    pub(super) fn ends_before(&self, options: &TlsOptions, soon: UnixTime) -> Option<u64> {
        match self.check(options, soon) {
            Err(TlsError::Expired { ended, .. }) => Some(ended.unwrap_or(soon.as_secs())),
            Ok(()) | Err(_) => None,
        }
    }
}

fn refusal(options: &TlsOptions, error: Error) -> TlsError {
    let path = options.certificate.clone();
    let Error::InvalidCertificate(why) = &error else {
        return TlsError::Refused {
            path,
            source: error,
        };
    };
    match why {
        CertificateError::Expired => TlsError::Expired { path, ended: None },
        CertificateError::ExpiredContext { not_after, .. } => TlsError::Expired {
            path,
            ended: Some(not_after.as_secs()),
        },
        CertificateError::NotValidYet => TlsError::NotValidYet { path, begins: None },
        CertificateError::NotValidYetContext { not_before, .. } => TlsError::NotValidYet {
            path,
            begins: Some(not_before.as_secs()),
        },
        // An authority that was made anew under its old name signs otherwise.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            TlsError::OtherAuthority {
                certificate: path,
                authority: options.authority.clone(),
            }
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            TlsError::OtherPurpose { path }
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsError::OtherName {
                path,
                host: options.host.clone().unwrap_or_default(),
            }
        }
        CertificateError::BadEncoding => TlsError::Damaged {
            path,
            source: error,
        },
        _ => TlsError::Refused {
            path,
            source: error,
        },
    }
}

/// `now`, so much later.
pub(super) fn later(now: UnixTime, span: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + span)
}
