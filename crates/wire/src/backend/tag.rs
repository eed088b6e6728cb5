//! The types of a server's messages, and how long each may be.

use crate::frame::{Bounds, Stage};
use crate::limits::{
    CANCEL_SECRET_BYTES_MAX, Limits, REPLY_BYTES_MAX, SHORT_REPLY_BYTES_MAX, TOKEN_BYTES_MAX,
};

/// The direction from the server to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend;

/// The type of a server's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    Authentication = b'R',
    BackendKeyData = b'K',
    BindComplete = b'2',
    CloseComplete = b'3',
    CommandComplete = b'C',
    CopyBothResponse = b'W',
    CopyData = b'd',
    CopyDone = b'c',
    CopyInResponse = b'G',
    CopyOutResponse = b'H',
    DataRow = b'D',
    EmptyQueryResponse = b'I',
    ErrorResponse = b'E',
    FunctionCallResponse = b'V',
    NegotiateProtocolVersion = b'v',
    NoData = b'n',
    NoticeResponse = b'N',
    NotificationResponse = b'A',
    ParameterDescription = b't',
    ParameterStatus = b'S',
    ParseComplete = b'1',
    PortalSuspended = b's',
    ReadyForQuery = b'Z',
    RowDescription = b'T',
}

impl Tag {
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The name in PostgreSQL's documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authentication => "Authentication",
            Self::BackendKeyData => "BackendKeyData",
            Self::BindComplete => "BindComplete",
            Self::CloseComplete => "CloseComplete",
            Self::CommandComplete => "CommandComplete",
            Self::CopyBothResponse => "CopyBothResponse",
            Self::CopyData => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::CopyInResponse => "CopyInResponse",
            Self::CopyOutResponse => "CopyOutResponse",
            Self::DataRow => "DataRow",
            Self::EmptyQueryResponse => "EmptyQueryResponse",
            Self::ErrorResponse => "ErrorResponse",
            Self::FunctionCallResponse => "FunctionCallResponse",
            Self::NegotiateProtocolVersion => "NegotiateProtocolVersion",
            Self::NoData => "NoData",
            Self::NoticeResponse => "NoticeResponse",
            Self::NotificationResponse => "NotificationResponse",
            Self::ParameterDescription => "ParameterDescription",
            Self::ParameterStatus => "ParameterStatus",
            Self::ParseComplete => "ParseComplete",
            Self::PortalSuspended => "PortalSuspended",
            Self::ReadyForQuery => "ReadyForQuery",
            Self::RowDescription => "RowDescription",
        }
    }
}

impl crate::frame::Direction for Backend {
    type Tag = Tag;
    const SPEAKER: &'static str = "server";

    #[inline]
    fn tag(byte: u8) -> Option<Tag> {
        Some(match byte {
            b'R' => Tag::Authentication,
            b'K' => Tag::BackendKeyData,
            b'2' => Tag::BindComplete,
            b'3' => Tag::CloseComplete,
            b'C' => Tag::CommandComplete,
            b'W' => Tag::CopyBothResponse,
            b'd' => Tag::CopyData,
            b'c' => Tag::CopyDone,
            b'G' => Tag::CopyInResponse,
            b'H' => Tag::CopyOutResponse,
            b'D' => Tag::DataRow,
            b'I' => Tag::EmptyQueryResponse,
            b'E' => Tag::ErrorResponse,
            b'V' => Tag::FunctionCallResponse,
            b'v' => Tag::NegotiateProtocolVersion,
            b'n' => Tag::NoData,
            b'N' => Tag::NoticeResponse,
            b'A' => Tag::NotificationResponse,
            b't' => Tag::ParameterDescription,
            b'S' => Tag::ParameterStatus,
            b'1' => Tag::ParseComplete,
            b's' => Tag::PortalSuspended,
            b'Z' => Tag::ReadyForQuery,
            b'T' => Tag::RowDescription,
            _ => return None,
        })
    }

    #[inline]
    fn bounds(tag: Tag, stage: Stage, _: &Limits) -> Option<Bounds> {
        let opening = matches!(tag, Tag::Authentication | Tag::NegotiateProtocolVersion);
        let either = matches!(tag, Tag::ErrorResponse | Tag::NoticeResponse);
        if !either && opening != (stage == Stage::Authentication) {
            return None;
        }
        Some(match tag {
            Tag::Authentication => Bounds::held(4, TOKEN_BYTES_MAX),
            Tag::BackendKeyData => Bounds::held(4 + 4, 4 + CANCEL_SECRET_BYTES_MAX),
            Tag::NegotiateProtocolVersion => Bounds::held(8, SHORT_REPLY_BYTES_MAX),
            Tag::CommandComplete => Bounds::held(1, SHORT_REPLY_BYTES_MAX),
            Tag::ParameterStatus => Bounds::held(2, SHORT_REPLY_BYTES_MAX),
            Tag::ReadyForQuery => Bounds::exactly(1),
            Tag::BindComplete
            | Tag::CloseComplete
            | Tag::CopyDone
            | Tag::EmptyQueryResponse
            | Tag::NoData
            | Tag::ParseComplete
            | Tag::PortalSuspended => Bounds::exactly(0),
            Tag::CopyBothResponse | Tag::CopyInResponse | Tag::CopyOutResponse => {
                Bounds::long(3, 3 + 2 * 65_535)
            }
            Tag::ParameterDescription => Bounds::long(2, 2 + 4 * 65_535),
            Tag::NotificationResponse => Bounds::long(6, REPLY_BYTES_MAX),
            Tag::ErrorResponse | Tag::NoticeResponse => Bounds::long(1, REPLY_BYTES_MAX),
            Tag::DataRow | Tag::RowDescription => Bounds::long(2, REPLY_BYTES_MAX),
            Tag::FunctionCallResponse => Bounds::long(4, REPLY_BYTES_MAX),
            Tag::CopyData => Bounds::long(0, REPLY_BYTES_MAX),
        })
    }
}
