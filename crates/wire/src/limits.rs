//! How long things may be. PostgreSQL's own bounds, and two that the caller may lower.
//!
//! A "body" is a message without its type byte and its length word.

/// Longest body of the first packet of a connection, as in PostgreSQL.
pub const STARTUP_BODY_BYTES_MAX: usize = 10_000;

/// Longest secret of a cancel key (protocol 3.2; in 3.0 it is always four bytes).
pub const CANCEL_SECRET_BYTES_MAX: usize = 256;

/// Longest body of a client's message that needs no room (Close, Describe, Execute, …).
pub(crate) const SHORT_BYTES_MAX: usize = 10_000 - 4;

/// Longest body of a server's message that libpq takes for short.
pub(crate) const SHORT_REPLY_BYTES_MAX: usize = 30_000 - 4;

/// Longest body of anything a client sends.
pub(crate) const REQUEST_BYTES_MAX: usize = 0x3fff_fffe - 4;

/// Longest body of anything a server sends: one allocation of its own.
pub(crate) const REPLY_BYTES_MAX: usize = 0x3fff_fffe;

/// Longest body of a message of authentication; a Kerberos ticket may be that long.
pub(crate) const TOKEN_BYTES_MAX: usize = 65_535 - 4;

/// What a caller is willing to hold and to remember.
///
/// Messages of small fixed types have PostgreSQL's bounds whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bodies up to this many bytes come in one piece; longer ones come in parts, the first
    /// of which has exactly this many. Types that are short by nature always come in one piece.
    pub held_bytes_max: usize,
    /// Longest body of a query (Query, Parse, Bind, FunctionCall) that is accepted.
    pub query_bytes_max: usize,
    /// Longest body of a password or SASL message; PostgreSQL's bound for SASL is 1,024.
    pub password_bytes_max: usize,
    /// Most requests of one connection that may be without an answer.
    pub unanswered_max: usize,
    /// Most bytes that a session remembers: names of statements and portals, values of parameters.
    pub remembered_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            held_bytes_max: 64 * 1024,
            query_bytes_max: REQUEST_BYTES_MAX,
            password_bytes_max: TOKEN_BYTES_MAX,
            unanswered_max: 10_000,
            remembered_bytes_max: 4 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// The longest stretch of bytes that a [`crate::Framer`] ever asks to have together.
    pub fn buffer_bytes_max(&self) -> usize {
        self.held_bytes_max.max(TOKEN_BYTES_MAX) + crate::frame::HEADER_BYTES
    }
}
