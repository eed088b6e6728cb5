//! `postgresql.auto.conf`: what ALTER SYSTEM wrote, read by Postgres after our file.
//!
//! **Invariant:** before every start it holds none of the parameters that are ours and stand in a file.

use crate::config::RELOADED;
use crate::error::PostgresError;
use crate::files;
use std::path::Path;

/// Removes our parameters from the file of a stopped instance; returns those that were there.
pub(crate) fn strip(data_dir: &Path) -> Result<Vec<&'static str>, PostgresError> {
    let path = data_dir.join("postgresql.auto.conf");
    let Some(text) = files::read_text(&path)? else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    let mut kept = String::new();
    for line in text.lines() {
        match owned(line) {
            Some(name) => removed.push(name),
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    if !removed.is_empty() {
        files::write_atomic(&path, kept.as_bytes())?;
    }
    Ok(removed)
}

/// Those of our parameters that the file sets.
pub(crate) fn overrides(data_dir: &Path) -> Result<Vec<&'static str>, PostgresError> {
    let text = files::read_text(&data_dir.join("postgresql.auto.conf"))?.unwrap_or_default();
    Ok(text.lines().filter_map(owned).collect())
}

/// The parameter of ours that a line sets.
fn owned(line: &str) -> Option<&'static str> {
    let name = line
        .trim_start()
        .split(|c: char| c == '=' || c.is_whitespace())
        .next()?;
    RELOADED
        .iter()
        .copied()
        .find(|ours| ours.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgresql.auto.conf");
        let text = "# Do not edit\nwork_mem = '8MB'\nSynchronous_Standby_Names = ''\nprimary_conninfo='x'\n";
        std::fs::write(&path, text).unwrap();
        let removed = strip(dir.path()).unwrap();
        assert_eq!(removed, ["synchronous_standby_names", "primary_conninfo"]);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "# Do not edit\nwork_mem = '8MB'\n"
        );
        assert!(strip(dir.path()).unwrap().is_empty());
    }
}
