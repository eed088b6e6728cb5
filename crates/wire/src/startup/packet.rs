//! The four kinds of packet a connection may begin with.
//!
//! **Invariant:** a packet longer than PostgreSQL's bound is refused by its length alone.

use super::Version;
use crate::backend::CancelKey;
use crate::limits::{CANCEL_SECRET_BYTES_MAX, STARTUP_BODY_BYTES_MAX};
use crate::reader::{Flaw, Malformed, Reader};
use crate::writer::{self, Unwritable};
use crate::{Hidden, List};
use std::ffi::CStr;

const CANCEL: Version = Version::new(1234, 5678);
const SSL: Version = Version::new(1234, 5679);
const GSSENC: Version = Version::new(1234, 5680);

/// A packet without a type byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// May we speak TLS? Answered by the byte `S` or `N`.
    SslRequest,
    /// May we encrypt by GSSAPI? Answered by the byte `G` or `N`.
    GssEncRequest,
    /// Ends what another connection is doing; answered by closing.
    Cancel(CancelRequest<'a>),
    Startup(StartupMessage<'a>),
}

/// Whose request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelRequest<'a>(pub CancelKey<'a>);

/// Who wants to talk, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartupMessage<'a> {
    pub version: Version,
    /// In the client's order; a name may come twice, and then the last one counts.
    pub parameters: List<'a, (&'a CStr, &'a CStr)>,
}

/// The length word of a packet, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Four bytes and the body.
    Packet(usize),
    Wrong(i32),
}

impl Length {
    pub(super) fn of(word: [u8; 4]) -> Self {
        let said = i32::from_be_bytes(word);
        match usize::try_from(said) {
            Ok(length) if (4 + 4..=4 + STARTUP_BODY_BYTES_MAX).contains(&length) => {
                Self::Packet(length)
            }
            _ => Self::Wrong(said),
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads a body, which begins with the version.
    ///
    /// # Errors
    /// It is none of the four.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("startup packet", body);
        let version = Version(reader.u32()?);
        let packet = match version {
            SSL => Self::SslRequest,
            GSSENC => Self::GssEncRequest,
            CANCEL => {
                let process_id = reader.u32()?;
                let secret = reader.rest();
                if !(4..=CANCEL_SECRET_BYTES_MAX).contains(&secret.len()) {
                    return Err(reader.flaw(Flaw::Value("the length of the cancel key")));
                }
                Self::Cancel(CancelRequest(CancelKey {
                    process_id,
                    secret: Hidden(secret),
                }))
            }
            // Other majors have other fields: that there is such a version is all one can know.
            version if version.major() != 3 => Self::Startup(StartupMessage {
                version,
                parameters: List::empty(),
            }),
            version => Self::Startup(StartupMessage {
                version,
                parameters: reader.until_zero()?,
            }),
        };
        if !matches!(packet, Self::Startup(startup) if startup.version.major() != 3) {
            reader.end()?;
        }
        Ok(packet)
    }

    /// Writes the packet behind what `out` holds.
    ///
    /// # Errors
    /// It is longer than a server accepts, or has a parameter without a name; then `out` is as
    /// before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let begin = out.len();
        writer::message(out, None, |out| self.body(out))?;
        let body_len = out.len() - begin - 4;
        if body_len > STARTUP_BODY_BYTES_MAX {
            out.truncate(begin);
            return Err(Unwritable::TooLong(body_len));
        }
        Ok(())
    }

    fn body(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let version = match self {
            Self::SslRequest => SSL,
            Self::GssEncRequest => GSSENC,
            Self::Cancel(_) => CANCEL,
            Self::Startup(startup) => startup.version,
        };
        out.extend_from_slice(&version.0.to_be_bytes());
        match self {
            Self::SslRequest | Self::GssEncRequest => Ok(()),
            Self::Cancel(CancelRequest(key)) => {
                out.extend_from_slice(&key.process_id.to_be_bytes());
                let Hidden(secret) = key.secret;
                out.extend_from_slice(secret);
                Ok(())
            }
            Self::Startup(startup) => writer::until_zero(out, startup.parameters),
        }
    }
}
