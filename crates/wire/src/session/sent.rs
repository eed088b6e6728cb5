//! The direction to the server.
//!
//! **Invariant:** a message that is refused here has changed nothing, and must not be sent.

use super::request::{Entry, Name, Origin, Request};
use super::{Copying, Session, Violation};
use crate::frontend::{Frame, Tag, Target};
use crate::reader::Reader;
use std::ffi::CStr;

impl Session {
    /// A message goes to the server. Of one that comes in parts, the first part is told.
    ///
    /// # Errors
    /// It would break the connection, or cannot be remembered.
    pub fn sent(&mut self, frame: &Frame<'_>, origin: Origin) -> Result<(), Violation> {
        let tag = frame.tag();
        let sent = tag.name();
        if self.ended {
            return Err(Violation::AfterEnd { sent });
        }
        if tag == Tag::Password {
            let head = self.queue.front().map(|head| &head.request);
            return match head {
                Some(Request::Start) => Ok(()),
                _ => Err(Violation::OutOfTurn { sent }),
            };
        }
        match self.copying {
            Some(Copying::In) => return self.sent_into_copy(tag),
            Some(Copying::Both { client_done: false }) => match tag {
                Tag::CopyData | Tag::Terminate => return Ok(()),
                Tag::CopyDone => {
                    self.client_done();
                    return Ok(());
                }
                _ => return Err(Violation::OutOfTurn { sent }),
            },
            Some(Copying::Out | Copying::Both { client_done: true }) | None => {}
        }
        if self.skipping && tag != Tag::Sync {
            self.skipped |= !matches!(tag, Tag::CopyData | Tag::CopyDone | Tag::CopyFail);
            return Ok(());
        }
        let Some(request) = self.request(frame)? else {
            return Ok(());
        };
        if !self.has_room() {
            return Err(Violation::Full);
        }
        self.skipping = false;
        self.queued_bytes += request.bytes();
        self.queue.push_back(Entry {
            origin,
            request,
            answered: false,
        });
        Ok(())
    }

    fn sent_into_copy(&mut self, tag: Tag) -> Result<(), Violation> {
        match tag {
            Tag::CopyData | Tag::Flush | Tag::Terminate => {}
            Tag::CopyDone | Tag::CopyFail => self.client_done(),
            Tag::Sync => self.swallowed += 1,
            // The server would fail at it, and from PostgreSQL 14 on end the connection.
            _ => return Err(Violation::OutOfTurn { sent: tag.name() }),
        }
        Ok(())
    }

    /// What of a message waits for an answer, if anything.
    fn request(&self, frame: &Frame<'_>) -> Result<Option<Request>, Violation> {
        let tag = frame.tag();
        let mut reader = Reader::new(tag.name(), frame.body());
        Ok(Some(match tag {
            Tag::Parse => Request::Parse(name(reader.text()?)),
            Tag::Bind => Request::Bind {
                portal: name(reader.text()?),
                statement: name(reader.text()?),
            },
            Tag::Describe => match Target::parse(tag, frame.body())? {
                Target::Statement(_) => Request::DescribeStatement,
                Target::Portal(_) => Request::DescribePortal,
            },
            Tag::Close => match Target::parse(tag, frame.body())? {
                Target::Statement(closed) => Request::CloseStatement(name(closed)),
                Target::Portal(closed) => Request::ClosePortal(name(closed)),
            },
            Tag::Execute => Request::Execute,
            Tag::Sync => Request::Sync,
            Tag::Query => Request::Query,
            Tag::FunctionCall => Request::FunctionCall,
            Tag::CopyDone | Tag::CopyFail => match self.queue.back() {
                // With nothing before it, or another end, it is thrown away whatever comes.
                None => return Ok(None),
                Some(last) if matches!(last.request, Request::CopyEnd) => return Ok(None),
                Some(_) => Request::CopyEnd,
            },
            Tag::CopyData | Tag::Flush | Tag::Terminate | Tag::Password => return Ok(None),
        }))
    }
}

fn name(text: &CStr) -> Name {
    text.to_bytes().into()
}
