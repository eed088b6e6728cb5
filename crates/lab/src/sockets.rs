//! Sockets that killed postmasters leave in the directories that all clusters of a machine share.

use std::fs;
use std::path::Path;

/// Removes those whose lock files name a data directory below `base`.
pub(crate) fn sweep(base: &Path) {
    for shared in ["/var/run/postgresql", "/tmp"] {
        for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let socket = name.to_str().and_then(|name| name.strip_suffix(".lock"));
            let Some(socket) = socket.filter(|name| name.starts_with(".s.PGSQL.")) else {
                continue;
            };
            let lock = fs::read_to_string(entry.path()).unwrap_or_default();
            let data_dir = lock.lines().nth(1);
            if data_dir.is_some_and(|dir| Path::new(dir).starts_with(base)) {
                let _ = fs::remove_file(Path::new(shared).join(socket));
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
