//! The cluster secret: what every member must know to be one.
//!
//! **Invariant:** a secret has no printable form; its file is nobody's but the owner's.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes shared by all members. Cheap to clone, impossible to print.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

/// Why a file gives no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    #[error("cannot read the cluster secret {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the cluster secret {} is readable by others: chmod 600 it", path.display())]
    TooOpen { path: PathBuf },
    #[error("the cluster secret {} has {found} bytes, which is not {} to {}", path.display(), Secret::LENGTH_MIN, Secret::LENGTH_MAX)]
    Length { path: PathBuf, found: u64 },
    #[error(
        "a cluster secret of {found} bytes is not {} to {} bytes long",
        Secret::LENGTH_MIN,
        Secret::LENGTH_MAX
    )]
    TooShort { found: usize },
}

impl Secret {
    pub const LENGTH_MIN: usize = 16;
    pub const LENGTH_MAX: usize = 4096;

    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if (Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(SecretError::TooShort { found: bytes.len() })
        }
    }

    /// A new secret, as the text that belongs in its file.
    pub fn generate() -> String {
        let bytes: [u8; 32] = rand::random();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a secret. White space around it does not count, so that an editor's last newline is harmless.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        // Asked of the open file, so that nobody can swap it in between.
        let metadata = file.metadata().map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(SecretError::TooOpen {
                path: path.to_owned(),
            });
        }
        if metadata.len() > Self::LENGTH_MAX as u64 {
            return Err(SecretError::Length {
                path: path.to_owned(),
                found: metadata.len(),
            });
        }
        let mut bytes = Vec::new();
        file.by_ref()
            .take(Self::LENGTH_MAX as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let trimmed = bytes.trim_ascii();
        Self::new(trimmed).map_err(|_| SecretError::Length {
            path: path.to_owned(),
            found: trimmed.len() as u64,
        })
    }

    /// HMAC-SHA-256 keyed with this secret.
    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        keyed(&self.0)
    }
}

/// HMAC-SHA-256 takes a key of any length.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC accepts keys of every length"),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode set");
        (dir, path)
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new(b"sixteen bytes or so").expect("long enough");
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(..) Secret(..)");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o666, 0o610] {
            let (_dir, path) = file(&Secret::generate(), mode);
            let error = Secret::read(&path).expect_err("too open");
            assert!(
                matches!(error, SecretError::TooOpen { .. }),
                "{mode:o}: {error}"
            );
        }
        for mode in [0o600, 0o400] {
            let (_dir, path) = file(&Secret::generate(), mode);
            Secret::read(&path).expect("private");
        }
    }

    #[test]
    fn white_space_around_a_secret_does_not_count() {
        let (_one, bare) = file("0123456789abcdef", 0o600);
        let (_two, edited) = file("\n 0123456789abcdef \n", 0o600);
        assert_eq!(
            Secret::read(&bare).expect("read").0,
            Secret::read(&edited).expect("read").0
        );
    }

    #[test]
    fn short_long_and_missing_secrets_are_refused() {
        for text in ["", "short", "            \n", &"x".repeat(5000)] {
            let (_dir, path) = file(text, 0o600);
            let error = Secret::read(&path).expect_err("bad length");
            assert!(matches!(error, SecretError::Length { .. }), "{error}");
        }
        assert!(matches!(
            Secret::read(Path::new("/nonexistent")),
            Err(SecretError::Read { .. })
        ));
    }
}
