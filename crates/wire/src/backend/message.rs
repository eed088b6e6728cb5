//! The fields of a server's messages.
//!
//! **Invariant:** encoding what was parsed gives the same bytes.

use super::{Authentication, Fields, Tag};
use crate::reader::{Flaw, Malformed, Reader};
use crate::startup::Version;
use crate::{Element, Hidden, List};
use std::ffi::CStr;

/// A server's message, borrowed from the buffer that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    Authentication(Authentication<'a>),
    BackendKeyData(CancelKey<'a>),
    BindComplete,
    CloseComplete,
    /// The command tag, such as `INSERT 0 1`.
    CommandComplete(&'a CStr),
    CopyBothResponse(CopyFormats<'a>),
    CopyData(&'a [u8]),
    CopyDone,
    CopyInResponse(CopyFormats<'a>),
    CopyOutResponse(CopyFormats<'a>),
    DataRow(List<'a, Option<&'a [u8]>>),
    EmptyQueryResponse,
    ErrorResponse(Fields<'a>),
    FunctionCallResponse(Option<&'a [u8]>),
    NegotiateProtocolVersion {
        /// The newest version that the server knows of the major version asked for.
        newest: Version,
        /// Options of the protocol that it does not know.
        unknown: List<'a, &'a CStr>,
    },
    NoData,
    NoticeResponse(Fields<'a>),
    NotificationResponse(Notification<'a>),
    ParameterDescription(List<'a, u32>),
    ParameterStatus {
        name: &'a CStr,
        value: &'a CStr,
    },
    ParseComplete,
    PortalSuspended,
    ReadyForQuery(TransactionStatus),
    RowDescription(List<'a, Column<'a>>),
}

/// What a CancelRequest must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelKey<'a> {
    pub process_id: u32,
    /// Four bytes in protocol 3.0, 4 to 256 in 3.2.
    pub secret: Hidden<'a>,
}

/// How COPY's data are formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyFormats<'a> {
    /// 0 is text, 1 binary.
    pub overall: u8,
    pub columns: List<'a, u16>,
}

/// What NOTIFY sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    pub process_id: u32,
    pub channel: &'a CStr,
    pub payload: &'a CStr,
}

/// Whether a connection is in a transaction block, as ReadyForQuery says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TransactionStatus {
    Idle = b'I',
    InTransaction = b'T',
    /// In a block that can only be rolled back.
    Failed = b'E',
}

/// A column of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a CStr,
    /// 0 if the column is not one of a table.
    pub table: u32,
    pub attribute: u16,
    pub data_type: u32,
    /// Negative for types of varying length; two bytes.
    pub type_len: u16,
    pub type_modifier: u32,
    pub format: u16,
}

impl<'a> Message<'a> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// The body is not what its type says.
    pub fn parse(tag: Tag, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(tag.name(), body);
        let message = match tag {
            Tag::Authentication => Self::Authentication(Authentication::read(&mut reader)?),
            Tag::BackendKeyData => Self::BackendKeyData(CancelKey {
                process_id: reader.u32()?,
                secret: Hidden(reader.rest()),
            }),
            Tag::BindComplete => Self::BindComplete,
            Tag::CloseComplete => Self::CloseComplete,
            Tag::CommandComplete => Self::CommandComplete(reader.text()?),
            Tag::CopyBothResponse => Self::CopyBothResponse(CopyFormats::read(&mut reader)?),
            Tag::CopyData => Self::CopyData(reader.rest()),
            Tag::CopyDone => Self::CopyDone,
            Tag::CopyInResponse => Self::CopyInResponse(CopyFormats::read(&mut reader)?),
            Tag::CopyOutResponse => Self::CopyOutResponse(CopyFormats::read(&mut reader)?),
            Tag::DataRow => Self::DataRow(reader.counted()?),
            Tag::EmptyQueryResponse => Self::EmptyQueryResponse,
            Tag::ErrorResponse => Self::ErrorResponse(Fields::read(&mut reader)?),
            Tag::FunctionCallResponse => Self::FunctionCallResponse(reader.value()?),
            Tag::NegotiateProtocolVersion => {
                let newest = Version(reader.u32()?);
                let count = usize::try_from(reader.i32()?);
                let count = count.map_err(|_| reader.flaw(Flaw::Value("the number of options")))?;
                Self::NegotiateProtocolVersion {
                    newest,
                    unknown: reader.list(count)?,
                }
            }
            Tag::NoData => Self::NoData,
            Tag::NoticeResponse => Self::NoticeResponse(Fields::read(&mut reader)?),
            Tag::NotificationResponse => Self::NotificationResponse(Notification {
                process_id: reader.u32()?,
                channel: reader.text()?,
                payload: reader.text()?,
            }),
            Tag::ParameterDescription => Self::ParameterDescription(reader.counted()?),
            Tag::ParameterStatus => Self::ParameterStatus {
                name: reader.text()?,
                value: reader.text()?,
            },
            Tag::ParseComplete => Self::ParseComplete,
            Tag::PortalSuspended => Self::PortalSuspended,
            Tag::ReadyForQuery => {
                let status = TransactionStatus::of(reader.u8()?);
                let flaw = reader.flaw(Flaw::Value("the transaction status"));
                Self::ReadyForQuery(status.ok_or(flaw)?)
            }
            Tag::RowDescription => Self::RowDescription(reader.counted()?),
        };
        reader.end()?;
        Ok(message)
    }

    pub fn tag(&self) -> Tag {
        match self {
            Self::Authentication(_) => Tag::Authentication,
            Self::BackendKeyData(_) => Tag::BackendKeyData,
            Self::BindComplete => Tag::BindComplete,
            Self::CloseComplete => Tag::CloseComplete,
            Self::CommandComplete(_) => Tag::CommandComplete,
            Self::CopyBothResponse(_) => Tag::CopyBothResponse,
            Self::CopyData(_) => Tag::CopyData,
            Self::CopyDone => Tag::CopyDone,
            Self::CopyInResponse(_) => Tag::CopyInResponse,
            Self::CopyOutResponse(_) => Tag::CopyOutResponse,
            Self::DataRow(_) => Tag::DataRow,
            Self::EmptyQueryResponse => Tag::EmptyQueryResponse,
            Self::ErrorResponse(_) => Tag::ErrorResponse,
            Self::FunctionCallResponse(_) => Tag::FunctionCallResponse,
            Self::NegotiateProtocolVersion { .. } => Tag::NegotiateProtocolVersion,
            Self::NoData => Tag::NoData,
            Self::NoticeResponse(_) => Tag::NoticeResponse,
            Self::NotificationResponse(_) => Tag::NotificationResponse,
            Self::ParameterDescription(_) => Tag::ParameterDescription,
            Self::ParameterStatus { .. } => Tag::ParameterStatus,
            Self::ParseComplete => Tag::ParseComplete,
            Self::PortalSuspended => Tag::PortalSuspended,
            Self::ReadyForQuery(_) => Tag::ReadyForQuery,
            Self::RowDescription(_) => Tag::RowDescription,
        }
    }
}

impl<'a> CopyFormats<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            overall: reader.u8()?,
            columns: reader.counted()?,
        })
    }
}

impl TransactionStatus {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

impl<'a> Element<'a> for Column<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (name, rest) = <&CStr>::split(bytes)?;
        let (table, rest) = u32::split(rest)?;
        let (attribute, rest) = u16::split(rest)?;
        let (data_type, rest) = u32::split(rest)?;
        let (type_len, rest) = u16::split(rest)?;
        let (type_modifier, rest) = u32::split(rest)?;
        let (format, rest) = u16::split(rest)?;
        let column = Self {
            name,
            table,
            attribute,
            data_type,
            type_len,
            type_modifier,
            format,
        };
        Some((column, rest))
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.name.append(out);
        self.table.append(out);
        self.attribute.append(out);
        self.data_type.append(out);
        self.type_len.append(out);
        self.type_modifier.append(out);
        self.format.append(out);
    }
}
