//! Certificates, keys and authorities, read from files in PEM.
//!
//! **Invariant:** a key that others may read is refused, and so is one that is not the certificate's.

use crate::TlsError;
use crate::passphrase::{self, Passphrase};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

/// More than any chain of certificates has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// In the year 9999: later than any certificate.
pub const NEVER: Duration = Duration::from_secs(253_000_000_000);

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
    let then = UnixTime::since_unix_epoch(NEVER);
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
