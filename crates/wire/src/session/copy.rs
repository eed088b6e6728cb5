//! COPY, while its data flow.
//!
//! **Invariant:** what a client sent before it could know that the server would read its messages
//! as data of a COPY is read here the same way, in the same order.

use super::Session;
use super::request::Request;

/// Whose data flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    /// From the client, until it says CopyDone or CopyFail.
    In,
    /// To the client, until the server says CopyDone.
    Out,
    /// Both ways, as in replication; each side ends its own.
    Both { client_done: bool },
}

impl Session {
    /// The server reads data now. It takes them from what was sent behind the request, where it
    /// throws away Sync and Flush, and stops at the end of the data.
    pub(super) fn begin_reading(&mut self, copying: Copying) {
        self.copying = Some(copying);
        self.swallowed = 0;
        self.intruded = false;
        while let Some(next) = self.queue.get(1) {
            match next.request {
                Request::Sync if copying == Copying::In => self.swallowed += 1,
                Request::CopyEnd => {
                    self.queue.remove(1);
                    self.client_done();
                    return;
                }
                // No part of a COPY: the server will fail at it, if not before.
                _ => {
                    self.intruded = true;
                    return;
                }
            }
            self.queue.remove(1);
        }
    }

    /// The client has sent all its data.
    pub(super) fn client_done(&mut self) {
        self.copying = match self.copying {
            Some(Copying::Both { .. }) => Some(Copying::Both { client_done: true }),
            Some(Copying::In | Copying::Out) | None => None,
        };
    }

    /// The server is through with its part of a COPY.
    pub(super) fn server_done(&mut self) {
        self.copying = match self.copying {
            Some(Copying::Both { client_done: false }) => Some(Copying::In),
            Some(_) | None => None,
        };
    }

    /// An error has ended a COPY, perhaps before the server read what we took for swallowed.
    ///
    /// PostgreSQL 13 goes on after a message that does not belong into a COPY, without answering
    /// it; newer ones end the connection. Whether it was that message that failed is not known.
    pub(super) fn copy_failed(&mut self) {
        self.lost |= std::mem::take(&mut self.intruded);
        self.doubtful += std::mem::take(&mut self.swallowed);
        self.copying = None;
    }
}
