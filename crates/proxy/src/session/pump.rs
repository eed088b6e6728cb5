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
use super::mending::Mend;
use super::mind::{Fate, Wrong};
use crate::errors;
use crate::net::{Inbox, Outbox};
use crate::options::Route;
use crate::pool::Server;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use wire::backend::{Fields, Frame, Report, Severity, SqlState, Tag, TransactionStatus};
use wire::{Busy, Step, frontend};

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
    /// The same, while an administrator has paused the proxy, and the session can't do without this server.
    Paused,
    /// Everything is answered, and the server is to be asked this before anything else.
    Mend(Vec<Vec<u8>>),
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

impl Conversation {
    /// Runs until there is nothing more to do with this server.
    /// `is_new`: it has just got it, and where the primary is was looked at for that.
    pub(super) async fn pump(&mut self, server: &mut Server, is_new: bool) -> Stopped {
        let mut is_new = is_new;
        loop {
            let stopped = std::future::poll_fn(|cx| self.poll_pump(server, &mut is_new, cx)).await;
            if !matches!(stopped, Stopped::Paused) {
                return stopped;
            }
            if let Err(stopped) = Box::pin(self.sit_out(server)).await {
                return stopped;
            }
        }
    }

    /// Until the pause is over, or the server has something to say, or its end.
    async fn sit_out(&mut self, server: &mut Server) -> Result<(), Stopped> {
        self.entry.pin(self.mind.journal.pins());
        self.entry.wait(std::time::Instant::now());
        let shared = Arc::clone(&self.shared);
        let mut over = std::pin::pin!(shared.pause.over());
        let waited = std::future::poll_fn(|cx| {
            if shared.closing.has_begun() {
                return Poll::Ready(Err(Stopped::End(errors::closing())));
            }
            match over.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => self.poll_read(server, cx),
            }
        })
        .await;
        self.entry.keep(false);
        waited
    }

    fn poll_pump(
        &mut self,
        server: &mut Server,
        is_new: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Stopped> {
        loop {
            let moved = match self.turn(server, is_new, cx) {
                Ok(moved) => moved,
                Err(stopped) => return Poll::Ready(stopped),
            };
            if moved {
                continue;
            }
            if self.mind.is_tied() {
                self.entry.pin(self.mind.journal.pins());
                self.entry.keep(self.is_settled(server));
            }
            if let Err(stopped) = ready!(self.poll_read(server, cx)) {
                return Poll::Ready(stopped);
            }
        }
    }

    /// Looks at what has come, and passes on what can be passed on. `true`: what came from the client may not have been
    /// the last that there is to be done.
    fn turn(
        &mut self,
        server: &mut Server,
        is_new: &mut bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, Stopped> {
        if server.inbox.is_worth_reading() {
            self.hear_server(server)?;
        }
        if self.has_to_pass(server) {
            self.pass(server, cx)?;
        }
        let was_new = std::mem::take(is_new);
        if self.is_settled(server) {
            self.between_two(server, was_new)?;
        } else if self.mind.mending.is_due_at_once() && self.is_within(server) {
            self.mend(server)?;
        }
        let is_heard =
            self.inbox.is_worth_reading() && !self.is_paused(server) && self.hear_client(server)?;
        if is_heard {
            self.pass(server, cx)?;
        }
        if self.leaving && server.outbox.is_empty() && !self.inbox.has_cleared() {
            return Err(Stopped::Left);
        }
        if server.has_ended && self.outbox.is_empty() && !server.inbox.has_cleared() {
            return Err(moment(server, &self.outbox));
        }
        Ok(is_heard && self.mind.ledger.is_empty())
    }

    /// Everything is answered and passed on: whether this is where the session and its server part.
    fn between_two(&mut self, server: &Server, is_new: bool) -> Result<(), Stopped> {
        if self.mind.is_to_be_looked_at() {
            return Err(Stopped::Opaque);
        }
        if self.mind.mending.is_due() {
            self.mend(server)?;
        }
        if self.inbox.is_worth_reading() {
            if !is_new && self.is_to_wait() {
                return Err(Stopped::Held);
            }
            if self.is_paused(server) {
                return Err(Stopped::Paused);
            }
            // A server that is not the one to ask any more gets nothing new, also before its end is seen.
            if !server.stamp.is_current() {
                return Err(moment(server, &self.outbox));
            }
        }
        if self.is_to_end() {
            return Err(Stopped::End(errors::closing()));
        }
        // Needed no more.
        match self.inbox.is_empty() && !self.mind.is_tied() {
            true => Err(Stopped::Idle),
            false => Ok(()),
        }
    }

    /// Whether what the client begins is not for this server any more.
    fn is_to_wait(&self) -> bool {
        let has_no_primary =
            || self.route == Route::Write && self.shared.seen.borrow().primary.is_err();
        self.mind.journal.pins().is_empty() && (self.shared.pause.is_on() || has_no_primary())
    }

    /// Whether what the client begins must wait, and the server, which can't be given back, with it.
    fn is_paused(&self, server: &Server) -> bool {
        self.shared.pause.is_on()
            && !self.mind.journal.pins().is_empty()
            && self.mind.ledger.is_empty()
            && server.mirror.session.is_idle()
            && !self.framer.within_message()
    }

    /// Whether everything that was asked is answered, and the answers are passed on.
    fn is_settled(&self, server: &Server) -> bool {
        self.is_passed(server) && server.mirror.session.is_idle()
    }

    /// The same within a transaction.
    fn is_within(&self, server: &Server) -> bool {
        self.is_passed(server) && server.mirror.session.idle() == Err(Busy::InTransaction)
    }

    fn is_passed(&self, server: &Server) -> bool {
        self.mind.ledger.is_empty()
            && !self.inbox.has_cleared()
            && self.outbox.is_empty()
            && server.inbox.is_empty()
            && server.outbox.is_empty()
            && !server.has_ended
            && !self.framer.within_message()
    }

    /// Sees to what was reset on a server that is lent.
    fn mend(&mut self, server: &Server) -> Result<(), Stopped> {
        match self.mind.mend(&server.mirror) {
            Mend::Nothing => Ok(()),
            Mend::Part => Err(Stopped::Idle),
            Mend::Ask(sql) => Err(Stopped::Mend(sql)),
        }
    }

    /// Whether what the client has sent must wait until the server is set right.
    fn is_held_up(&self, server: &Server) -> bool {
        self.mind.mending.is_due()
            && !self.framer.within_message()
            && self.mind.waits_to_be_mended(&server.mirror)
    }

    /// Whether something may wait to be written. TLS says nothing of what it keeps.
    fn has_to_pass(&self, server: &Server) -> bool {
        !self.outbox.is_empty()
            || !server.outbox.is_empty()
            || self.inbox.has_cleared()
            || server.inbox.has_cleared()
            || self.stream.is_encrypted()
            || server.stream.is_encrypted()
    }

    /// Writes what can be written, to both sides.
    fn pass(&mut self, server: &mut Server, cx: &mut Context<'_>) -> Result<(), Stopped> {
        join(&mut self.outbox, &mut server.inbox);
        join(&mut server.outbox, &mut self.inbox);
        while !self.outbox.is_empty() || server.inbox.has_cleared() {
            let ours = !self.outbox.is_empty();
            let bytes = match ours {
                true => self.outbox.rest(),
                false => server.inbox.cleared(),
            };
            let stream = &mut self.stream;
            match server.stamp.while_current(|| stream.poll_write(cx, bytes)) {
                Err(_) => return Err(moment(server, &self.outbox)),
                Ok(Poll::Pending) => break,
                Ok(Poll::Ready(Ok(0) | Err(_))) => return Err(Stopped::Gone),
                Ok(Poll::Ready(Ok(count))) => {
                    self.pool.work.sent.add(count as u64);
                    match ours {
                        true => self.outbox.sent(count),
                        false => server.inbox.passed(count),
                    }
                }
            }
        }
        while !server.outbox.is_empty() || self.inbox.has_cleared() {
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
        }
        // What fails here fails again when it is read or written.
        let _ = self.stream.poll_flush(cx);
        let _ = server.stream.poll_flush(cx);
        Ok(())
    }

    /// Reads once, from either side.
    fn poll_read(
        &mut self,
        server: &mut Server,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        if !server.has_ended && server.inbox.has_room() && self.outbox.len() < WAITING_MAX {
            let is_ended = match server.inbox.poll_fill(cx, &mut server.stream) {
                Poll::Pending => server.is_deaf,
                Poll::Ready(Ok(0) | Err(_)) => true,
                Poll::Ready(Ok(_)) if server.stamp.is_current() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {
                    server.inbox.forget();
                    return Poll::Ready(Err(moment(server, &self.outbox)));
                }
            };
            if is_ended {
                // What it has said before is passed on first.
                server.has_ended = true;
                return Poll::Ready(Ok(()));
            }
        }
        if !server.has_ended
            && !self.leaving
            && self.inbox.has_room()
            && server.outbox.len() < WAITING_MAX
        {
            match ready!(self.inbox.poll_fill(cx, &mut self.stream)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Stopped::Gone)),
                Ok(_) => return Poll::Ready(Ok(())),
            }
        }
        Poll::Pending
    }

    /// What it has said so far is still passed on, and nothing that comes behind it.
    fn end_of_server(&mut self, server: &mut Server) {
        self.outbox.push(server.inbox.cleared());
        server.inbox.forget();
        server.has_ended = true;
    }

    /// Looks at what the client has sent; `true`: there was something.
    fn hear_client(&mut self, server: &mut Server) -> Result<bool, Stopped> {
        let mut is_heard = false;
        while self.inbox.is_worth_reading()
            && !self.leaving
            && server.mirror.session.has_room_behind(AHEAD_MAX, NAMES_MAX)
            && !self.is_held_up(server)
            && !self.mind.ledger.is_at_a_begin()
        {
            let broken = |_| Stopped::End(errors::protocol("invalid message"));
            let before = self.framer.clone();
            let step = self.framer.next(self.inbox.unread()).map_err(broken)?;
            if let Step::Message(frame) = &step
                && self.mind.waits_for_answers(frame, &server.mirror)
            {
                self.framer = before;
                return Ok(self.ask_for_answers(server) || is_heard);
            }
            let taken = step.taken();
            is_heard |= taken > 0;
            let plan = match step {
                Step::More { buffer_bytes } => {
                    self.inbox.want(buffer_bytes);
                    return Ok(is_heard);
                }
                Step::Part(_) => {
                    self.inbox.clear(taken);
                    continue;
                }
                Step::Message(frame) if frame.tag() == frontend::Tag::Terminate => {
                    self.leaving = true;
                    return Ok(true);
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
        Ok(is_heard)
    }

    /// Of what is not answered yet. `true`: the server is to hear of it.
    fn ask_for_answers(&mut self, server: &mut Server) -> bool {
        if !self.mind.is_to_flush() {
            return false;
        }
        server.outbox.push(self.inbox.cleared());
        self.inbox.pass_cleared();
        // The only one that it could be refused for is that the server has ended, which is seen to.
        server.send(&frontend::Message::Flush).is_ok()
    }

    /// Looks at what the server has sent.
    fn hear_server(&mut self, server: &mut Server) -> Result<(), Stopped> {
        // Of what is unread: it is passed on as it is.
        let mut looked = 0;
        loop {
            let unread = &server.inbox.unread()[looked..];
            if unread.is_empty() {
                server.inbox.clear(looked);
                return Ok(());
            }
            let frame = match server.framer.next(unread) {
                Ok(Step::Message(frame)) => frame,
                Ok(Step::Part(part)) => {
                    looked += part.len();
                    continue;
                }
                Ok(Step::More { buffer_bytes }) => {
                    server.inbox.clear(looked);
                    server.inbox.want(buffer_bytes);
                    return Ok(());
                }
                Err(_) => {
                    server.inbox.clear(looked);
                    self.end_of_server(server);
                    return Ok(());
                }
            };
            let (tag, taken) = (frame.tag(), frame.bytes().len());
            match farewell(&frame) {
                None => {}
                Some(Farewell::Server) => {
                    server.inbox.clear(looked);
                    self.end_of_server(server);
                    return Ok(());
                }
                // Meant for this session: a timeout of its own, for one.
                Some(Farewell::Session) => {
                    server.inbox.clear(looked + taken);
                    self.outbox.push(server.inbox.cleared());
                    return Err(Stopped::EndSaid);
                }
            }
            let Ok(reply) = server.mirror.session.received(&frame) else {
                server.inbox.clear(looked);
                self.end_of_server(server);
                return Ok(());
            };
            let fate = match tag {
                Tag::DataRow | Tag::CopyData | Tag::RowDescription | Tag::BindComplete => {
                    Fate::Forward
                }
                _ => self.mind.reply(&frame, reply, &mut server.mirror),
            };
            if tag == Tag::ReadyForQuery {
                self.pool.work.queries.count();
                if server.mirror.session.transaction_status() == TransactionStatus::Idle {
                    self.pool.work.transactions.count();
                }
            }
            if fate == Fate::Forward {
                looked += taken;
                continue;
            }
            server.inbox.clear(looked);
            self.outbox.push(server.inbox.cleared());
            server.inbox.pass_cleared();
            server.inbox.drop_unread(taken);
            looked = 0;
            if let Fate::Instead(bytes) = fate {
                self.outbox.push(&bytes);
            }
        }
    }
}

/// Who goes, by an error or a notice.
enum Farewell {
    Server,
    /// This one alone.
    Session,
}

#[inline]
fn farewell(frame: &Frame<'_>) -> Option<Farewell> {
    match frame.tag() {
        Tag::ErrorResponse => {
            let fields = Fields::beginning(frame.body());
            match fields.severity()? {
                Severity::Fatal | Severity::Panic if is_about_the_server(fields.sqlstate()) => {
                    Some(Farewell::Server)
                }
                Severity::Fatal | Severity::Panic => Some(Farewell::Session),
                _ => None,
            }
        }
        Tag::NoticeResponse => is_farewell(frame.body()).then_some(Farewell::Server),
        _ => None,
    }
}

/// What little is to follow words of ours goes out with them: a write costs more than a copy.
#[inline]
fn join(outbox: &mut Outbox, inbox: &mut Inbox) {
    if outbox.is_empty() {
        return;
    }
    let follows = inbox.cleared();
    if (1..=COPIED_MAX).contains(&follows.len()) {
        outbox.push(follows);
        inbox.pass_cleared();
    }
}

/// The server is lost: where its session was.
fn moment(server: &Server, outbox: &Outbox) -> Stopped {
    let due = server.inbox.has_cleared() || !outbox.is_empty();
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
    let codes = [errors::CRASH_SHUTDOWN, errors::ADMIN_SHUTDOWN];
    fields.sqlstate().is_some_and(|code| codes.contains(&code))
        && fields.find(b'R') == Some(c"quickdie")
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
