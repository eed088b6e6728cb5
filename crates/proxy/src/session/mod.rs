//! One client, from its greeting to its end.
//!
//! **Invariant:** a session is lost only for a reason that its client is told, unless the client
//! itself is gone or a message was cut in two.

mod again;
mod alarm;
mod attach;
mod closing;
mod greet;
mod ledger;
mod lookup;
mod lost;
mod mending;
mod mind;
mod portals;
mod probe;
mod pump;
mod standin;
mod statements;
mod unmet;

pub(crate) use closing::Closing;
pub(crate) use greet::{Shared, Wishes, serve};

use crate::auth::Credential;
use crate::cancel::{Key, Target};
use crate::errors;
use crate::net::{Inbox, Outbox, Stream};
use crate::options::Route;
use crate::pool::{Parameters, Permit, Pool, Refusal, Server, Startup, Welcome};
use crate::stats::Entry;
use alarm::Alarm;
use attach::{Attached, Unasked, Unattached};
use lost::{Moment, Outcome};
use mind::Mind;
use pump::Stopped;
use standin::{Next, StandIn, tell};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use wire::Step;
use wire::frontend::{Framer, Tag};

/// A client that is let in.
#[derive(Debug)]
pub(crate) struct Conversation {
    shared: Arc<Shared>,
    stream: Stream,
    inbox: Inbox,
    outbox: Outbox,
    framer: Framer,
    pool: Arc<Pool>,
    startup: Arc<Startup>,
    route: Route,
    credential: Credential,
    key: Key,
    mind: Mind,
    entry: Entry,
    alarm: Alarm,
    /// The parameters that the client was told last.
    told: Arc<Parameters>,
    /// What a server has said to a login with the session's settings; `None`: none was asked yet.
    welcome: Option<Arc<Welcome>>,
    is_greeted: bool,
    /// The losses of the cluster that it was there before.
    losses: u64,
    stand_in: Option<Box<StandIn>>,
    /// The client has said goodbye.
    leaving: bool,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client left.
    Left,
    /// It was told why.
    Told,
    /// The connection was cut within a message.
    Cut,
}

impl Conversation {
    /// Serves requests until the end.
    pub(crate) async fn run(&mut self) -> Ending {
        let mut attached: Option<Attached> = None;
        loop {
            let is_new = attached.is_none();
            if is_new {
                if let Err(ending) = self.rest().await {
                    return self.say_goodbye(ending).await;
                }
                let at_once = self.attach_at_once();
                let new = match at_once {
                    Ok(new) => Ok(new),
                    Err(permit) => self.attached(permit).await,
                };
                match new {
                    Ok(new) => {
                        self.is_with(&new.server);
                        attached = Some(new);
                    }
                    Err(why) => match self.unattached(why) {
                        Some(ending) => return self.say_goodbye(ending).await,
                        None => continue,
                    },
                }
            }
            let Some(Attached { mut server, permit }) = attached.take() else {
                continue;
            };
            if let Err(target) = self.aim(Some(&server.target)) {
                self.key.slot.aim(target).await;
            }
            let stopped = self.pump(&mut server, is_new).await;
            if let Err(target) = self.aim(None) {
                // A cancel is on its way: it must arrive before the server is somebody else's.
                self.key.slot.aim(target).await;
            }
            // While a server is asked what its session has become, it is shown as that session's still.
            if !matches!(stopped, Stopped::Opaque | Stopped::Mend(_)) {
                self.entry.rest();
            }
            self.entry.pin(self.mind.journal.pins());
            self.has_been_told(&server);
            match stopped {
                Stopped::Opaque => match self.look_behind(server, permit).await {
                    Ok(kept) => {
                        if kept.is_none() {
                            self.entry.rest();
                        }
                        self.entry.pin(self.mind.journal.pins());
                        attached = kept;
                    }
                    Err(Unasked::Gone) => return Ending::Left,
                    Err(Unasked::Lost) => {
                        self.entry.rest();
                        if let Some(ending) = self.lose(Moment::IDLE) {
                            return self.say_goodbye(ending).await;
                        }
                    }
                },
                Stopped::Idle => self.give_back(server, permit),
                Stopped::Mend(sql) => {
                    let moment = Moment::of(&server);
                    match Box::pin(self.set_right(&mut server, &sql)).await {
                        true => attached = Some(Attached { server, permit }),
                        false => {
                            drop((server, permit));
                            self.entry.rest();
                            if let Some(ending) = self.lose(moment) {
                                return self.say_goodbye(ending).await;
                            }
                        }
                    }
                }
                Stopped::Held if self.mind.is_tied() => {
                    // It can be rebuilt, and will be wherever the primary is then.
                    drop((server, permit));
                    self.mind.detached();
                }
                Stopped::Held => self.give_back(server, permit),
                // The pump sits it out.
                Stopped::Paused => attached = Some(Attached { server, permit }),
                Stopped::Left | Stopped::Gone => {
                    self.leave(server, permit).await;
                    return Ending::Left;
                }
                Stopped::Lost(moment) => {
                    drop((server, permit));
                    if let Some(ending) = self.lose(moment) {
                        return self.say_goodbye(ending).await;
                    }
                }
                Stopped::End(report) => {
                    tell(&report, self.outbox.room());
                    return self.say_goodbye(Ending::Told).await;
                }
                Stopped::EndSaid => return self.say_goodbye(Ending::Told).await,
            }
        }
    }

    /// Finds out what the session has become; gives the server back if it is needed no more.
    async fn look_behind(
        &mut self,
        mut server: Box<Server>,
        permit: Permit,
    ) -> Result<Option<Attached>, Unasked> {
        let seen = self.ask_server(Box::pin(probe::ask(&mut server))).await?;
        probe::note(&mut self.mind, seen, &server.mirror);
        self.unmask(&server);
        if self.mind.is_tied() {
            self.mind.stained = true;
            // A Query takes it away, and ours was one.
            self.mind.unnamed_here = false;
            return Ok(Some(Attached { server, permit }));
        }
        let settings = Arc::clone(self.mind.journal.settings());
        let reset = Box::pin(probe::reset(&settings, &mut server));
        self.ask_server(reset).await?;
        self.mind.detached();
        self.pool.put(server);
        drop(permit);
        Ok(None)
    }

    /// Sets right what was reset on a server that is lent; `false`: it is lost.
    async fn set_right(&mut self, server: &mut Server, sql: &[Vec<u8>]) -> bool {
        let limit = self.shared.limits.load().hold_time;
        let asked = tokio::time::timeout(limit, server.run_aside(sql)).await;
        self.mind.mending.is_done();
        self.tell_differences(server);
        // What it refuses it may refuse: then the transaction has failed, and takes everything back.
        matches!(asked, Ok(Ok(()) | Err(Refusal::Error(_))))
    }

    /// What was taken for reset, and has been set: now the client hears of it.
    fn unmask(&mut self, server: &Server) {
        let Some(loan) = &server.mirror.loan else {
            return;
        };
        let masked = self.mind.masks_only_what_is_reset();
        let parameters = loan.masked(&server.mirror.parameters, masked);
        self.tell_parameters(&parameters);
    }

    /// What the client has heard of its server's parameters.
    fn has_been_told(&mut self, server: &Server) {
        let masked = self.mind.mending.masked;
        match &server.mirror.loan {
            Some(loan) if !masked.is_empty() => {
                self.told = loan.masked(&server.mirror.parameters, masked);
            }
            _ => be_the_same(&mut self.told, &server.mirror.parameters),
        }
    }

    /// It can be seen from outside that the session has this server.
    fn is_with(&self, server: &Server) {
        if self.entry.attach(server.target.process_id, server.epoch.0) {
            self.shared.stats.moved.count();
        }
    }

    fn lose(&mut self, moment: Moment) -> Option<Ending> {
        self.mind.detached();
        self.shared.doubt.raise();
        let stats = Arc::clone(&self.shared.stats);
        match self.mind.lose(moment, self.outbox.room()) {
            Outcome::Unnoticed => None,
            Outcome::AskAgain(bytes) => {
                self.inbox.pass_cleared();
                self.inbox.put_back(&bytes);
                None
            }
            Outcome::Told => {
                stats.lost.count();
                None
            }
            Outcome::StandIn(stand_in) => {
                stats.lost.count();
                self.stand_in = Some(Box::new(stand_in));
                None
            }
            Outcome::End(report, why) => {
                stats.close(why);
                tracing::info!(user = &*self.pool.user, report = ?report, "a session ends with its server");
                tell(&report, self.outbox.room());
                Some(Ending::Told)
            }
            Outcome::Silent => {
                stats.close("cut within a message");
                tracing::warn!(
                    user = &*self.pool.user,
                    "a session ends within a message of its server"
                );
                self.outbox.forget();
                Some(Ending::Cut)
            }
        }
    }

    fn unattached(&mut self, why: Unattached) -> Option<Ending> {
        match why {
            Unattached::Gone => Some(Ending::Left),
            Unattached::Refused(report) => {
                let stand_in = match self.mind.begun.take() {
                    Some(_) => StandIn::for_unbegun(report),
                    None => StandIn::for_request(report),
                };
                self.stand_in = Some(Box::new(stand_in));
                None
            }
            Unattached::End(report) => {
                tell(&report, self.outbox.room());
                Some(Ending::Told)
            }
            Unattached::Said(body) => {
                let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
                self.outbox.push(b"E");
                self.outbox.push(&length.to_be_bytes());
                self.outbox.push(&body);
                Some(Ending::Told)
            }
        }
    }

    /// Without a server, until the client wants one.
    async fn rest(&mut self) -> Result<(), Ending> {
        loop {
            while self.inbox.is_worth_reading() {
                if self.look()? {
                    return Ok(());
                }
            }
            match std::future::poll_fn(|cx| self.poll_listen(cx)).await {
                None => {
                    tell(&errors::closing(), self.outbox.room());
                    return Err(Ending::Told);
                }
                Some(Ok(0) | Err(_)) => return Err(Ending::Left),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Says what is to be said, and reads once. `None`: the proxy closes, and the client has not begun anything.
    fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<usize>>> {
        if let Err(error) = ready!(self.outbox.poll_flush(cx, &mut self.stream)) {
            return Poll::Ready(Some(Err(error)));
        }
        match self.inbox.poll_fill(cx, &mut self.stream) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending if self.is_to_end() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether this is the moment to end: the proxy closes, and nothing was asked.
    fn is_to_end(&self) -> bool {
        self.shared.closing.has_begun()
            && self.stand_in.is_none()
            && self.inbox.is_empty()
            && !self.framer.within_message()
    }

    /// Looks at what the client has sent while it has no server; `true`: it needs one.
    fn look(&mut self) -> Result<bool, Ending> {
        // Looked at again by whoever gets it.
        let mut framer = self.framer.clone();
        let Ok(step) = framer.next(self.inbox.unread()) else {
            // Said on the way out; nobody waits for it.
            tell(&errors::protocol("invalid message"), self.outbox.room());
            return Err(Ending::Told);
        };
        let taken = step.taken();
        match step {
            Step::More { buffer_bytes } => {
                self.inbox.want(buffer_bytes);
                return Ok(false);
            }
            // The rest of what was answered or thrown away.
            Step::Part(_) => {}
            Step::Message(frame) => match (frame.tag(), &mut self.stand_in) {
                (Tag::Terminate, _) => return Err(Ending::Left),
                (_, Some(stand_in)) => {
                    match stand_in.answer(&frame, &mut self.mind, self.outbox.room()) {
                        Next::Stay => {}
                        Next::Leave => self.stand_in = None,
                        Next::Full => {
                            let why = "there are too many names in one request";
                            tell(&errors::too_much_prepared(why), self.outbox.room());
                            return Err(Ending::Told);
                        }
                    }
                }
                // A server would throw them away, too.
                (Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Flush, None) => {}
                (_, None) => return Ok(true),
            },
        }
        self.framer = framer;
        self.inbox.drop_unread(taken);
        Ok(false)
    }

    /// Cancels go there from now on, unless one is on its way.
    fn aim(&self, target: Option<&Arc<Target>>) -> Result<(), Option<Arc<Target>>> {
        self.key.slot.try_aim(target.cloned())
    }

    fn give_back(&mut self, mut server: Box<Server>, permit: Permit) {
        self.mind.detached();
        server.is_left_with(self.mind.journal.settings());
        self.pool.put(server);
        drop(permit);
    }

    /// The client is gone: what it leaves behind on a server goes too.
    async fn leave(&mut self, mut server: Box<Server>, permit: Permit) {
        // A message of which it has a part only is nobody else's.
        let is_half = self.framer.within_message() || self.inbox.has_cleared();
        if server.mirror.session.idle().is_err() || !server.outbox.is_empty() || is_half {
            return;
        }
        // What it has answered is for nobody any more.
        server.inbox.pass_cleared();
        let marked = self.mind.is_tied() || self.mind.opaque || self.mind.stained;
        let limit = self.shared.limits.load().hold_time;
        if marked && !matches!(tokio::time::timeout(limit, server.wipe()).await, Ok(Ok(()))) {
            return;
        }
        if !marked {
            server.is_left_with(self.mind.journal.settings());
        }
        self.pool.put(server);
        drop(permit);
    }

    async fn say_goodbye(&mut self, ending: Ending) -> Ending {
        // A client that does not listen has not heard it.
        let _ = pump::say_goodbye(self).await;
        ending
    }
}

/// Mostly they are already, and that is cheaper to see than to do.
fn be_the_same<T>(one: &mut Arc<T>, other: &Arc<T>) {
    if !Arc::ptr_eq(one, other) {
        *one = Arc::clone(other);
    }
}
