//! The PostgreSQL programs: where they are and of which version.

use crate::error::PostgresError;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Majors that this crate knows how to run.
const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

/// A directory with the programs of one PostgreSQL version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
    pub minor: u32,
    /// As the program prints it, `15.18 (Debian …)`.
    pub version: String,
}

impl Binaries {
    /// The programs in `explicit` (a directory, or the path of pg_ctl or postgres), or those found in `PATH` and
    /// below `/usr/lib/postgresql`, newest first; `major` restricts the search to a data directory's version.
    pub fn find(explicit: Option<&Path>, major: Option<u32>) -> Result<Self, PostgresError> {
        if let Some(path) = explicit {
            let dir = match path.parent() {
                Some(parent) if path.is_file() => parent,
                _ => path,
            };
            let absent = if dir.is_dir() {
                ""
            } else {
                ", which is no directory"
            };
            return Self::in_dir(dir)?.ok_or_else(|| PostgresError::NoPrograms {
                looked_in: format!("{}{absent}", dir.display()),
            });
        }
        let dirs = candidates();
        let mut other = None;
        for dir in &dirs {
            match Self::in_dir(dir) {
                Ok(Some(found)) if major.is_none_or(|wanted| wanted == found.major) => {
                    return Ok(found);
                }
                Ok(Some(found)) => other = other.or(Some(found)),
                Ok(None) | Err(_) => {}
            }
        }
        // The caller compares majors and names both; that says more than "not found".
        other.ok_or_else(|| PostgresError::NoPrograms {
            looked_in: dirs
                .iter()
                .map(|d| d.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    fn in_dir(dir: &Path) -> Result<Option<Self>, PostgresError> {
        let needed = ["postgres", "pg_controldata", "initdb"];
        if !needed.iter().all(|name| dir.join(name).is_file()) {
            return Ok(None);
        }
        let program = dir.join("postgres");
        let output = Command::new(&program)
            .arg("--version")
            .env("LC_ALL", "C")
            .output()
            .map_err(|source| PostgresError::Spawn { program, source })?;
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let version = printed
            .strip_prefix("postgres (PostgreSQL) ")
            .unwrap_or(&printed)
            .to_owned();
        let (major, minor) = parse_version(&version);
        if !SUPPORTED.contains(&major) {
            let found = version.clone();
            return Err(PostgresError::UnsupportedVersion {
                found,
                bin_dir: dir.to_owned(),
            });
        }
        Ok(Some(Self {
            dir: dir.to_owned(),
            major,
            minor,
            version,
        }))
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// `15.18 (Debian 15.18-0)` → (15, 18); `18beta1` → (18, 0).
fn parse_version(text: &str) -> (u32, u32) {
    let digits = |text: &str| {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        (text[..end].parse().unwrap_or(0), text[end..].to_owned())
    };
    let (major, rest) = digits(text);
    let minor = rest.strip_prefix('.').map_or(0, |rest| digits(rest).0);
    (major, minor)
}

fn candidates() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::env::var_os("PATH")
        .map_or_else(Vec::new, |path| std::env::split_paths(&path).collect());
    for root in ["/usr/lib/postgresql", "/usr"] {
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix("pgsql-").unwrap_or(&name).parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        dirs.extend(versions.into_iter().map(|(_, dir)| dir));
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_printed() {
        assert_eq!(parse_version("15.18 (Debian 15.18-0+deb12u1)"), (15, 18));
        assert_eq!(parse_version("18beta1"), (18, 0));
        assert_eq!(parse_version("nonsense"), (0, 0));
    }

    #[test]
    fn a_directory_without_programs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: &Path| Binaries::find(Some(path), None).unwrap_err().to_string();
        let named = |text: String| text.split_once(" in ").unwrap().1.to_owned();
        let here = dir.path().display().to_string();
        assert_eq!(named(said(dir.path())), here);
        std::fs::write(dir.path().join("pg_ctl"), "").unwrap();
        assert_eq!(named(said(&dir.path().join("pg_ctl"))), here, "a file");
        assert_eq!(
            named(said(&dir.path().join("absent"))),
            format!("{here}/absent, which is no directory")
        );
    }
}
