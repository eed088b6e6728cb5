//! What becomes of a message of the server.

use super::super::ledger::{Expect, Values};
use super::{Fate, KEEP, Mind};
use crate::pool::Mirror;
use crate::prepared;
use crate::sql::{Deed, Pin, Pins, shows_all};
use std::collections::VecDeque;
use std::sync::Arc;
use wire::Reply;
use wire::backend::{self, Fields, TransactionStatus};

impl Mind {
    /// A message of the server's, which its session has been told of.
    pub(in crate::session) fn reply(
        &mut self,
        frame: &backend::Frame<'_>,
        reply: Reply,
        mirror: &mut Mirror,
    ) -> Fate {
        use backend::Tag;
        let (tag, body) = (frame.tag(), frame.body());
        self.again.spoil();
        match tag {
            Tag::ParseComplete | Tag::CloseComplete => return self.met(mirror),
            Tag::CommandComplete => return self.completed(body, mirror),
            // What sets something has one row, and that is what the limit has let through. When it goes on it is counted
            // as another one.
            Tag::PortalSuspended => drop(self.done()),
            Tag::ErrorResponse => {
                let unmet = self.ledger.current().fail();
                let asked = reply.request.map(|(kind, _)| kind);
                self.refused(asked, Fields::beginning(body), unmet, mirror);
            }
            Tag::ParameterStatus => {
                let message = backend::Message::parse(tag, body);
                if let Ok(backend::Message::ParameterStatus { name, value }) = message {
                    mirror.report(name.to_bytes(), value.to_bytes());
                    self.reported.push(name.to_bytes().into());
                    if self.withholds(name.to_bytes(), mirror) {
                        return Fate::Drop;
                    }
                }
            }
            Tag::ReadyForQuery if reply.completes => {
                let mut unmet = VecDeque::new();
                let answered = self.ledger.answered(&mut unmet);
                let failed = answered.as_ref().is_some_and(|asked| asked.failed);
                let owed = mirror.session.readies_owed();
                self.ledger.owed(owed, &mut unmet);
                if !unmet.is_empty() {
                    // Sent behind an error, and thrown away.
                    self.unmet(unmet, mirror);
                }
                self.ready(failed, mirror);
                if self.ledger.is_empty() {
                    self.again.clear();
                }
                if self.ledger.is_empty()
                    && mirror.session.transaction_status() == TransactionStatus::Idle
                {
                    self.weather.settle();
                }
                if self.ledger.is_empty()
                    && mirror.session.transaction_status() == TransactionStatus::InTransaction
                {
                    self.begun = answered.and_then(|asked| asked.begin);
                }
                let mut news = Vec::new();
                self.told(mirror, &mut news);
                if !news.is_empty() {
                    news.extend_from_slice(frame.bytes());
                    return Fate::Instead(news);
                }
            }
            _ => {}
        }
        Fate::Forward
    }

    fn met(&mut self, mirror: &mut Mirror) -> Fate {
        match self.ledger.current().met() {
            Some(Expect::Parsed(name, prepared)) => {
                self.statements.insert(name, prepared);
                Fate::Forward
            }
            Some(Expect::ParsedBefore(name, prepared)) => {
                self.statements.insert(name, prepared);
                Fate::Instead(b"1\0\0\0\x04".to_vec())
            }
            Some(Expect::Supplied(_) | Expect::Evicted(_)) => Fate::Drop,
            Some(Expect::Closed(name)) => {
                self.statements.remove(&name);
                Fate::Forward
            }
            Some(Expect::Unnamed { .. } | Expect::Passed) => Fate::Forward,
            Some(Expect::Taken { .. }) | None => {
                mirror.is_mixed_up = true;
                Fate::Forward
            }
        }
    }

    fn completed(&mut self, body: &[u8], mirror: &mut Mirror) -> Fate {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.statements.clear();
            mirror.known.clear();
            mirror.is_mixed_up = self.ledger.expects_shared();
        }
        if self.ledger.current().is_by_tags && !shows_all(tag) {
            self.journal.pin(Pins::default().with(Pin::TooLong));
        }
        match tag {
            b"COMMIT" | b"PREPARE TRANSACTION" => self.ledger.current().has_committed(),
            b"BEGIN" | b"START TRANSACTION" => self.ledger.current().has_begun(),
            _ => {}
        }
        let mut told = false;
        let mut fate = Fate::Forward;
        for deed in self.done() {
            told |= matches!(*deed, Deed::RollbackTo(_));
            if let Deed::Deallocate(name) = &*deed {
                self.statements.remove(name.as_bytes());
                if let Some(id) = prepared::id(name.as_bytes()) {
                    mirror.known.remove(&id);
                }
                if tag == KEEP.to_bytes() {
                    fate = Fate::Instead(b"C\0\0\0\x0fDEALLOCATE\0".to_vec());
                }
            }
        }
        if !told {
            self.journal.tag(tag);
        }
        fate
    }

    /// A statement has been done, as far as it was to be; gives what it did to the session.
    fn done(&mut self) -> Vec<Arc<Deed>> {
        let mut all = Vec::new();
        for (deed, values) in self.ledger.current().completed() {
            let values = values.as_deref();
            if values.is_none_or(Values::spend) {
                self.journal
                    .done(&deed, values.map_or(&[], |values| &values.all));
            }
            all.push(deed);
        }
        all
    }

    fn ready(&mut self, failed: bool, mirror: &Mirror) {
        let status = mirror.session.transaction_status();
        self.journal.ready(status, failed);
        if status != TransactionStatus::Idle {
            return;
        }
        // None outlives its transaction; those that a pipeline has bound behind it are to be.
        if self.ledger.is_empty() {
            self.portals.clear();
        }
        if self.reported.is_empty() {
            return;
        }
        for name in std::mem::take(&mut self.reported) {
            let value = mirror.parameters.get(&name);
            let (Some(value), Ok(text)) = (value, std::str::from_utf8(&name)) else {
                continue;
            };
            if self.takes_for_reset(&name, mirror) {
                continue;
            }
            let own = mirror.own.get(&name) == Some(value);
            if text == "session_authorization" && !own {
                self.journal.pin(Pins::default().with(Pin::Authorization));
            }
            if is_setting(text) {
                self.journal.reported(text, value, own);
            }
        }
    }
}

/// Reported parameters that a session may set.
fn is_setting(name: &str) -> bool {
    !matches!(
        name,
        "in_hot_standby"
            | "integer_datetimes"
            | "is_superuser"
            | "server_encoding"
            | "server_version"
            | "session_authorization"
    )
}
