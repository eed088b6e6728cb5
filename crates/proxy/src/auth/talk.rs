//! One message after another, whole, as a login goes.

use crate::net::{Inbox, Stream};
use std::io;
use wire::{Direction, FrameError, Framer, Step};

/// A login that came to no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection ended")]
    Ended,
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("what was sent is no message")]
    Frame(#[from] FrameError),
}

/// Waits for the next message and copies it. Of one that is too long to be held, the beginning.
pub(crate) async fn next_message<D: Direction>(
    stream: &mut Stream,
    inbox: &mut Inbox,
    framer: &mut Framer<D>,
) -> Result<(D::Tag, Vec<u8>), Broken> {
    loop {
        let step = framer.next(inbox.unread())?;
        let taken = step.taken();
        let message = match step {
            Step::Message(frame) => Some((frame.tag(), frame.bytes().to_vec())),
            // The rest of one that is too long.
            Step::Part(_) => None,
            Step::More { buffer_bytes } => {
                inbox.want(buffer_bytes);
                if inbox.fill(stream).await? == 0 {
                    return Err(Broken::Ended);
                }
                continue;
            }
        };
        inbox.drop_unread(taken);
        if let Some((tag, bytes)) = message {
            return Ok((tag, bytes));
        }
    }
}
