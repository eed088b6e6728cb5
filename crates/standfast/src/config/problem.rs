//! What is wrong with a configuration file, and where.

use std::fmt;
use std::path::PathBuf;

/// One complaint: the line, the key, and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file in a directory of them, or the variable; `None`: the file that is named anyway.
    pub(crate) place: Option<String>,
    /// 0: the file as a whole.
    pub(crate) line: u64,
    /// Dotted path, such as `postgresql.listen`; empty: the file as a whole.
    pub(crate) key: String,
    pub(crate) what: String,
    /// What stands there counts for nothing.
    pub(crate) inert: bool,
}

impl Problem {
    pub(crate) fn at(line: u64, key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: None,
            line,
            key: key.into(),
            what: what.into(),
            inert: false,
        }
    }

    /// Of the whole file.
    pub(crate) fn whole(what: impl Into<String>) -> Self {
        Self::at(0, "", what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
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
        Self {
            file: file.into(),
            problems: vec![Problem::whole(what)],
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
