//! What one connection to a server is in the middle of, told by the messages of both directions.
//!
//! Every message that goes to the server is told to [`Session::sent`], in order, and every message
//! that comes from it to [`Session::received`]. How far the two have drifted apart does not matter:
//! requests are queued until they are answered, and take effect when they are.
//!
//! **Invariant:** [`Session::idle`] says yes only if the server has answered everything, waits for
//! the next request, and is in no transaction.
//!
//! **Invariant:** a prepared statement or portal that the server has from the protocol is known
//! here, unless [`Session::has_forgotten`]. The other way round, a portal may be known that is gone
//! already, until its transaction ends.
//!
//! It does not know SQL: of PREPARE and DEALLOCATE it sees only what a command tag gives away.

mod busy;
mod copy;
mod names;
mod received;
mod request;
mod sent;
mod violation;

#[cfg(test)]
mod tests;

pub use busy::Busy;
pub use copy::Copying;
pub use names::Portal;
pub use received::Reply;
pub use request::{Origin, RequestKind};
pub use violation::Violation;

use crate::Limits;
use crate::backend::TransactionStatus;
use names::Names;
use request::{Entry, Request};
use std::collections::{BTreeMap, VecDeque};

/// The state of one connection to a server.
#[derive(Debug, Clone)]
pub struct Session {
    limits: Limits,
    /// What the server has not answered in full, oldest first.
    queue: VecDeque<Entry>,
    /// What the entries of the queue hold in bytes.
    queued_bytes: usize,
    status: TransactionStatus,
    copying: Option<Copying>,
    /// Syncs that a COPY from the client has read and thrown away.
    swallowed: usize,
    /// Of these, those of a COPY that failed: it may have failed before it read them, and then
    /// they are answered after all.
    doubtful: usize,
    /// Behind a COPY from the client stands a message that it cannot read.
    intruded: bool,
    /// The last error may have come before the request that it was taken to answer was read; then
    /// that request is answered after all.
    early: bool,
    /// Such a doubt that no later answer can end.
    unsure: bool,
    /// After an error in a batch the server throws away what it reads up to a Sync.
    skipping: bool,
    /// It has thrown away something, as far as we know.
    skipped: bool,
    /// The server has answered parts of a batch that no Sync has ended.
    batch_open: bool,
    names: Names,
    parameters: BTreeMap<Box<[u8]>, Box<[u8]>>,
    parameter_bytes: usize,
    ended: bool,
    lost: bool,
}

impl Session {
    /// A connection whose startup packet is on its way.
    pub fn starting(limits: Limits) -> Self {
        let mut session = Self::ready(limits);
        session.queue.push_back(Entry {
            origin: Origin::Proxy,
            request: Request::Start,
            answered: false,
        });
        session
    }

    /// A connection that has just said ReadyForQuery for the first time.
    pub fn ready(limits: Limits) -> Self {
        Self {
            limits,
            queue: VecDeque::new(),
            queued_bytes: 0,
            status: TransactionStatus::Idle,
            copying: None,
            swallowed: 0,
            intruded: false,
            doubtful: 0,
            early: false,
            unsure: false,
            skipping: false,
            skipped: false,
            batch_open: false,
            names: Names::default(),
            parameters: BTreeMap::new(),
            parameter_bytes: 0,
            ended: false,
            lost: false,
        }
    }

    /// What the server said last about the transaction. Not what will be true when it has
    /// answered everything.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether the server reads or sends the data of a COPY.
    pub fn copying(&self) -> Option<Copying> {
        self.copying
    }

    /// What the server has not answered in full, oldest first.
    pub fn unanswered(&self) -> impl Iterator<Item = (RequestKind, Origin)> + '_ {
        let asked = |entry: &Entry| Some((entry.request.kind()?, entry.origin));
        self.queue.iter().filter_map(asked)
    }

    /// How many ReadyForQuery are still to come for what was sent.
    pub fn readies_owed(&self) -> usize {
        let ends = |entry: &&Entry| {
            matches!(
                entry.request,
                Request::Sync | Request::Query | Request::FunctionCall
            )
        };
        self.queue.iter().filter(ends).count()
    }

    /// Whether the server throws away what it is sent, up to a Sync: a request has failed in a batch. Should that turn out
    /// to be wrong, its next answer breaks the connection: nothing that is sent meanwhile is ever taken for answered.
    #[inline]
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether there is no doubt about that: the error was not one that may have come before its request was read.
    pub fn skips_certainly(&self) -> bool {
        let is_doubtful = self.early || self.unsure || self.doubtful > 0 || self.lost;
        self.skipping && !is_doubtful && self.copying.is_none()
    }

    /// Whether another request may be sent. If not, the client is to be read from only when
    /// answers have come.
    pub fn has_room(&self) -> bool {
        self.has_room_behind(0, 0)
    }

    /// The same, if so many others with names of so many bytes are sent before it.
    pub fn has_room_behind(&self, requests: usize, bytes: usize) -> bool {
        self.queue.len() + requests < self.limits.unanswered_max
            && self.queued_bytes + bytes < self.limits.remembered_bytes_max
    }

    /// The value that the server last reported of a parameter.
    pub fn parameter(&self, name: &[u8]) -> Option<&[u8]> {
        self.parameters.get(name).map(AsRef::as_ref)
    }

    /// All reported parameters, by name.
    pub fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all = self.parameters.iter();
        all.map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The names of the server's prepared statements, as of its last answer; the unnamed one's is empty.
    pub fn statements(&self) -> impl Iterator<Item = &[u8]> {
        self.names.statements()
    }

    /// The portals of the server, as of its last answer, and perhaps some that it has dropped.
    pub fn portals(&self) -> impl Iterator<Item = Portal<'_>> {
        self.names.portals()
    }

    /// Whether there were more names than [`Limits::remembered_bytes_max`] allows to remember.
    pub fn has_forgotten(&self) -> bool {
        self.names.has_forgotten()
    }

    /// Whether the server has said, or will say next, that it ends the connection.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}
