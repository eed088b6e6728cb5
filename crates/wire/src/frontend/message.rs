//! The fields of a client's messages.
//!
//! **Invariant:** encoding what was parsed gives the same bytes.

use super::Tag;
use crate::reader::{Flaw, Malformed, Reader};
use crate::{Hidden, List};
use std::ffi::CStr;

/// A client's message, borrowed from the buffer that it came in.
///
/// Names and texts are in the client's encoding and never contain a NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    Bind(Bind<'a>),
    Close(Target<'a>),
    CopyData(&'a [u8]),
    CopyDone,
    /// The reason.
    CopyFail(&'a CStr),
    Describe(Target<'a>),
    Execute {
        portal: &'a CStr,
        /// Most rows to return; no limit if not positive.
        rows_max: i32,
    },
    Flush,
    FunctionCall(FunctionCall<'a>),
    Parse(Parse<'a>),
    /// See [`Message::password`] and [`SaslInitialResponse::parse`].
    Password(Hidden<'a>),
    Query(&'a CStr),
    Sync,
    Terminate,
}

/// Makes a portal out of a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    pub portal: &'a CStr,
    pub statement: &'a CStr,
    /// One for each parameter, or one for all, or none: then all are text.
    pub formats: List<'a, u16>,
    pub parameters: List<'a, Option<&'a [u8]>>,
    /// One for each column, or one for all, or none: then all are text.
    pub result_formats: List<'a, u16>,
}

/// Prepares a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Empty for the unnamed statement.
    pub name: &'a CStr,
    pub query: &'a CStr,
    /// Types of the first parameters; 0 leaves one open.
    pub types: List<'a, u32>,
}

/// Calls a function by its number, as large objects do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    pub function: u32,
    pub formats: List<'a, u16>,
    pub arguments: List<'a, Option<&'a [u8]>>,
    pub result_format: u16,
}

/// What Describe and Close are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a CStr),
    Portal(&'a CStr),
}

/// The first answer to AuthenticationSASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    pub mechanism: &'a CStr,
    /// `None` if the client waits to be asked.
    pub response: Option<Hidden<'a>>,
}

impl<'a> Message<'a> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// The body is not what its type says.
    pub fn parse(tag: Tag, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(tag.name(), body);
        let message = match tag {
            Tag::Bind => Self::Bind(Bind {
                portal: reader.text()?,
                statement: reader.text()?,
                formats: reader.counted()?,
                parameters: reader.counted()?,
                result_formats: reader.counted()?,
            }),
            Tag::Close => Self::Close(Target::read(&mut reader)?),
            Tag::CopyData => Self::CopyData(reader.rest()),
            Tag::CopyDone => Self::CopyDone,
            Tag::CopyFail => Self::CopyFail(reader.text()?),
            Tag::Describe => Self::Describe(Target::read(&mut reader)?),
            Tag::Execute => Self::Execute {
                portal: reader.text()?,
                rows_max: reader.i32()?,
            },
            Tag::Flush => Self::Flush,
            Tag::FunctionCall => Self::FunctionCall(FunctionCall {
                function: reader.u32()?,
                formats: reader.counted()?,
                arguments: reader.counted()?,
                result_format: reader.u16()?,
            }),
            Tag::Parse => Self::Parse(Parse {
                name: reader.text()?,
                query: reader.text()?,
                types: reader.counted()?,
            }),
            Tag::Password => Self::Password(Hidden(reader.rest())),
            Tag::Query => Self::Query(reader.text()?),
            Tag::Sync => Self::Sync,
            Tag::Terminate => Self::Terminate,
        };
        reader.end()?;
        Ok(message)
    }

    /// The password in a Password message that answers a request for one, clear or MD5.
    ///
    /// # Errors
    /// It is not one string.
    pub fn password(body: Hidden<'a>) -> Result<Hidden<'a>, Malformed> {
        let mut reader = Reader::new("PasswordMessage", body.0);
        let text = reader.text()?;
        reader.end()?;
        Ok(Hidden(text.to_bytes()))
    }

    pub fn tag(&self) -> Tag {
        match self {
            Self::Bind(_) => Tag::Bind,
            Self::Close(_) => Tag::Close,
            Self::CopyData(_) => Tag::CopyData,
            Self::CopyDone => Tag::CopyDone,
            Self::CopyFail(_) => Tag::CopyFail,
            Self::Describe(_) => Tag::Describe,
            Self::Execute { .. } => Tag::Execute,
            Self::Flush => Tag::Flush,
            Self::FunctionCall(_) => Tag::FunctionCall,
            Self::Parse(_) => Tag::Parse,
            Self::Password(_) => Tag::Password,
            Self::Query(_) => Tag::Query,
            Self::Sync => Tag::Sync,
            Self::Terminate => Tag::Terminate,
        }
    }
}

impl<'a> Target<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.u8()? {
            b'S' => reader.text().map(Self::Statement),
            b'P' => reader.text().map(Self::Portal),
            _ => Err(reader.flaw(Flaw::Value("what it is about"))),
        }
    }

    /// Reads the body of a Close or Describe.
    pub(crate) fn parse(tag: Tag, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(tag.name(), body);
        let target = Self::read(&mut reader)?;
        reader.end()?;
        Ok(target)
    }
}

impl<'a> SaslInitialResponse<'a> {
    /// Reads the body of a Password message that answers AuthenticationSASL.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(body: Hidden<'a>) -> Result<Self, Malformed> {
        let mut reader = Reader::new("SASLInitialResponse", body.0);
        let message = Self {
            mechanism: reader.text()?,
            response: reader.value()?.map(Hidden),
        };
        reader.end()?;
        Ok(message)
    }
}
