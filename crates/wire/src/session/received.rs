//! The direction from the server.
//!
//! **Invariant:** an answer belongs to the oldest request that is not answered in full; one that
//! does not fit it is an error, after which nothing is believed any more.

use super::names::ENTRY_BYTES;
use super::request::{Origin, Request, RequestKind};
use super::{Copying, Session, Violation};
use crate::backend::{Fields, Frame, Message, Severity, SqlState, Tag, TransactionStatus};
use crate::reader::Reader;

const QUERY_CANCELED: SqlState = SqlState(*b"57014");

/// What a message of the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The request, and who sent it; `None` for what nobody asked for.
    pub request: Option<(RequestKind, Origin)>,
    /// Whether that is all of the answer.
    pub completes: bool,
}

impl Session {
    /// A message came from the server. Of one that comes in parts, the first part is told.
    ///
    /// # Errors
    /// It answers nothing that was asked; from now on [`super::Busy::Lost`].
    pub fn received(&mut self, frame: &Frame<'_>) -> Result<Reply, Violation> {
        let tag = frame.tag();
        let head = self.queue.front();
        let request = head.and_then(|head| Some((head.request.kind()?, head.origin)));
        // Rows come by the million, and from the second on they change nothing.
        if tag == Tag::DataRow
            && matches!(
                request,
                Some((RequestKind::Query | RequestKind::Execute, _))
            )
            && head.is_some_and(|head| head.answered)
            && self.is_sure()
        {
            return Ok(Reply {
                request,
                completes: false,
            });
        }
        let taken = self.take(frame, request.map(|(kind, _)| kind));
        self.lost |= taken.is_err();
        let completes = taken?;
        let asked = !matches!(tag, Tag::ParameterStatus | Tag::NotificationResponse);
        Ok(Reply {
            request: request.filter(|_| asked),
            completes,
        })
    }

    /// Whether the head of the queue is what the server is at, and no COPY goes on.
    fn is_sure(&self) -> bool {
        self.copying.is_none() && self.doubtful == 0 && !self.early
    }

    /// Whether the message completes the answer to the head of the queue, which is of this kind.
    fn take(&mut self, frame: &Frame<'_>, kind: Option<RequestKind>) -> Result<bool, Violation> {
        let tag = frame.tag();
        match tag {
            Tag::NoticeResponse | Tag::NotificationResponse => return Ok(false),
            Tag::ParameterStatus => return self.report(frame).map(|()| false),
            Tag::ErrorResponse => return Ok(self.fail(Fields::beginning(frame.body()))),
            Tag::ReadyForQuery => return self.become_ready(frame),
            _ => {}
        }
        let (Some(kind), Some(head)) = (kind, self.queue.front_mut()) else {
            return Err(self.unexpected(tag));
        };
        let first = !std::mem::replace(&mut head.answered, true);
        let completes = match (kind, tag) {
            (
                RequestKind::Start,
                Tag::Authentication | Tag::BackendKeyData | Tag::NegotiateProtocolVersion,
            ) => false,
            (RequestKind::Parse, Tag::ParseComplete)
            | (RequestKind::Bind, Tag::BindComplete)
            | (RequestKind::CloseStatement | RequestKind::ClosePortal, Tag::CloseComplete)
            | (RequestKind::DescribePortal, Tag::RowDescription | Tag::NoData)
            | (RequestKind::Execute, Tag::EmptyQueryResponse | Tag::PortalSuspended) => true,
            (RequestKind::DescribeStatement, Tag::ParameterDescription) if first => false,
            (RequestKind::DescribeStatement, Tag::RowDescription | Tag::NoData) if !first => true,
            (RequestKind::FunctionCall, Tag::FunctionCallResponse) if first => false,
            (RequestKind::Query, Tag::RowDescription | Tag::EmptyQueryResponse) => false,
            (RequestKind::Execute | RequestKind::Query, Tag::CommandComplete) => {
                self.complete(frame)?;
                kind == RequestKind::Execute
            }
            (RequestKind::Execute | RequestKind::Query, _) if self.flows(tag) => false,
            _ => return Err(self.unexpected(tag)),
        };
        // An answer that fits, to something younger than the doubt: nothing older is left.
        if self.copying.is_none() {
            self.doubtful = 0;
            self.early = false;
        }
        if first {
            self.begun(kind);
        }
        if completes {
            self.succeed();
        }
        Ok(completes)
    }

    /// Whether the message is rows, or belongs to a COPY that goes on or begins with it.
    fn flows(&mut self, tag: Tag) -> bool {
        let sends = matches!(self.copying, Some(Copying::Out | Copying::Both { .. }));
        match tag {
            Tag::DataRow => return true,
            Tag::CopyData => return sends,
            Tag::CopyDone if sends => self.server_done(),
            Tag::CopyInResponse => self.begin_reading(Copying::In),
            Tag::CopyOutResponse => self.copying = Some(Copying::Out),
            Tag::CopyBothResponse => self.begin_reading(Copying::Both { client_done: false }),
            _ => return false,
        }
        true
    }

    fn unexpected(&self, tag: Tag) -> Violation {
        Violation::Unexpected {
            reply: tag.name(),
            owed: self.queue.front().and_then(|head| head.request.kind()),
        }
    }

    /// The server has begun with the head of the queue: a query takes the unnamed ones away.
    fn begun(&mut self, kind: RequestKind) {
        if kind == RequestKind::Query {
            self.names.drop_statement(&[]);
            self.names.drop_portal(&[]);
        }
    }

    /// A part of a batch has been done.
    fn succeed(&mut self) {
        self.batch_open = true;
        let bytes_max = self.limits.remembered_bytes_max;
        match self.pop() {
            Some(Request::Parse(name)) => self.names.prepare(name, bytes_max),
            Some(Request::Bind { portal, statement }) => {
                self.names.bind(portal, statement, bytes_max);
            }
            Some(Request::CloseStatement(name)) => self.names.drop_statement(&name),
            Some(Request::ClosePortal(name)) => self.names.drop_portal(&name),
            _ => {}
        }
        self.drop_copy_ends();
    }

    /// A statement has been done. Its tag tells when it took the prepared statements away.
    fn complete(&mut self, frame: &Frame<'_>) -> Result<(), Violation> {
        self.copying = None;
        self.swallowed = 0;
        // Hardly any other tag needs to be read.
        if let [b'A'..=b'C' | b'E'..=b'Z', .., 0] = frame.body() {
            return Ok(());
        }
        let tag = Reader::new(frame.tag().name(), frame.body()).text()?;
        if matches!(tag.to_bytes(), b"DEALLOCATE ALL" | b"DISCARD ALL") {
            self.names.drop_named_statements();
        }
        Ok(())
    }

    fn become_ready(&mut self, frame: &Frame<'_>) -> Result<bool, Violation> {
        let status = match frame.body() {
            [status] => TransactionStatus::of(*status),
            _ => None,
        };
        let Some(status) = status else {
            // Says what is wrong with it.
            frame.message()?;
            return Err(self.unexpected(frame.tag()));
        };
        let answers = self.queue.front().is_some_and(|head| match head.request {
            Request::Start | Request::Sync | Request::Nothing => true,
            Request::Query | Request::FunctionCall => head.answered,
            _ => false,
        });
        if answers {
            // What was skipped was answered if this belongs to a Sync that was not swallowed.
            self.unsure |= self.skipped && (self.doubtful > 0 || self.early);
            self.pop();
            self.drop_copy_ends();
        } else if self.doubtful > 0 && !self.skipped {
            // The COPY had failed before it read this Sync.
            self.doubtful -= 1;
            self.skipping = false;
        } else if self.early && !self.skipped {
            self.early = false;
        } else {
            return Err(self.unexpected(frame.tag()));
        }
        self.status = status;
        self.batch_open = false;
        self.copying = None;
        self.skipped = false;
        if status == TransactionStatus::Idle {
            self.names.drop_portals();
        }
        Ok(answers)
    }

    /// Whether the error completes the answer to the head of the queue.
    fn fail(&mut self, fields: Fields<'_>) -> bool {
        if matches!(fields.severity(), Some(Severity::Fatal | Severity::Panic)) {
            self.ended = true;
            return false;
        }
        self.copy_failed();
        let Some(head) = self.queue.front_mut() else {
            self.expect_ready();
            return false;
        };
        let first = !std::mem::replace(&mut head.answered, true);
        let extended = head.request.is_extended();
        let kind = head.request.kind().filter(|_| first);
        // A timeout can strike while the server waits within a batch, before it has read the
        // request that we take the error for an answer to.
        self.early |= first && self.batch_open && fields.sqlstate() == Some(QUERY_CANCELED);
        if !extended {
            if let Some(kind) = kind {
                self.begun(kind);
            }
            return false;
        }
        let head = self.queue.front();
        if matches!(head.map(|it| &it.request), Some(Request::Parse(name)) if name.is_empty()) {
            // It went before the new text was looked at.
            self.names.drop_statement(&[]);
        }
        self.skip();
        true
    }

    /// The server throws away what it reads up to the next Sync.
    fn skip(&mut self) {
        self.pop();
        self.skipped = false;
        while let Some(head) = self.queue.front() {
            match head.request {
                Request::Sync => return,
                Request::CopyEnd => {}
                _ => self.skipped = true,
            }
            self.pop();
        }
        self.skipping = true;
    }

    /// The server has failed while it waited for a request, and will say that it is ready.
    fn expect_ready(&mut self) {
        self.queue.push_front(super::request::Entry {
            origin: Origin::Proxy,
            request: Request::Nothing,
            answered: true,
        });
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.queue.pop_front()?.request;
        self.queued_bytes -= request.bytes();
        Some(request)
    }

    /// What was sent as the end of a COPY, and was none, the server throws away.
    #[inline]
    fn drop_copy_ends(&mut self) {
        while matches!(self.queue.front(), Some(head) if matches!(head.request, Request::CopyEnd)) {
            self.pop();
        }
    }

    fn report(&mut self, frame: &Frame<'_>) -> Result<(), Violation> {
        let Message::ParameterStatus { name, value } = frame.message()? else {
            return Err(self.unexpected(frame.tag()));
        };
        let (name, value) = (name.to_bytes(), value.to_bytes());
        let known = self.parameters.get(name);
        let freed = known.map_or(0, |known| ENTRY_BYTES + name.len() + known.len());
        let bytes = self.parameter_bytes - freed + ENTRY_BYTES + name.len() + value.len();
        if bytes > self.limits.remembered_bytes_max {
            return Err(Violation::TooManyParameters);
        }
        self.parameter_bytes = bytes;
        self.parameters.insert(name.into(), value.into());
        Ok(())
    }
}
