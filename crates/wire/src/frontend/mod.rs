//! What a client says after its first packet.
//!
//! It does not know which messages fit together; [`crate::Session`] does.

mod encode;
mod message;
mod tag;

pub use message::{Bind, FunctionCall, Message, Parse, SaslInitialResponse, Target};
pub use tag::{Frontend, Tag};

use crate::{Malformed, reader::Flaw};

/// A message of a client in its buffer.
pub type Frame<'a> = crate::Frame<'a, Frontend>;
/// Cuts what a client sends into messages.
pub type Framer = crate::Framer<Frontend>;

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
