//! The fields of an error or a notice.
//!
//! **Invariant:** none of them is taken for granted: a server may leave out every one.

use crate::reader::{Malformed, Reader};
use crate::{Element, List};
use std::ffi::CStr;
use std::fmt;

/// One field: its letter in PostgreSQL's documentation, and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub code: u8,
    pub text: &'a CStr,
}

/// The fields of one error or notice, in the server's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a>(pub List<'a, Field<'a>>);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The request failed; the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
    /// All connections of the server end.
    Panic,
    /// A notice, of whatever kind.
    Lesser,
}

/// Five characters that programs go by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState(pub [u8; 5]);

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> Fields<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.until_zero().map(Self)
    }

    /// The fields that are complete in the beginning of a body: enough of an error too long to
    /// be held, for what matters comes first.
    pub fn beginning(body: &'a [u8]) -> Self {
        let mut rest = body;
        let mut count = 0;
        while rest.first().is_some_and(|code| *code != 0) {
            let Some((_, behind)) = Field::split(rest) else {
                break;
            };
            rest = behind;
            count += 1;
        }
        Self(List::proven(count, &body[..body.len() - rest.len()]))
    }

    /// The text of the first field with this letter.
    pub fn find(&self, code: u8) -> Option<&'a CStr> {
        let found = self.0.iter().find(|field| field.code == code);
        found.map(|field| field.text)
    }

    /// Untranslated if the server is 9.6 or newer, else as it was translated.
    pub fn severity(&self) -> Option<Severity> {
        let said = self.find(b'V').or_else(|| self.find(b'S'))?;
        Some(match said.to_bytes() {
            b"ERROR" => Severity::Error,
            b"FATAL" => Severity::Fatal,
            b"PANIC" => Severity::Panic,
            _ => Severity::Lesser,
        })
    }

    pub fn sqlstate(&self) -> Option<SqlState> {
        let code = self.find(b'C')?.to_bytes();
        code.try_into().ok().map(SqlState)
    }

    /// The primary message, in the server's language and the client's encoding.
    pub fn message(&self) -> Option<&'a CStr> {
        self.find(b'M')
    }
}

impl<'a> Element<'a> for Field<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (code, rest) = bytes.split_first()?;
        let (text, rest) = <&CStr>::split(rest)?;
        Some((Self { code: *code, text }, rest))
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.push(self.code);
        self.text.append(out);
    }
}
