//! Protocol versions, and agreeing on one.

use crate::backend::Message;
use crate::writer::Unwritable;
use crate::{List, startup::StartupMessage};
use std::ffi::CStr;
use std::fmt;

/// Major and minor number as a startup packet says them: 16 bits each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// What everyone has spoken since PostgreSQL 7.4.
    pub const V3_0: Self = Self::new(3, 0);
    /// PostgreSQL 18: cancel keys may be longer than four bytes.
    pub const V3_2: Self = Self::new(3, 2);

    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub const fn minor(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// Whether cancel keys have exactly four bytes.
    pub fn has_short_cancel_keys(self) -> bool {
        self < Self::V3_2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// No version that both sides know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unsupported frontend protocol {0}: server supports 3.0 to 3.2")]
pub struct Unsupported(pub Version);

/// What a server that knows up to 3.2 and no options of the protocol answers to a startup packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// What is spoken from now on.
    pub version: Version,
    /// Whether the client must be told before it is asked for a password.
    must_tell: bool,
}

impl Agreed {
    /// # Errors
    /// The client wants another major version.
    pub fn on(startup: &StartupMessage<'_>) -> Result<Self, Unsupported> {
        let wanted = startup.version;
        if wanted.major() != 3 {
            return Err(Unsupported(wanted));
        }
        let version = wanted.min(Version::V3_2);
        Ok(Self {
            version,
            must_tell: version != wanted || startup.protocol_options().next().is_some(),
        })
    }

    /// Writes NegotiateProtocolVersion behind what `out` holds, if it is called for.
    ///
    /// # Errors
    /// The options are too long to be named, which those of one startup packet are not.
    pub fn encode(
        &self,
        startup: &StartupMessage<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unwritable> {
        if !self.must_tell {
            return Ok(());
        }
        let names: Vec<&CStr> = startup.protocol_options().map(|(name, _)| name).collect();
        let mut room = Vec::new();
        let message = Message::NegotiateProtocolVersion {
            newest: self.version,
            unknown: List::write(names, &mut room),
        };
        message.encode(out)
    }
}
