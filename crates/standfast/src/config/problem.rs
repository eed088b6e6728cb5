//! What is wrong with a configuration file, and where.

use std::fmt;
use std::path::PathBuf;

/// One complaint: the line, the key, and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// 0: the file as a whole.
    pub(crate) line: u64,
    /// Dotted path, such as `postgresql.listen`; empty: the file as a whole.
    pub(crate) key: String,
    pub(crate) what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Everything that is wrong with one file, so that it can be mended in one go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConfigError {
    pub(crate) file: PathBuf,
    pub(crate) problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn whole(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        let problem = Problem {
            line: 0,
            key: String::new(),
            what: what.into(),
        };
        Self {
            file: file.into(),
            problems: vec![problem],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}: {problem}", self.file.display())?;
        }
        Ok(())
    }
}
