//! PostgreSQL's frontend/backend protocol, versions 3.0 and 3.2, as values: framing, messages, and
//! what a connection is in the middle of.
//!
//! Bytes come in as slices of the caller's buffer and go out as slices of it. [`Framer`] finds
//! where messages begin and end, [`frontend::Message`] and [`backend::Message`] say what is in
//! them, [`startup`] reads what a client sends before the first message, [`scram`] computes, and
//! [`Session`] follows both directions of one connection to a server and knows what is still owed.
//!
//! **Invariant:** whatever the bytes are, nothing here panics, and nothing is allocated beyond what
//! [`Limits`] allows; a length is compared with its bound before anything else is done with it.
//!
//! **Invariant:** however a stream of bytes is cut into pieces, the same messages come out of it.
//!
//! It does not know sockets, time, random numbers, TLS, pools or SQL: the text of a statement is
//! carried, never read.

mod limits;

mod frame;

pub mod startup;

pub mod backend;
pub mod frontend;

pub mod scram;

mod session;

mod element;
mod list;
mod reader;
mod writer;

pub use element::Element;
pub use frame::{Bounds, Direction, Frame, FrameError, Framer, Stage, Step};
pub use limits::Limits;
pub use list::List;
pub use reader::{Flaw, Malformed};
pub use session::{Busy, Copying, Origin, Portal, Reply, RequestKind, Session, Violation};
pub use writer::Unwritable;

/// Bytes that are not for every eye: passwords, keys. What is printed is their number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hidden<'a>(pub &'a [u8]);

impl std::fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}
