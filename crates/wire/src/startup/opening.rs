//! The beginning of a connection, up to the packet that says what it is for.
//!
//! **Invariant:** bytes that came in clear are never taken for bytes that came encrypted: whatever
//! is in the buffer behind a request for encryption is refused, not kept.
//!
//! **Invariant:** encryption is asked for at most once each way; no client makes us ask ourselves
//! the same question again and again.

use super::packet::{CancelRequest, Length, Packet, StartupMessage};
use crate::Malformed;

/// A TLS record of type "handshake": a client that speaks TLS without asking (PostgreSQL 17).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First<'a> {
    /// TLS begins at once. Nothing was taken from the buffer: it is the handshake's.
    /// The client must then name the protocol `postgresql` by ALPN.
    DirectTls,
    /// Answer `S` or `N`; then [`Opening::encrypted`] or [`Opening::declined`].
    SslRequest,
    /// Answer `G` or `N`, likewise.
    GssEncRequest,
    /// Nothing follows: close, whatever became of it.
    Cancel(CancelRequest<'a>),
    /// The rest of the buffer, behind this many bytes, belongs to the conversation.
    Startup(StartupMessage<'a>, usize),
    /// Nothing can be said before the buffer holds this many bytes.
    More { buffer_bytes: usize },
}

/// A beginning that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Also what somebody sends who speaks another protocol.
    #[error("invalid length of startup packet: {0}")]
    Length(i32),
    #[error("a startup packet that cannot be read")]
    Malformed(#[source] Malformed),
    /// Somebody between the client and us may have put them there.
    #[error("{0} bytes behind a request for encryption, before it was answered")]
    BytesBehindRequest(usize),
    #[error("encryption was asked for again")]
    AskedAgain,
    /// The caller has not said what became of the last request.
    #[error("a packet before the last request was answered")]
    NotAnswered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    Asked,
    Agreed,
}

/// Reads the beginning of one connection.
#[derive(Debug, Clone)]
pub struct Opening {
    encryption: Encryption,
    ssl_asked: bool,
    gss_asked: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self::new()
    }
}

impl Opening {
    pub fn new() -> Self {
        Self {
            encryption: Encryption::None,
            ssl_asked: false,
            gss_asked: false,
        }
    }

    /// The handshake that was asked for, or begun at once, is over: what comes now was encrypted.
    pub fn encrypted(&mut self) {
        self.encryption = Encryption::Agreed;
    }

    /// The answer was `N`: the client goes on in clear, or asks for the other kind.
    pub fn declined(&mut self) {
        self.encryption = Encryption::None;
    }

    /// Looks at everything that has been read and not been used.
    /// After [`First::SslRequest`] and [`First::GssEncRequest`] the buffer is to be emptied.
    ///
    /// # Errors
    /// The connection is to be closed. PostgreSQL says so to the client only for a packet that
    /// was understood.
    pub fn next<'a>(&mut self, buffer: &'a [u8]) -> Result<First<'a>, Refused> {
        if self.encryption == Encryption::Asked {
            return Err(Refused::NotAnswered);
        }
        let nothing_asked = !self.ssl_asked && !self.gss_asked;
        if nothing_asked
            && self.encryption == Encryption::None
            && buffer.first() == Some(&TLS_HANDSHAKE)
        {
            self.ssl_asked = true;
            self.encryption = Encryption::Asked;
            return Ok(First::DirectTls);
        }
        let Some(word) = buffer.first_chunk::<4>() else {
            return Ok(First::More { buffer_bytes: 4 });
        };
        let length = match Length::of(*word) {
            Length::Packet(length) => length,
            Length::Wrong(said) => return Err(Refused::Length(said)),
        };
        let Some((packet, behind)) = buffer.split_at_checked(length) else {
            return Ok(First::More {
                buffer_bytes: length,
            });
        };
        match Packet::parse(&packet[4..]).map_err(Refused::Malformed)? {
            Packet::SslRequest => {
                let again = std::mem::replace(&mut self.ssl_asked, true);
                self.asked(again, behind)?;
                Ok(First::SslRequest)
            }
            Packet::GssEncRequest => {
                let again = std::mem::replace(&mut self.gss_asked, true);
                self.asked(again, behind)?;
                Ok(First::GssEncRequest)
            }
            Packet::Cancel(request) => Ok(First::Cancel(request)),
            Packet::Startup(startup) => Ok(First::Startup(startup, length)),
        }
    }

    fn asked(&mut self, again: bool, behind: &[u8]) -> Result<(), Refused> {
        if again || self.encryption == Encryption::Agreed {
            return Err(Refused::AskedAgain);
        }
        if !behind.is_empty() {
            return Err(Refused::BytesBehindRequest(behind.len()));
        }
        self.encryption = Encryption::Asked;
        Ok(())
    }
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
