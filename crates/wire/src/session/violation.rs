//! Messages that do not fit.

use super::RequestKind;
use crate::Malformed;

/// A message that the protocol does not allow where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a message that cannot be read")]
    Malformed(#[from] Malformed),
    /// The client would lose its connection for it.
    #[error("{sent} out of turn")]
    OutOfTurn { sent: &'static str },
    #[error("{sent} on a connection that has ended")]
    AfterEnd { sent: &'static str },
    /// See [`super::Session::has_room`].
    #[error("too many requests without an answer")]
    Full,
    #[error("the server sent {reply}, but owes an answer to {owed:?}")]
    Unexpected {
        reply: &'static str,
        owed: Option<RequestKind>,
    },
    #[error("the server reports more parameters than are remembered")]
    TooManyParameters,
}
