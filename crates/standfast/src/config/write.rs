//! A configuration file, as `create` writes it.
//!
//! **Invariant:** the file appears whole or not at all, and is nobody's but its owner's.

use serde_json::{Map, Value};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes `values` as YAML below a comment, atomically and durably, with mode 0600.
pub(crate) fn write_file(
    file: &Path,
    comment: &str,
    values: &Map<String, Value>,
) -> io::Result<()> {
    let mut text = String::new();
    for line in comment.lines() {
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&serde_saphyr::to_string(values).map_err(io::Error::other)?);
    write_private(file, text.as_bytes())
}

/// Replaces a file's content: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> io::Result<()> {
    let Some(dir) = file.parent() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = dir.join(name);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut open| open.write_all(content).and_then(|()| open.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, file))
        .and_then(|()| std::fs::File::open(dir)?.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/standfast.yml");
        let values = serde_json::json!({ "scope": "no", "n": 1, "list": ["x: y", "0600"], "m": { "k": true } });
        let Value::Object(values) = values else {
            panic!()
        };
        write_file(&file, "two\nlines", &values).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# two\n# lines\n\n"), "{text}");
        let tree = super::super::tree::parse(&text).unwrap();
        assert_eq!(tree.to_json(), Value::Object(values));
        assert_eq!(
            std::fs::read_dir(file.parent().unwrap()).unwrap().count(),
            1
        );
    }
}
