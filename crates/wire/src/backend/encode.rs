//! Writing a server's messages.

use super::Message;
use crate::Hidden;
use crate::writer::{self, Unwritable};

impl Message<'_> {
    /// Writes the message behind what `out` holds.
    ///
    /// # Errors
    /// The message or a list in it cannot be written; then `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        writer::message(out, Some(self.tag().byte()), |out| self.body(out))
    }

    fn body(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match self {
            Self::Authentication(asked) => asked.body(out)?,
            Self::BackendKeyData(key) => {
                out.extend_from_slice(&key.process_id.to_be_bytes());
                let Hidden(secret) = key.secret;
                out.extend_from_slice(secret);
            }
            Self::CommandComplete(text) => writer::text(out, text),
            Self::CopyBothResponse(formats)
            | Self::CopyInResponse(formats)
            | Self::CopyOutResponse(formats) => {
                out.push(formats.overall);
                writer::counted(out, formats.columns)?;
            }
            Self::CopyData(bytes) => out.extend_from_slice(bytes),
            Self::DataRow(values) => writer::counted(out, *values)?,
            Self::ErrorResponse(fields) | Self::NoticeResponse(fields) => {
                writer::until_zero(out, fields.0)?;
            }
            Self::FunctionCallResponse(value) => writer::value(out, *value),
            Self::NegotiateProtocolVersion { newest, unknown } => {
                out.extend_from_slice(&newest.0.to_be_bytes());
                let count = i32::try_from(unknown.len());
                let count = count.map_err(|_| Unwritable::TooMany(unknown.len()))?;
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(unknown.bytes());
            }
            Self::NotificationResponse(notification) => {
                out.extend_from_slice(&notification.process_id.to_be_bytes());
                writer::text(out, notification.channel);
                writer::text(out, notification.payload);
            }
            Self::ParameterDescription(types) => writer::counted(out, *types)?,
            Self::ParameterStatus { name, value } => {
                writer::text(out, name);
                writer::text(out, value);
            }
            Self::ReadyForQuery(status) => out.push(*status as u8),
            Self::RowDescription(columns) => writer::counted(out, *columns)?,
            Self::BindComplete
            | Self::CloseComplete
            | Self::CopyDone
            | Self::EmptyQueryResponse
            | Self::NoData
            | Self::ParseComplete
            | Self::PortalSuspended => {}
        }
        Ok(())
    }
}
