//! TLS on both sides: certificates from files, and what a handshake makes sure of.
//!
//! **Invariant:** what cannot be used is refused when it is read, never at a handshake.
//!
//! It does not know when TLS begins; that is said by the protocol.

mod certificate;
mod trust;

pub(crate) use certificate::{EndPoint, common_name, end_point};

use certs::{TlsError, pem};
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ClientConfig, ServerConfig};

/// PostgreSQL's name for itself in a handshake.
pub(crate) const PROTOCOL: &[u8] = b"postgresql";

/// How much TLS is wanted; PgBouncer's and libpq's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    #[default]
    Disable,
    /// Plain first. For clients the same as `Prefer`.
    Allow,
    /// With TLS if the other side has it.
    Prefer,
    /// TLS or nothing; whose certificate it is does not matter.
    Require,
    /// The other side's certificate is of the authority.
    VerifyCa,
    /// And names the host; of a client: as `VerifyCa`.
    VerifyFull,
}

impl SslMode {
    pub fn is_required(self) -> bool {
        self >= Self::Require
    }

    pub fn verifies(self) -> bool {
        self >= Self::VerifyCa
    }
}

/// Where certificates are, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub mode: SslMode,
    /// Ours, with those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// Without a passphrase.
    pub key: Option<PathBuf>,
    /// Those of which one must have signed the other side's.
    pub authority: Option<PathBuf>,
}

/// Why files can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFilesError {
    #[error(transparent)]
    File(#[from] TlsError),
    #[error("TLS for clients needs a certificate and its key")]
    NoCertificate,
    #[error("a certificate and its key belong together")]
    OneOfTwo,
    #[error("nobody's certificate can be verified without an authority")]
    NoAuthority,
    #[error("the certificate can't be used")]
    Unusable(#[source] rustls::Error),
}

/// For those who connect to us. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    pub(crate) mode: SslMode,
    pub(crate) config: Option<Arc<ServerConfig>>,
    /// Of our certificate.
    pub(crate) end_point: Option<EndPoint>,
}

/// For those whom we connect to. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct ServerTls {
    pub(crate) mode: SslMode,
    pub(crate) config: Option<Arc<ClientConfig>>,
}

impl ClientTls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// What is in them can't be used.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsFilesError> {
        let mode = files.mode;
        if mode == SslMode::Disable {
            return Ok(Self::default());
        }
        let provider = Arc::new(ring::default_provider());
        let own = own(files, &provider)?.ok_or(TlsFilesError::NoCertificate)?;
        let end_point = own.cert.first().and_then(|leaf| end_point(leaf));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsFilesError::Unusable)?;
        let builder = match &files.authority {
            None if mode.verifies() => return Err(TlsFilesError::NoAuthority),
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(pem::authority(authority)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                // Rules may ask for one where the mode does not.
                if !mode.verifies() {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build().map_err(|error| {
                    TlsFilesError::Unusable(rustls::Error::General(error.to_string()))
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A resumed session would skip the look at a certificate; PostgreSQL resumes none either.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            mode,
            config: Some(Arc::new(config)),
            end_point,
        })
    }
}

impl ServerTls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// What is in them can't be used.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsFilesError> {
        let mode = files.mode;
        if mode == SslMode::Disable {
            return Ok(Self::default());
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = match &files.authority {
            None if mode.verifies() => return Err(TlsFilesError::NoAuthority),
            Some(authority) if mode.verifies() => {
                let roots = Arc::new(pem::authority(authority)?);
                trust::of_authority(roots, &provider, mode == SslMode::VerifyFull)?
            }
            _ => trust::anybody(&provider),
        };
        let own = own(files, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsFilesError::Unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            mode,
            config: Some(Arc::new(config)),
        })
    }
}

fn own(files: &TlsFiles, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, TlsFilesError> {
    let (certificate, key) = match (&files.certificate, &files.key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(TlsFilesError::OneOfTwo),
    };
    let chain = pem::certificates(certificate)?;
    let own = pem::certified(certificate, key, None, chain, provider)?;
    Ok(Some(own))
}
