//! How a command ends: its code, its sentence, and what the user can do.
//!
//! **Invariant:** the codes are documented in `docs/guide/exit-codes.md` and do not change their meaning.

use std::fmt;

/// Every code that `standfast` exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    Ok = 0,
    /// What was asked for failed.
    Error = 1,
    /// The command line can't be understood.
    Usage = 2,
    /// There is no such cluster or node.
    Unknown = 3,
    /// No store or API answered.
    Unreachable = 4,
    /// A safety rule says no.
    Refused = 5,
    /// What was asked for did not happen in time. It may yet.
    TimedOut = 6,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// An error that knows its exit code, and maybe what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Error, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Unknown, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Refused, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Says on standard error why a command failed, with every cause, and returns its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let mut sentence = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A cause that its consequence already quotes is not said twice.
        if sentence.contains(&text) {
            continue;
        }
        if !sentence.is_empty() {
            sentence.push_str(": ");
        }
        sentence.push_str(&text);
    }
    for line in sentence.lines() {
        crate::output::note(&format!("error: {line}"));
    }
    let failure = error.downcast_ref::<Failure>();
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_deref()) {
        crate::output::note(&format!("hint: {hint}"));
    }
    failure.map_or(ExitCode::Error, |failure| failure.code)
}
