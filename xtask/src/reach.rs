//! Where root's tests are built: PostgreSQL refuses root, so they run themselves again as `postgres`, who must be able
//! to reach their programs. It can't in a tree below a `/root` of mode 0700.

use anyhow::{Context, Result, ensure};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everybody may enter it, and only root may write to it.
const ELSEWHERE: &str = "/var/tmp/standfast-target";

/// The target directory to take, if the usual one is out of reach.
pub(crate) fn target_dir() -> Result<Option<PathBuf>> {
    let usual = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let usual = usual.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    if !is_root() || is_open(&usual) {
        return Ok(None);
    }
    let elsewhere = Path::new(ELSEWHERE);
    let made = DirBuilder::new().mode(0o755).create(elsewhere);
    let found = fs::symlink_metadata(elsewhere)
        .with_context(|| format!("{ELSEWHERE} can't be made: {made:?}"))?;
    ensure!(
        found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0,
        "{ELSEWHERE} must be a directory that only root may write to"
    );
    Ok(Some(elsewhere.to_owned()))
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout == b"0\n")
}

/// Whether everybody may enter a directory and all above it.
fn is_open(directory: &Path) -> bool {
    let present = directory.ancestors().find_map(|it| it.canonicalize().ok());
    present.is_some_and(|present| {
        present
            .ancestors()
            .all(|above| fs::metadata(above).is_ok_and(|metadata| metadata.mode() & 0o001 != 0))
    })
}

#[cfg(test)]
mod tests {
    use super::is_open;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    #[test]
    fn a_directory_below_a_closed_one_is_out_of_reach() {
        assert!(is_open(Path::new("/usr/bin")));
        let name = format!("standfast-reach-{}", std::process::id());
        let closed = std::env::temp_dir().join(name);
        std::fs::create_dir(&closed).expect("a directory");
        set_permissions(&closed, Permissions::from_mode(0o700)).expect("a mode");
        let inside = is_open(&closed.join("target/that/is/not/there"));
        let removed = std::fs::remove_dir(&closed);
        assert!(!inside && removed.is_ok());
    }
}
