//! Whom to believe over TLS, and what to show of oneself.
//!
//! **Invariant:** without `insecure` nobody is believed who does not prove a certificate that an authority signed, or
//! that is itself in the file of authorities, and without `any_name` for the very name that was asked.
//!
//! Files are read when they are needed first, and again after a connection that came to nothing.

use crate::passphrase::Passphrase;
use crate::{TlsError, pem};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

/// Where distributions keep the authorities that everybody believes.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// What is told of the other side's certificates, and of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustOptions {
    /// Authorities in PEM, or the very certificates of the others; `None`: the system's, and what stands in one's own.
    pub authority: Option<PathBuf>,
    /// Certificate and key that are shown to who asks.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Of that key, if it has one.
    pub passphrase: Option<Passphrase>,
    /// Whoever answers is believed.
    pub insecure: bool,
    /// A certificate may be for another name than the one that was asked.
    pub any_name: bool,
}

/// Why there was no conversation by TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    #[error("{}", chain(.0))]
    File(#[from] TlsError),
    #[error("no authority is known that could have signed its certificate")]
    NoAuthority,
    #[error("{0:?} can't stand in a certificate")]
    Name(String),
    #[error("{}", refusal(.0))]
    Refused(#[source] std::io::Error),
    #[error("the certificate can't be used: {0}")]
    Unusable(rustls::Error),
}

/// Whom a client believes. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    options: TrustOptions,
    read: Mutex<Option<Arc<ClientConfig>>>,
}

impl Trust {
    pub fn new(options: TrustOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                read: Mutex::default(),
            }),
        }
    }

    /// The files are read again before the next connection.
    pub fn forget(&self) {
        *lock(&self.shared.read) = None;
    }

    /// For other protocols than HTTP, and TLS 1.2 beside 1.3. The files are read anew.
    ///
    /// # Errors
    /// The files can't be used.
    pub async fn tls(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let mut config = self.read(vec![&TLS13, &TLS12]).await?;
        config.alpn_protocols.clear();
        Ok(Arc::new(config))
    }

    /// A conversation by HTTPS with `host`.
    ///
    /// # Errors
    /// The files can't be used, or the other side is not believed.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TrustError> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| TrustError::Name(host.to_owned()))?;
        let config = self.config().await?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(TrustError::Refused)
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        if let Some(read) = lock(&self.shared.read).clone() {
            return Ok(read);
        }
        // Members speak 1.3.
        let config = Arc::new(self.read(vec![&TLS13]).await?);
        *lock(&self.shared.read) = Some(Arc::clone(&config));
        Ok(config)
    }

    async fn read(
        &self,
        versions: Vec<&'static SupportedProtocolVersion>,
    ) -> Result<ClientConfig, TrustError> {
        // A disk may hang.
        let options = self.shared.options.clone();
        let reading = tokio::task::spawn_blocking(move || configured(&options, &versions));
        reading.await.map_err(|_| TrustError::NoAuthority)?
    }
}

fn configured(
    options: &TrustOptions,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(options, &provider)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(TrustError::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = pem::certificates(certificate)?;
            let mine = pem::certified(
                certificate,
                key,
                options.passphrase.as_ref(),
                chain,
                &provider,
            )?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(mine)))
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Authorities, or none at all.
struct Verifier {
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    /// Believed as they are, as OpenSSL does: a certificate that signed itself is often its own authority.
    listed: Vec<CertificateDer<'static>>,
    any_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(options: &TrustOptions, provider: &Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let (roots, listed) = match (&options.authority, options.insecure) {
            (_, true) => (None, Vec::new()),
            (Some(file), false) => (Some(pem::authority(file)?), pem::certificates(file)?),
            (None, false) => {
                let mine = options
                    .own
                    .as_ref()
                    .map(|(file, _)| pem::certificates(file));
                let mine = mine.transpose()?.unwrap_or_default();
                (Some(usual(&mine)?), mine)
            }
        };
        let by_authority = roots.map(|roots| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| TrustError::Unusable(rustls::Error::General(error.to_string())))
        });
        Ok(Self {
            by_authority: by_authority.transpose()?,
            listed,
            any_name: options.any_name,
            provider: Arc::clone(provider),
        })
    }
}

fn usual(mine: &[CertificateDer<'static>]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = SYSTEM.iter().map(Path::new).find(|file| file.exists()) {
        roots.add_parsable_certificates(pem::certificates(file)?);
    }
    roots.add_parsable_certificates(mine.iter().cloned());
    match roots.is_empty() {
        true => Err(TrustError::NoAuthority),
        false => Ok(roots),
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(by_authority) = &self.by_authority else {
            return Ok(ServerCertVerified::assertion());
        };
        let error = match by_authority.verify_server_cert(certificate, between, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        // Names are looked at last.
        let named = !matches!(
            error,
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            )
        );
        if self.any_name && !named {
            return Ok(ServerCertVerified::assertion());
        }
        // Its dates are looked at before anything else is.
        let dated = matches!(
            error,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
                    | CertificateError::BadEncoding
            )
        );
        if dated || !self.listed.iter().any(|listed| listed == certificate) {
            return Err(error);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        if !self.any_name {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A file's complaint with its cause.
fn chain(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// In words of who can mend it.
fn refusal(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => why,
        Some(rustls::Error::InvalidMessage(_)) => return "it does not speak HTTPS".to_owned(),
        _ => return error.to_string(),
    };
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of no authority that is believed here".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name than the one that was asked".to_owned()
        }
        other => format!("its certificate is not believed: {other}"),
    }
}

/// A panic elsewhere leaves it whole: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
