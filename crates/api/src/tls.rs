//! HTTPS: the certificate of the REST port, read again when its files change.
//!
//! **Invariant:** what cannot be used never takes the place of what can.
//!
//! It doesn't know what is asked over a connection.

use certs::{Passphrase, TlsError, pem};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// The first byte of every TLS connection.
pub(crate) const FIRST_BYTE: u8 = 22;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Whether those who change something must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    #[default]
    None,
    /// For what changes something.
    Optional,
    /// For every HTTPS connection, and for what changes something by plain HTTP, where that is answered.
    Required,
}

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateOptions {
    /// In PEM, with those between it and its authority, if any.
    pub certificate: PathBuf,
    /// In PEM.
    pub key: PathBuf,
    /// Of the key, if it has one.
    pub passphrase: Option<Passphrase>,
    /// Those of which one must have signed a client's certificate.
    pub authority: Option<PathBuf>,
    pub verify: VerifyClient,
    /// Plain HTTP is answered too, on the same port.
    pub plain_http: bool,
}

/// Why there is no HTTPS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error(transparent)]
    File(#[from] TlsError),
    #[error("clients' certificates can't be verified without an authority: cafile")]
    NoAuthority,
    #[error("the certificate can't be used")]
    Unusable(#[source] rustls::Error),
}

/// The certificate in force. Clones are the same.
#[derive(Clone, Debug)]
pub struct Certificate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: CertificateOptions,
    current: Mutex<Current>,
    stamps: Mutex<Stamps>,
    watched: AtomicBool,
}

/// What was read of the files.
#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// When the first of the chain expires, in seconds since 1970; `None` where nobody can say.
    expires: Option<u64>,
}

/// What tells a file that was replaced from the one before.
type Stamps = Vec<Option<(u64, u64, i64, i64)>>;

impl Certificate {
    /// Reads the files. Blocks.
    pub fn load(options: CertificateOptions) -> Result<Self, CertificateError> {
        let stamps = stamps(&options);
        let current = configured(&options)?;
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                current: Mutex::new(current),
                stamps: Mutex::new(stamps),
                watched: AtomicBool::new(false),
            }),
        })
    }

    /// Reads the files again, changed or not. Blocks.
    pub fn reload(&self) -> Result<(), CertificateError> {
        self.shared.reload()
    }

    /// When the certificate expires, or one between it and its authority, in seconds since 1970.
    pub(crate) fn expires(&self) -> Option<u64> {
        lock(&self.shared.current).expires
    }

    pub(crate) fn allows_plain_http(&self) -> bool {
        self.shared.options.plain_http
    }

    pub(crate) fn verify(&self) -> VerifyClient {
        self.shared.options.verify
    }

    /// Sees to it that changed files are read, for as long as this is in use.
    fn watch(&self) {
        if !self.shared.watched.swap(true, Ordering::Relaxed) {
            tokio::spawn(watch(Arc::downgrade(&self.shared)));
        }
    }

    /// The handshake, and whether the client has shown a certificate; `None` where there is nobody to talk to.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<(TlsStream<TcpStream>, bool)> {
        self.watch();
        let config = Arc::clone(&lock(&self.shared.current).config);
        let accepting = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(HANDSHAKE, accepting).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates();
                let certified = shown.is_some_and(|chain| !chain.is_empty());
                Some((stream, certified))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

impl Shared {
    fn reload(&self) -> Result<(), CertificateError> {
        let seen = stamps(&self.options);
        let result = configured(&self.options).map(|current| *lock(&self.current) = current);
        // One that can't be used is tried again when it changes.
        *lock(&self.stamps) = seen;
        result
    }

    fn look(&self) {
        if *lock(&self.stamps) == stamps(&self.options) {
            return;
        }
        let certificate = self.options.certificate.display();
        match self.reload() {
            Ok(()) => tracing::info!(%certificate, "the REST certificate was read again"),
            Err(error) => tracing::warn!(
                %certificate,
                %error,
                "the changed REST certificate cannot be used, the one before stays in force"
            ),
        }
    }
}

async fn watch(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if tokio::task::spawn_blocking(move || shared.look())
            .await
            .is_err()
        {
            return;
        }
    }
}

fn configured(options: &CertificateOptions) -> Result<Current, CertificateError> {
    let provider = Arc::new(ring::default_provider());
    let chain = pem::certificates(&options.certificate)?;
    let expires = chain.iter().filter_map(pem::expires).min();
    let mine = pem::certified(
        &options.certificate,
        &options.key,
        options.passphrase.as_ref(),
        chain,
        &provider,
    )?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        // Members among themselves speak 1.3; a check or a script may know no more than 1.2.
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(CertificateError::Unusable)?;
    let builder = match (options.verify, &options.authority) {
        (VerifyClient::None, _) => builder.with_no_client_auth(),
        (VerifyClient::Optional | VerifyClient::Required, None) => {
            return Err(CertificateError::NoAuthority);
        }
        (verify, Some(authority)) => {
            let roots = Arc::new(pem::authority(authority)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if verify == VerifyClient::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| {
                CertificateError::Unusable(rustls::Error::General(error.to_string()))
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(mine)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    Ok(Current { config, expires })
}

fn stamps(options: &CertificateOptions) -> Stamps {
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    let files = [Some(&options.certificate), Some(&options.key)];
    let files = files.into_iter().chain([options.authority.as_ref()]);
    files.flatten().map(|path| stamp(path)).collect()
}

/// A panic elsewhere leaves these whole: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
