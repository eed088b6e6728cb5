//! What a client sends before the first message: packets without a type byte.
//!
//! It does not know TLS or GSSAPI: it says what was asked for, and what must not follow.

mod opening;
mod packet;
mod parameters;
mod version;

pub use opening::{First, Opening, Refused};
pub use packet::{CancelRequest, Packet, StartupMessage};
pub use parameters::Replication;
pub use version::{Agreed, Unsupported, Version};

pub use crate::limits::{CANCEL_SECRET_BYTES_MAX, STARTUP_BODY_BYTES_MAX};
