//! Sockets and the bytes on their way through them.
//!
//! **Invariant:** a connection that has nothing to do holds no buffer.

mod dial;
mod inbox;
mod keepalive;
mod outbox;
mod silence;
mod socket;

pub(crate) use dial::{DialError, Guise, dial};
pub(crate) use inbox::Inbox;
pub use keepalive::Keepalive;
pub(crate) use outbox::Outbox;
pub(crate) use silence::Vigil;
pub(crate) use socket::{Closer, Stream};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;
