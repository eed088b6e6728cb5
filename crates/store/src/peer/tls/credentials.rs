//! Certificate, key and authority: from files to what a handshake needs.
//!
//! **Invariant:** credentials exist only if the other members would accept them now: the certificate is of the
//! authority, in force, fit for both sides of a connection, names this node, and belongs to the key.
//! No error holds anything of the key's file but its name.

use super::TlsOptions;
use super::passphrase::{self, Passphrase};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
};

/// More than any chain of certificates has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why files give no usable certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the key {} may be read by others (mode {mode:04o}): chmod 600 it", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{} holds no certificate in PEM", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds no private key in PEM", path.display())]
    NoKey { path: PathBuf },
    #[error("the key {} can't be opened: {why}", path.display())]
    Locked { path: PathBuf, why: String },
    #[error("the key {} is not usable: an RSA, ECDSA P-256 or P-384, or Ed25519 key is", path.display())]
    UnusableKey { path: PathBuf },
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("a certificate in {} is damaged", path.display())]
    Damaged { path: PathBuf, source: Error },
    #[error(
        "the certificate {} expired{}: put a new one in its place",
        path.display(),
        since(*ended)
    )]
    Expired { path: PathBuf, ended: Option<u64> },
    #[error(
        "the certificate {} is not valid{}: check this machine's clock",
        path.display(),
        before(*begins)
    )]
    NotValidYet { path: PathBuf, begins: Option<u64> },
    #[error(
        "the certificate {} is not of the authority {}: have it signed by that, or name the authority that signed it",
        certificate.display(),
        authority.display()
    )]
    OtherAuthority {
        certificate: PathBuf,
        authority: PathBuf,
    },
    #[error(
        "the certificate {} is not meant for both sides of a connection: its extended key usage must be serverAuth and clientAuth, or left out",
        path.display()
    )]
    OtherPurpose { path: PathBuf },
    #[error(
        "the certificate {} does not name {host}, under which the others reach this node: its subjectAltName must",
        path.display()
    )]
    OtherName { path: PathBuf, host: String },
    #[error("the certificate {} would be refused by the others", path.display())]
    Refused { path: PathBuf, source: Error },
}

/// A moment as people write it, if it is one.
pub(super) fn moment(seconds: u64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(timestamp.to_string())
}

/// " at …", or nothing when the moment is not known.
pub(super) fn since(ended: Option<u64>) -> String {
    ended
        .and_then(moment)
        .map_or_else(String::new, |at| format!(" at {at}"))
}

/// " before …", or " yet" when the moment is not known.
pub(super) fn before(begins: Option<u64>) -> String {
    begins
        .and_then(moment)
        .map_or_else(|| " yet".to_owned(), |at| format!(" before {at}"))
}

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

/// A chain with its private key, whose file only its owner may read.
pub fn certified(
    certificate: &Path,
    private: &Path,
    passphrase: Option<&Passphrase>,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let unusable = || TlsError::UnusableKey {
        path: private.to_owned(),
    };
    let key = provider
        .key_provider
        .load_private_key(key(private, passphrase)?)
        .map_err(|_| unusable())?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsError::KeyMismatch {
            key: private.to_owned(),
            certificate: certificate.to_owned(),
        }),
        Err(Error::InconsistentKeys(_)) => Err(unusable()),
        Err(source) => Err(TlsError::Damaged {
            path: certificate.to_owned(),
            source,
        }),
    }
}

/// Every certificate of a file in PEM; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (bytes, _) = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(TlsError::NoCertificate {
            path: path.to_owned(),
        }),
    }
}

/// When a certificate expires, in seconds since 1970; `None` where nobody can say.
pub fn expires(certificate: &CertificateDer<'static>) -> Option<u64> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).ok()?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .ok()?;
    // Dates are looked at first: in the year 9999 it has expired, whatever else is wrong with it.
    let then = UnixTime::since_unix_epoch(super::NEVER);
    let name = ServerName::try_from("localhost").ok()?;
    match verifier.verify_server_cert(certificate, &[], &name, &[], then) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

/// The authorities of a file in PEM.
pub fn authority(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Damaged {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

/// As PostgreSQL asks of its own: the owner's alone, or root's and its group's.
fn key(path: &Path, passphrase: Option<&Passphrase>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (mut bytes, metadata) = read(path)?;
    let (mode, allowed) = match metadata.uid() {
        0 => (metadata.mode(), 0o640),
        _ => (metadata.mode(), 0o600),
    };
    if mode & 0o077 & !allowed != 0 {
        return Err(TlsError::TooOpen {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    if passphrase::is_locked(&bytes) {
        let Some(passphrase) = passphrase else {
            return Err(TlsError::Locked {
                path: path.to_owned(),
                why: "it has a passphrase, and none is given".to_owned(),
            });
        };
        bytes = passphrase::open(path, passphrase)?;
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::NoKey {
        path: path.to_owned(),
    })
}

fn read(path: &Path) -> Result<(Vec<u8>, std::fs::Metadata), TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok((bytes, metadata))
}

/// `now`, so much later.
pub(super) fn later(now: UnixTime, span: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + span)
}
