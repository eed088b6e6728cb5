//! The types of a client's messages, and how long each may be.

use crate::frame::{Bounds, Direction, Stage};
use crate::limits::{Limits, REQUEST_BYTES_MAX, SHORT_BYTES_MAX, TOKEN_BYTES_MAX};

/// The direction from the client to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontend;

/// The type of a client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    Bind = b'B',
    Close = b'C',
    CopyData = b'd',
    CopyDone = b'c',
    CopyFail = b'f',
    Describe = b'D',
    Execute = b'E',
    Flush = b'H',
    FunctionCall = b'F',
    Parse = b'P',
    /// A password, or a message of SASL or GSSAPI: which one, only the server's last request says.
    Password = b'p',
    Query = b'Q',
    Sync = b'S',
    Terminate = b'X',
}

impl Tag {
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The name in PostgreSQL's documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "Bind",
            Self::Close => "Close",
            Self::CopyData => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::CopyFail => "CopyFail",
            Self::Describe => "Describe",
            Self::Execute => "Execute",
            Self::Flush => "Flush",
            Self::FunctionCall => "FunctionCall",
            Self::Parse => "Parse",
            Self::Password => "Password",
            Self::Query => "Query",
            Self::Sync => "Sync",
            Self::Terminate => "Terminate",
        }
    }
}

impl Direction for Frontend {
    type Tag = Tag;
    const SPEAKER: &'static str = "client";

    #[inline]
    fn tag(byte: u8) -> Option<Tag> {
        Some(match byte {
            b'B' => Tag::Bind,
            b'C' => Tag::Close,
            b'd' => Tag::CopyData,
            b'c' => Tag::CopyDone,
            b'f' => Tag::CopyFail,
            b'D' => Tag::Describe,
            b'E' => Tag::Execute,
            b'H' => Tag::Flush,
            b'F' => Tag::FunctionCall,
            b'P' => Tag::Parse,
            b'p' => Tag::Password,
            b'Q' => Tag::Query,
            b'S' => Tag::Sync,
            b'X' => Tag::Terminate,
            _ => return None,
        })
    }

    #[inline]
    fn bounds(tag: Tag, stage: Stage, limits: &Limits) -> Option<Bounds> {
        if (tag == Tag::Password) != (stage == Stage::Authentication) {
            return None;
        }
        let query = limits.query_bytes_max.min(REQUEST_BYTES_MAX);
        Some(match tag {
            Tag::Password => Bounds::held(0, limits.password_bytes_max.min(TOKEN_BYTES_MAX)),
            Tag::Query => Bounds::long(1, query),
            Tag::Parse => Bounds::long(4, query),
            Tag::Bind => Bounds::long(8, query),
            Tag::FunctionCall => Bounds::long(10, query),
            Tag::CopyData => Bounds::long(0, REQUEST_BYTES_MAX),
            Tag::Close | Tag::Describe => Bounds::held(2, SHORT_BYTES_MAX),
            Tag::Execute => Bounds::held(5, SHORT_BYTES_MAX),
            Tag::CopyFail => Bounds::held(1, SHORT_BYTES_MAX),
            Tag::CopyDone | Tag::Flush | Tag::Sync | Tag::Terminate => Bounds::exactly(0),
        })
    }
}
