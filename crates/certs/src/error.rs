//! Why files give no usable certificates, in words of who can mend it.
//!
//! **Invariant:** no error holds anything of a key's file but its name.

use std::io;
use std::path::PathBuf;
use tokio_rustls::rustls::Error;

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
pub fn moment(seconds: u64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(timestamp.to_string())
}

/// " at …", or nothing when the moment is not known.
pub fn since(ended: Option<u64>) -> String {
    ended
        .and_then(moment)
        .map_or_else(String::new, |at| format!(" at {at}"))
}

/// " before …", or " yet" when the moment is not known.
pub fn before(begins: Option<u64>) -> String {
    begins
        .and_then(moment)
        .map_or_else(|| " yet".to_owned(), |at| format!(" before {at}"))
}
