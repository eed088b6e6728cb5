//! An error or a notice of our own, made as PostgreSQL makes its own.
//!
//! **Invariant:** severity, SQLSTATE and message are always there, in PostgreSQL's order.

use super::{Field, Fields, Message, SqlState};
use crate::List;
use crate::writer::Unwritable;
use std::ffi::{CStr, CString};

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    severity: &'static CStr,
    notice: bool,
    sqlstate: SqlState,
    message: CString,
    detail: Option<CString>,
    hint: Option<CString>,
}

impl Report {
    /// The request failed; the connection goes on.
    pub fn error(sqlstate: SqlState, message: &str) -> Self {
        Self::new(c"ERROR", false, sqlstate, message)
    }

    /// The connection ends.
    pub fn fatal(sqlstate: SqlState, message: &str) -> Self {
        Self::new(c"FATAL", false, sqlstate, message)
    }

    /// Something the client may want to know.
    pub fn notice(sqlstate: SqlState, message: &str) -> Self {
        Self::new(c"NOTICE", true, sqlstate, message)
    }

    /// The same where the connection ends with it.
    #[must_use]
    pub fn into_fatal(mut self) -> Self {
        self.severity = c"FATAL";
        self
    }

    /// The second part of the message, for people.
    #[must_use]
    pub fn detail(mut self, text: &str) -> Self {
        self.detail = Some(without_nul(text));
        self
    }

    /// What to do about it, for people.
    #[must_use]
    pub fn hint(mut self, text: &str) -> Self {
        self.hint = Some(without_nul(text));
        self
    }

    /// Writes the ErrorResponse or NoticeResponse behind what `out` holds.
    ///
    /// # Errors
    /// The texts are too long; then `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let sqlstate = CString::new(self.sqlstate.0).unwrap_or_default();
        let fields = [
            (b'S', Some(self.severity)),
            (b'V', Some(self.severity)),
            (b'C', Some(sqlstate.as_c_str())),
            (b'M', Some(self.message.as_c_str())),
            (b'D', self.detail.as_deref()),
            (b'H', self.hint.as_deref()),
        ];
        let said = fields
            .into_iter()
            .filter_map(|(code, text)| text.map(|text| Field { code, text }));
        let mut room = Vec::new();
        let fields = Fields(List::write(said, &mut room));
        if self.notice {
            Message::NoticeResponse(fields).encode(out)
        } else {
            Message::ErrorResponse(fields).encode(out)
        }
    }

    fn new(severity: &'static CStr, notice: bool, sqlstate: SqlState, message: &str) -> Self {
        Self {
            severity,
            notice,
            sqlstate,
            message: without_nul(message),
            detail: None,
            hint: None,
        }
    }
}

/// A text that came from elsewhere must not end the message early.
fn without_nul(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}
