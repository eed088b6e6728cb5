//! What is derived from the cluster secret: the API's token and the passwords of Postgres roles.
//!
//! **Invariant:** nothing here has a printable form; what is derived does not lead back to the secret.

use crate::config::Password;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::{self, Write as _};
use std::path::Path;

/// The cluster secret, as the binary uses it.
#[derive(Clone)]
pub(crate) struct ClusterSecret {
    store: store::Secret,
    bytes: Vec<u8>,
}

impl ClusterSecret {
    /// Reads the file; refuses one that others can read.
    pub(crate) fn read(path: &Path) -> Result<Self, store::SecretError> {
        let store = store::Secret::read(path)?;
        let read = |source| store::SecretError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::read(path).map_err(read)?.trim_ascii().to_vec();
        Ok(Self { store, bytes })
    }

    /// For the store's peers.
    pub(crate) fn for_store(&self) -> store::Secret {
        self.store.clone()
    }

    /// What the API's callers prove themselves with.
    pub(crate) fn api_token(&self) -> api::Token {
        api::Token::derive(&self.bytes)
    }

    /// The password of a Postgres role that has none configured: every member derives the same one.
    pub(crate) fn password_of(&self, role: &str) -> Password {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.bytes) else {
            unreachable!("HMAC accepts keys of every length")
        };
        mac.update(role.as_bytes());
        let mut hex = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(hex, "{byte:02x}");
        }
        Password::new(hex)
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn roles_and_token_differ_and_do_not_print() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = ClusterSecret::read(&file).unwrap();
        assert_eq!(secret.password_of("postgres").expose().len(), 64);
        assert_eq!(format!("{:?}", secret.api_token()), "Token(..)");
        assert_ne!(
            secret.password_of("replicator"),
            secret.password_of("postgres")
        );
        assert_eq!(format!("{secret:?}"), "ClusterSecret(..)");
    }
}
