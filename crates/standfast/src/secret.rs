//! What is derived from the cluster secret: the API's token and the passwords of Postgres roles.
//!
//! **Invariant:** nothing here has a printable form; what is derived does not lead back to the secret.

use crate::config::{Config, Password, StoreChoice};
use crate::exit::Failure;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

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

    /// The secret of the cluster that a node is configured for: the file, or, where etcd is the store and every password
    /// is configured, what all nodes can derive from those. A file of Patroni's has no other secret, and who knows these
    /// passwords needs none.
    pub(crate) fn of(config: &Config) -> Result<Self, store::SecretError> {
        let error = match Self::read(&config.secret_file) {
            Ok(secret) => return Ok(secret),
            Err(error) => error,
        };
        let absent = is_absent(&error);
        let passwords = config.postgresql.as_ref().and_then(|postgresql| {
            let superuser = postgresql.superuser.password.as_ref()?;
            let replication = postgresql.replication.password.as_ref()?;
            Some([superuser.expose(), replication.expose()])
        });
        match (&config.store, passwords) {
            (StoreChoice::Etcd(_), Some(passwords)) if absent => {
                Self::derived(&config.scope, passwords)
            }
            (StoreChoice::Etcd(_), None) if absent => Self::read(&Self::agreed_file(config)),
            _ => Err(error),
        }
    }

    /// Neither a file nor passwords say what the secret is: the nodes agree on one in etcd.
    pub(crate) fn is_to_be_agreed(config: &Config) -> bool {
        let postgresql = config.postgresql.as_ref();
        let has_passwords = postgresql.is_some_and(|postgresql| {
            postgresql.superuser.password.is_some() && postgresql.replication.password.is_some()
        });
        matches!(config.store, StoreChoice::Etcd(_))
            && !has_passwords
            && !config.secret_file.exists()
    }

    /// Where a node keeps the secret that was agreed on.
    pub(crate) fn agreed_file(config: &Config) -> PathBuf {
        config.state_dir.join("secret")
    }

    fn derived(scope: &str, passwords: [&str; 2]) -> Result<Self, store::SecretError> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(b"standfast cluster secret") else {
            unreachable!("HMAC accepts keys of every length")
        };
        for part in [scope, passwords[0], passwords[1]] {
            // With their lengths, so that no two lists of parts are the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let bytes = mac.finalize().into_bytes().to_vec();
        Ok(Self {
            store: store::Secret::new(&bytes)?,
            bytes,
        })
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

/// What keeps a node from its secret, with what to do about rights: root's file is not the file of who runs the node.
pub(crate) fn withheld(error: store::SecretError) -> anyhow::Error {
    match &error {
        store::SecretError::Read { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            let user = std::env::var("USER").unwrap_or_default();
            let whose = if user.is_empty() {
                String::new()
            } else {
                format!(", {user}")
            };
            let failure = Failure::error(format!("{error}: {source}"));
            failure
                .hint(format!(
                    "it must belong to the user who runs Standfast{whose}, with mode 0600"
                ))
                .into()
        }
        store::SecretError::Read { path, .. } if is_absent(&error) => {
            Failure::error(format!("cluster secret: {}", how_to_have(path))).into()
        }
        _ => anyhow::Error::new(error).context("cluster secret"),
    }
}

/// Whether there is no such file.
pub(crate) fn is_absent(error: &store::SecretError) -> bool {
    matches!(error, store::SecretError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// What to do about a secret that is not there.
pub(crate) fn how_to_have(file: &Path) -> String {
    let file = crate::create::quoted(file);
    format!(
        "{file} is not there: copy that of the cluster's other nodes, or make the first one, `openssl rand -hex 32 > {file} \
         && chmod 600 {file}`; it belongs to the user who runs Standfast"
    )
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
