//! What a server says, and what a proxy says in its place.
//!
//! It does not know which replies belong to which request; [`crate::Session`] does.

mod authentication;
mod encode;
mod fields;
mod message;
mod report;
mod tag;

pub use authentication::Authentication;
pub use fields::{Field, Fields, Severity, SqlState};
pub use message::{CancelKey, Column, CopyFormats, Message, Notification, TransactionStatus};
pub use report::Report;
pub use tag::{Backend, Tag};

use crate::{Malformed, reader::Flaw};

/// A message of a server in its buffer.
pub type Frame<'a> = crate::Frame<'a, Backend>;
/// Cuts what a server sends into messages.
pub type Framer = crate::Framer<Backend>;

impl<'a> Frame<'a> {
    /// Reads the fields.
    ///
    /// # Errors
    /// The body is not what its type says, or came in parts.
    pub fn message(&self) -> Result<Message<'a>, Malformed> {
        if !self.is_whole() {
            return Err(Malformed {
                message: self.tag().name(),
                flaw: Flaw::InParts,
            });
        }
        Message::parse(self.tag(), self.body())
    }
}
