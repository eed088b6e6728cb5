//! Bytes from a client to its server and back, while it has one.
//!
//! **Invariant:** a byte of the server reaches the client only under [`crate::gate::Stamp::while_current`].
//!
//! **Invariant:** who does not read is not read from: at most one buffer each way waits, and the
//! answers of ours that belong between.
//!
//! A wait may be cut off at any point: what was read is in the inboxes, what is to be written in
//! the outboxes, and both stay.

use super::Conversation;
use super::lost::Moment;
use super::mind::{Fate, Wrong};
use crate::errors;
use crate::net::{Inbox, Outbox};
use crate::options::Route;
use crate::pool::Server;
use std::io;
use std::task::{Context, Poll};
use wire::backend::{Fields, Report, Severity, SqlState, Tag, TransactionStatus};
use wire::{Step, frontend};

/// So much of ours may wait for a client before its server is read again, in bytes.
const WAITING_MAX: usize = 64 * 1024;

/// More than this is not copied to save a write, in bytes.
const COPIED_MAX: usize = 4 * 1024;

/// What may go before a message of the client's: a Close of a statement, and the Parse of another one. Their names
/// together, in bytes.
const AHEAD_MAX: usize = 2;
const NAMES_MAX: usize = 128;

/// Why the pump stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// Between two transactions, everything passed on: the server can go to somebody else.
    Idle,
    /// The client wants something new, and just now there is no primary. The server is idle.
    Held,
    /// Between two transactions, and nobody knows what the last one did to the session.
    Opaque,
    Lost(Moment),
    /// The client has said goodbye.
    Left,
    /// The client is gone, without a word.
    Gone,
    /// The session ends with this.
    End(Report),
    /// The session ends with what is in the client's outbox.
    EndSaid,
}

/// What happened.
enum Event {
    Passed,
    Read,
    ClientEnded,
    ServerEnded,
    Over,
}

impl Conversation {
    /// Runs until there is nothing more to do with this server.
    /// `is_new`: it has just got it, and where the primary is was looked at for that.
    pub(super) async fn pump(&mut self, server: &mut Server, is_new: bool) -> Stopped {
        let mut is_new = is_new;
        loop {
            if let Err(stopped) = self.hear_server(server) {
                return stopped;
            }
            if self.mind.opaque && self.is_settled(server) {
                return Stopped::Opaque;
            }
            if !std::mem::take(&mut is_new) && self.is_to_wait(server) {
                return Stopped::Held;
            }
            if self.is_over(server) {
                return Stopped::End(errors::closing());
            }
            // A server that is not the one to ask any more gets nothing new, also before its end is seen.
            if self.inbox.is_worth_reading()
                && !server.stamp.is_current()
                && self.is_settled(server)
            {
                return moment(server, &self.outbox);
            }
            if let Err(stopped) = self.hear_client(server) {
                return stopped;
            }
            if self.leaving && server.outbox.is_empty() && self.inbox.cleared().is_empty() {
                return Stopped::Left;
            }
            if self.is_done(server) {
                return Stopped::Idle;
            }
            if server.has_ended && self.outbox.is_empty() && server.inbox.cleared().is_empty() {
                return moment(server, &self.outbox);
            }
            if self.mind.is_tied() {
                self.entry.pin(self.mind.journal.pins());
                self.entry.keep(self.is_settled(server));
            }
            match std::future::poll_fn(|cx| self.poll(server, cx)).await {
                Event::Passed | Event::Read => {}
                // What it has said before is passed on first.
                Event::ServerEnded => server.has_ended = true,
                Event::ClientEnded => return Stopped::Gone,
                Event::Over => return moment(server, &self.outbox),
            }
        }
    }

    /// Whether the client begins something new that is not for this server any more.
    fn is_to_wait(&self, server: &Server) -> bool {
        self.inbox.is_worth_reading()
            && self.mind.journal.pins().is_empty()
            && self.is_settled(server)
            && self.route == Route::Write
            && (self.shared.seen.borrow().primary.is_err() || self.shared.pause.is_on())
    }

    /// Whether the proxy closes and this is between two transactions.
    fn is_over(&self, server: &Server) -> bool {
        self.is_to_end()
            && self.mind.ledger.is_empty()
            && self.outbox.is_empty()
            && server.inbox.is_empty()
            && server.outbox.is_empty()
            && server.mirror.session.idle().is_ok()
    }

    /// Whether the server is needed no more.
    fn is_done(&self, server: &Server) -> bool {
        !self.mind.is_tied() && self.inbox.is_empty() && self.is_settled(server)
    }

    /// Whether everything that was asked is answered, and the answers are passed on.
    fn is_settled(&self, server: &Server) -> bool {
        self.mind.ledger.is_empty()
            && self.inbox.cleared().is_empty()
            && self.outbox.is_empty()
            && server.inbox.is_empty()
            && server.outbox.is_empty()
            && !server.has_ended
            && server.mirror.session.idle().is_ok()
            && !self.framer.within_message()
    }

    /// Whether nothing waits to be written, to either side.
    fn is_written(&self, server: &Server) -> bool {
        self.outbox.is_empty()
            && server.outbox.is_empty()
            && self.inbox.cleared().is_empty()
            && server.inbox.cleared().is_empty()
    }

    /// Moves what can be moved; ready when something has come or all of it is gone.
    fn poll(&mut self, server: &mut Server, cx: &mut Context<'_>) -> Poll<Event> {
        let mut passed = false;
        join(&mut self.outbox, &mut server.inbox);
        join(&mut server.outbox, &mut self.inbox);
        while !self.outbox.is_empty() || !server.inbox.cleared().is_empty() {
            let ours = !self.outbox.is_empty();
            let bytes = match ours {
                true => self.outbox.rest(),
                false => server.inbox.cleared(),
            };
            let stream = &mut self.stream;
            match server.stamp.while_current(|| stream.poll_write(cx, bytes)) {
                Err(_) => return Poll::Ready(Event::Over),
                Ok(Poll::Pending) => break,
                Ok(Poll::Ready(Ok(0) | Err(_))) => return Poll::Ready(Event::ClientEnded),
                Ok(Poll::Ready(Ok(count))) => {
                    self.pool.work.sent.add(count as u64);
                    match ours {
                        true => self.outbox.sent(count),
                        false => server.inbox.passed(count),
                    }
                }
            }
            passed = true;
        }
        while !server.outbox.is_empty() || !self.inbox.cleared().is_empty() {
            let ours = !server.outbox.is_empty();
            let bytes = match ours {
                true => server.outbox.rest(),
                false => self.inbox.cleared(),
            };
            match server.stream.poll_write(cx, bytes) {
                Poll::Pending => break,
                // What it has said before it went is still to be heard.
                Poll::Ready(Ok(0) | Err(_)) => {
                    server.outbox.forget();
                    self.inbox.pass_cleared();
                    server.is_deaf = true;
                }
                Poll::Ready(Ok(count)) => {
                    self.pool.work.received.add(count as u64);
                    match ours {
                        true => server.outbox.sent(count),
                        false => self.inbox.passed(count),
                    }
                }
            }
            passed = true;
        }
        // What fails here fails again when it is read or written.
        let _ = self.stream.poll_flush(cx);
        let _ = server.stream.poll_flush(cx);
        if passed && self.is_written(server) {
            if self.mind.ledger.is_empty() || self.leaving || server.has_ended {
                return Poll::Ready(Event::Passed);
            }
            // With an answer to come there is nothing to be done before it does.
            passed = false;
        }
        if !server.has_ended && server.inbox.has_room() && self.outbox.len() < WAITING_MAX {
            match server.inbox.poll_fill(cx, &mut server.stream) {
                Poll::Pending if server.is_deaf => return Poll::Ready(Event::ServerEnded),
                Poll::Pending => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Event::ServerEnded),
                Poll::Ready(Ok(_)) if server.stamp.is_current() => return Poll::Ready(Event::Read),
                Poll::Ready(Ok(_)) => {
                    server.inbox.forget();
                    return Poll::Ready(Event::Over);
                }
            }
        }
        if !server.has_ended
            && !self.leaving
            && self.inbox.has_room()
            && server.outbox.len() < WAITING_MAX
        {
            match self.inbox.poll_fill(cx, &mut self.stream) {
                Poll::Pending => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Event::ClientEnded),
                Poll::Ready(Ok(_)) => return Poll::Ready(Event::Read),
            }
        }
        match passed || self.is_over(server) {
            true => Poll::Ready(Event::Passed),
            false => Poll::Pending,
        }
    }

    /// What it has said so far is still passed on, and nothing that comes behind it.
    fn end_of_server(&mut self, server: &mut Server) {
        self.outbox.push(server.inbox.cleared());
        server.inbox.forget();
        server.has_ended = true;
    }

    /// Looks at what the client has sent.
    fn hear_client(&mut self, server: &mut Server) -> Result<(), Stopped> {
        while self.inbox.is_worth_reading()
            && !self.leaving
            && server.mirror.session.has_room_behind(AHEAD_MAX, NAMES_MAX)
        {
            let broken = |_| Stopped::End(errors::protocol("invalid message"));
            let step = self.framer.next(self.inbox.unread()).map_err(broken)?;
            let taken = step.taken();
            let plan = match step {
                Step::More { buffer_bytes } => {
                    self.inbox.want(buffer_bytes);
                    return Ok(());
                }
                Step::Part(_) => {
                    self.inbox.clear(taken);
                    continue;
                }
                Step::Message(frame) if frame.tag() == frontend::Tag::Terminate => {
                    self.leaving = true;
                    return Ok(());
                }
                Step::Message(frame) => self.mind.request(&frame, &mut server.mirror),
            };
            let plan = plan.map_err(wrong)?;
            if plan.before.is_empty() && plan.instead.is_none() {
                self.inbox.clear(taken);
                continue;
            }
            server.outbox.push(self.inbox.cleared());
            self.inbox.pass_cleared();
            server.outbox.push(&plan.before);
            match plan.instead {
                Some(bytes) => {
                    server.outbox.push(&bytes);
                    self.inbox.drop_unread(taken);
                }
                None => self.inbox.clear(taken),
            }
        }
        Ok(())
    }

    /// Looks at what the server has sent.
    fn hear_server(&mut self, server: &mut Server) -> Result<(), Stopped> {
        while server.inbox.is_worth_reading() {
            let Ok(step) = server.framer.next(server.inbox.unread()) else {
                self.end_of_server(server);
                return Ok(());
            };
            let taken = step.taken();
            let frame = match step {
                Step::More { buffer_bytes } => {
                    server.inbox.want(buffer_bytes);
                    return Ok(());
                }
                Step::Part(_) => {
                    server.inbox.clear(taken);
                    continue;
                }
                Step::Message(frame) => frame,
            };
            if frame.tag() == Tag::ErrorResponse {
                let fields = Fields::beginning(frame.body());
                if matches!(fields.severity(), Some(Severity::Fatal | Severity::Panic)) {
                    if is_about_the_server(fields.sqlstate()) {
                        self.end_of_server(server);
                        return Ok(());
                    }
                    // Meant for this session: a timeout of its own, for one.
                    let bytes = frame.bytes().to_vec();
                    self.outbox.push(server.inbox.cleared());
                    self.outbox.push(&bytes);
                    return Err(Stopped::EndSaid);
                }
            }
            if frame.tag() == Tag::NoticeResponse && is_farewell(frame.body()) {
                self.end_of_server(server);
                return Ok(());
            }
            let Ok(reply) = server.mirror.session.received(&frame) else {
                self.end_of_server(server);
                return Ok(());
            };
            let fate = match frame.tag() {
                Tag::DataRow | Tag::CopyData | Tag::RowDescription | Tag::BindComplete => {
                    Fate::Forward
                }
                _ => self.mind.reply(&frame, reply, &mut server.mirror),
            };
            if frame.tag() == Tag::ReadyForQuery {
                self.pool.work.queries.count();
                if server.mirror.session.transaction_status() == TransactionStatus::Idle {
                    self.pool.work.transactions.count();
                }
            }
            match fate {
                Fate::Forward => server.inbox.clear(taken),
                Fate::Drop | Fate::Instead(_) => {
                    self.outbox.push(server.inbox.cleared());
                    server.inbox.pass_cleared();
                    server.inbox.drop_unread(taken);
                    if let Fate::Instead(bytes) = fate {
                        self.outbox.push(&bytes);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What little is to follow words of ours goes out with them: a write costs more than a copy.
fn join(outbox: &mut Outbox, inbox: &mut Inbox) {
    let follows = inbox.cleared();
    if !outbox.is_empty() && (1..=COPIED_MAX).contains(&follows.len()) {
        outbox.push(follows);
        inbox.pass_cleared();
    }
}

/// The server is lost: where its session was.
fn moment(server: &Server, outbox: &Outbox) -> Stopped {
    let due = !server.inbox.cleared().is_empty() || !outbox.is_empty();
    Stopped::Lost(Moment {
        status: server.mirror.session.transaction_status(),
        copying: server.mirror.session.copying(),
        cut: due || server.framer.within_message(),
        read_only: server.mirror.begins_read_only(),
    })
}

/// Whether it says that the server goes, and not the session alone.
fn is_about_the_server(sqlstate: Option<SqlState>) -> bool {
    let of_server = [
        errors::ADMIN_SHUTDOWN,
        errors::CRASH_SHUTDOWN,
        errors::CANNOT_CONNECT_NOW,
    ];
    sqlstate.is_none_or(|sqlstate| of_server.contains(&sqlstate))
}

/// The last word of a backend that must not do anything any more: it is a warning. Statements can warn with the same
/// codes, but not from there.
fn is_farewell(notice: &[u8]) -> bool {
    let fields = Fields::beginning(notice);
    match fields.sqlstate() {
        Some(errors::CRASH_SHUTDOWN) => true,
        Some(errors::ADMIN_SHUTDOWN) => fields.find(b'R') == Some(c"quickdie"),
        _ => false,
    }
}

fn wrong(wrong: Wrong) -> Stopped {
    Stopped::End(match wrong {
        Wrong::TooMuchPrepared => errors::too_much_prepared(&wrong.to_string()),
        wrong => errors::protocol(&wrong.to_string()),
    })
}

/// Writes what is left, as far as the client takes it at once or in a moment.
pub(super) async fn say_goodbye(conversation: &mut Conversation) -> io::Result<()> {
    let limit = std::time::Duration::from_secs(1);
    let flushed = async {
        conversation.outbox.flush(&mut conversation.stream).await?;
        conversation.stream.end().await
    };
    tokio::time::timeout(limit, flushed)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
