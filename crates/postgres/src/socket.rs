//! Where the agent's own Unix socket lies: in the state directory, or, where its path would be longer than the kernel
//! takes, in a directory below `/tmp`.
//!
//! **Invariant:** nobody but our user can make, rename or remove anything in the socket's directory. The place follows
//! from the state directory and the user alone, so that the next agent finds the socket again.
//!
//! It does not lie in `/run/user`: that goes when its user logs out, and Postgres stays.

use crate::error::PostgresError;
use crate::files::private_dir;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// As many bytes a socket's path may have.
const PATH_BYTES_MAX: usize = 107;

/// The directory of the agent's own socket. The same for every port.
pub(crate) fn dir(state_dir: &Path) -> PathBuf {
    let usual = state_dir.join("socket");
    if path(&usual, u16::MAX).as_os_str().len() <= PATH_BYTES_MAX {
        return usual;
    }
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(state_dir.as_os_str().as_bytes());
    let name: String = digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    shared().join(name)
}

/// The socket in `dir` of a server with this port.
pub(crate) fn path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

/// Makes the directory, and sees to it that it is ours alone.
pub(crate) fn make_dir(dir: &Path) -> Result<(), PostgresError> {
    if let Some(above) = dir.parent().filter(|above| **above == shared()) {
        private_dir(above)?;
        check_ours(above)?;
    }
    private_dir(dir)
}

/// One for all nodes of our user.
fn shared() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    PathBuf::from(format!("/tmp/standfast-{user}"))
}

/// Below `/tmp` anybody may have been first.
fn check_ours(dir: &Path) -> Result<(), PostgresError> {
    let fail = |source| PostgresError::file("use for sockets", dir, source);
    let found = std::fs::symlink_metadata(dir).map_err(fail)?;
    let me = rustix::process::geteuid().as_raw();
    if found.is_dir() && found.uid() == me && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = "it must be a directory of our own user with mode 0700; set a shorter state_dir to do without it";
    Err(fail(io::Error::other(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn every_socket_has_a_path_that_the_kernel_takes() {
        for length in [1, 50, 80, 90, 200, 4000] {
            let state_dir = PathBuf::from(format!("/{}", "x".repeat(length)));
            let socket = path(&dir(&state_dir), u16::MAX);
            assert!(socket.as_os_str().len() <= PATH_BYTES_MAX, "{socket:?}");
            assert_eq!(
                socket.starts_with(&state_dir),
                length <= PATH_BYTES_MAX - "//socket/.s.PGSQL.65535".len(),
                "{socket:?}"
            );
        }
        let long = PathBuf::from("/y".repeat(60));
        assert_ne!(dir(&long), dir(&long.join("z")));
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let open = above.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o711)).unwrap();
        assert!(check_ours(&open).is_err());
        let link = above.path().join("link");
        std::os::unix::fs::symlink(above.path(), &link).unwrap();
        assert!(check_ours(&link).is_err(), "a link");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(check_ours(&open).is_ok());
    }
}
