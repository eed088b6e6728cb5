//! Writing a client's messages.

use super::{Message, SaslInitialResponse, Target};
use crate::Hidden;
use crate::writer::{self, Unwritable};

impl Message<'_> {
    /// Writes the message behind what `out` holds.
    ///
    /// # Errors
    /// The message or a list in it is too long; then `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        writer::message(out, Some(self.tag().byte()), |out| self.body(out))
    }

    fn body(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match self {
            Self::Bind(bind) => {
                writer::text(out, bind.portal);
                writer::text(out, bind.statement);
                writer::counted(out, bind.formats)?;
                writer::counted(out, bind.parameters)?;
                writer::counted(out, bind.result_formats)?;
            }
            Self::Close(target) | Self::Describe(target) => {
                let (kind, name) = match target {
                    Target::Statement(name) => (b'S', name),
                    Target::Portal(name) => (b'P', name),
                };
                out.push(kind);
                writer::text(out, name);
            }
            Self::CopyData(bytes) | Self::Password(Hidden(bytes)) => out.extend_from_slice(bytes),
            Self::CopyFail(text) | Self::Query(text) => writer::text(out, text),
            Self::Execute { portal, rows_max } => {
                writer::text(out, portal);
                out.extend_from_slice(&rows_max.to_be_bytes());
            }
            Self::FunctionCall(call) => {
                out.extend_from_slice(&call.function.to_be_bytes());
                writer::counted(out, call.formats)?;
                writer::counted(out, call.arguments)?;
                out.extend_from_slice(&call.result_format.to_be_bytes());
            }
            Self::Parse(parse) => {
                writer::text(out, parse.name);
                writer::text(out, parse.query);
                writer::counted(out, parse.types)?;
            }
            Self::CopyDone | Self::Flush | Self::Sync | Self::Terminate => {}
        }
        Ok(())
    }
}

impl SaslInitialResponse<'_> {
    /// Writes it as a Password message.
    ///
    /// # Errors
    /// It is too long; then `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        writer::message(out, Some(super::Tag::Password.byte()), |out| {
            writer::text(out, self.mechanism);
            writer::value(out, self.response.map(|Hidden(bytes)| bytes));
            Ok(())
        })
    }
}
