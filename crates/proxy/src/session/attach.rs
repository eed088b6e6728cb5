//! A session gets a server: from the pool, or a new one, or it waits until there is a primary.
//!
//! **Invariant:** who waits is served in the order of coming, waits no longer than `hold_time`, and is
//! forgotten when it leaves.
//!
//! **Invariant:** a server that comes out of here looks to the client as its last one did.

use super::{Conversation, be_the_same};
use crate::errors;
use crate::hold::Held;
use crate::options::{OnLossyFailover, Route};
use crate::pool::{ConnectError, InVain, Parameters, Permit, Refusal, Server};
use ha::Epoch;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use wire::Origin;
use wire::backend::{Message, Report};
use wire::frontend;

/// Between two attempts to reach a primary that does not let us in yet.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// So much is read ahead of a client that waits; then it is only looked at again when it is served.
const AHEAD_MAX: usize = 64 * 1024;
/// Who waits for a place of the pool looks so often whether those who have one still get servers.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// So many statements are prepared at once for a session that has moved.
const PORTION: usize = 200;
const SYNC: &[u8] = b"S\0\0\0\x04";
const LOST_AT_ONCE: &str = "a connection to the server was lost before the session had it";
const IN_USE: &str = "all connections to the server are in use";

/// A server, and the right to have it.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) server: Box<Server>,
    pub(super) permit: Permit,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Unattached {
    /// The client is gone.
    Gone,
    /// The request is answered with this, and the session goes on.
    Refused(Report),
    /// The session ends with this.
    End(Report),
    /// The session ends with the server's own words.
    Said(Vec<u8>),
}

/// Why a server did not answer.
#[derive(Debug)]
pub(super) enum Unasked {
    /// The client is gone.
    Gone,
    /// It is lost, or answers nothing.
    Lost,
}

/// What a wait is broken off for.
enum Interrupted {
    Gone,
    Canceled,
    Late,
    Closing,
}

impl Conversation {
    /// The next server, by a longer way than [`Self::attach_at_once`].
    pub(super) async fn attached(
        &mut self,
        permit: Option<Permit>,
    ) -> Result<Attached, Unattached> {
        if permit.is_some() || !self.is_usual() {
            return Box::pin(self.attach_or_wait(permit, None)).await;
        }
        let (permit, wait) = self.stand_in_line().await?;
        match self.take_idle(permit) {
            Ok(attached) => Ok(attached),
            Err(permit) => Box::pin(self.attach_or_wait(Some(permit), Some(wait))).await,
        }
    }

    /// What most transactions meet: nobody waits, and a server lies idle that is as the session wants it.
    /// Otherwise it may have a permit already.
    pub(super) fn attach_at_once(&mut self) -> Result<Attached, Option<Permit>> {
        if !self.is_usual() {
            return Err(None);
        }
        let permit = self.pool.try_permit().ok_or(None)?;
        self.take_idle(permit).map_err(Some)
    }

    /// Whether it wants the primary, and nobody has paused the proxy.
    fn is_usual(&self) -> bool {
        self.route != Route::Read && !self.shared.pause.is_on()
    }

    /// A server that lies idle and is as the session wants it.
    fn take_idle(&mut self, permit: Permit) -> Result<Attached, Permit> {
        let epoch = {
            let topology = self.shared.seen.borrow();
            if topology.losses != self.losses || topology.primary.is_err() {
                return Err(permit);
            }
            topology.epoch
        };
        let Some(server) = self.take(epoch, None) else {
            return Err(permit);
        };
        let settings = self.mind.journal.settings();
        let is_lent = server.mirror.loan.is_some();
        let is_furnished = match is_lent {
            false => server.has(settings),
            true => server.has(&server.wanted(settings)),
        };
        if !is_furnished || self.is_to_be_prepared() || self.mind.begun.is_some() {
            self.pool.put(server);
            return Err(permit);
        }
        if !is_lent {
            // One copy of what is the same, which is seen at a glance the next time.
            be_the_same(&mut self.startup, &server.startup);
            self.mind.journal.share(&server.applied);
        }
        self.tell_differences(&server);
        Ok(Attached { server, permit })
    }

    /// One that lies idle: started with the session's settings, or else lent to it, which in session mode none is. It is
    /// still to be given what the session has.
    fn take(&mut self, epoch: Epoch, address: Option<&str>) -> Option<Box<Server>> {
        if let Some(mut server) = self.pool.take(&self.startup, epoch, address) {
            server.lend_no_more();
            let known = self.welcome.as_ref();
            if !known.is_some_and(|known| Arc::ptr_eq(known, &server.welcome)) {
                self.welcome = Some(Arc::clone(&server.welcome));
            }
            return Some(server);
        }
        let welcome = self.welcome.as_ref().filter(|_| self.mind.renames())?;
        self.pool.borrow(&self.startup, welcome, epoch, address)
    }

    /// Waits for a connection while all are in use, where that can be seen from outside.
    async fn stand_in_line(&mut self) -> Result<(Permit, Wait), Unattached> {
        let begun = Instant::now();
        self.entry.wait(begun.into_std());
        self.key.slot.begin_to_wait();
        let mut wait = self.wait_from(begun);
        let permit = self.next_in_line(&mut wait).await;
        self.entry.rest();
        self.has_waited(begun);
        Ok((permit?, wait))
    }

    /// Behind those who came before. While these wait for a server in vain, it is no queue for a pool any more: then
    /// it is counted among those who wait for a primary.
    async fn next_in_line(&mut self, wait: &mut Wait) -> Result<Permit, Unattached> {
        let pool = Arc::clone(&self.pool);
        let mut turn = pin!(pool.permit());
        loop {
            match self.pool.why_in_vain() {
                Some(why) => {
                    wait.why = Cow::Owned(why);
                    self.hold(wait)?;
                }
                None => {
                    wait.why = Cow::Borrowed(IN_USE);
                    wait.held = None;
                }
            }
            let look_again = wait.deadline.min(Instant::now() + LOOK_AGAIN);
            match self.until(look_again, &mut wait.held, turn.as_mut()).await {
                Ok(Some(permit)) => return Ok(permit),
                Ok(None) => return Err(Unattached::End(errors::closing())),
                Err(Interrupted::Late) if look_again < wait.deadline => {}
                Err(interrupted) => return Err(self.broken_off(interrupted, &wait.why)),
            }
        }
    }

    fn wait_from(&self, begun: Instant) -> Wait {
        Wait {
            begun,
            deadline: begun + self.shared.limits.load().hold_time,
            held: None,
            is_next: false,
            in_vain: None,
            why: Cow::Borrowed(IN_USE),
        }
    }

    fn has_waited(&self, since: Instant) {
        let waited = since.elapsed();
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.pool.work.waited.add(micros);
        self.shared.stats.waited(waited);
    }

    /// The long way, on which it can be seen from outside that the session waits. `permit`: if it has one already;
    /// `wait`: what it had to wait for that.
    pub(super) async fn attach_or_wait(
        &mut self,
        permit: Option<Permit>,
        wait: Option<Wait>,
    ) -> Result<Attached, Unattached> {
        let begun = Instant::now();
        let wait = wait.unwrap_or_else(|| self.wait_from(begun));
        self.entry.wait(wait.begun.into_std());
        self.key.slot.begin_to_wait();
        let attached = self.attach(wait, permit).await;
        self.entry.rest();
        self.has_waited(begun);
        attached
    }

    /// Waits for a server and makes it the session's own.
    async fn attach(
        &mut self,
        mut wait: Wait,
        permit: Option<Permit>,
    ) -> Result<Attached, Unattached> {
        if self.shared.pause.is_on() {
            wait.why = Cow::Borrowed("an administrator has paused the proxy");
            self.hold(&mut wait)?;
            let shared = Arc::clone(&self.shared);
            self.wait(&mut wait, shared.pause.over()).await?;
        }
        let permit = match permit.or_else(|| self.pool.try_permit()) {
            Some(permit) => permit,
            None => self.next_in_line(&mut wait).await?,
        };
        wait.is_next = true;
        let mut pause = PAUSE_MIN;
        loop {
            let attempt = self.attempt(&mut wait).await?;
            match attempt {
                Ok(mut server) => {
                    if self.furnish(&mut server, &mut wait).await? {
                        self.tell_differences(&server);
                        return Ok(Attached { server, permit });
                    }
                    wait.why = Cow::Borrowed(LOST_AT_ONCE);
                }
                Err(why) => wait.why = Cow::Owned(why),
            }
            // A change of the cluster is news at once, and so is a connection less.
            let (shared, pool) = (Arc::clone(&self.shared), Arc::clone(&self.pool));
            let next = async move {
                tokio::select! {
                    () = shared.changed() => {}
                    () = pool.freed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            };
            self.hold(&mut wait)?;
            self.wait(&mut wait, next).await?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Once: a server, or the reason why there is none yet.
    async fn attempt(
        &mut self,
        wait: &mut Wait,
    ) -> Result<Result<Box<Server>, String>, Unattached> {
        let losses = self.shared.seen.borrow().losses;
        if losses != self.losses {
            let is_told = *self.shared.on_lossy_failover.load() == OnLossyFailover::Disconnect;
            if is_told && self.is_greeted {
                self.shared.stats.close("lossy failover");
                return Err(Unattached::End(errors::lossy()));
            }
            // It goes on, or has seen nothing yet: the loss is none of its own any more.
            self.losses = losses;
        }
        let at = match self.shared.place(self.route) {
            Ok(at) => at,
            Err(why) => {
                wait.why = Cow::Owned(why.clone());
                self.hold(wait)?;
                let (shared, route) = (Arc::clone(&self.shared), self.route);
                let there = async move {
                    loop {
                        let changed = shared.changed();
                        if shared.place(route).is_ok() {
                            return;
                        }
                        changed.await;
                    }
                };
                self.wait(wait, there).await?;
                return Ok(Err(why));
            }
        };
        // Epochs of a standby's own say nothing of another server.
        let address = (self.route == Route::Read).then_some(&*at.address);
        if let Some(server) = self.take(at.epoch, address) {
            return Ok(Ok(server));
        }
        let pool = Arc::clone(&self.pool);
        let (startup, credential) = (Arc::clone(&self.startup), self.credential.clone());
        let opening = pool.open(&startup, &credential, &at);
        match self.wait(wait, Box::pin(opening)).await? {
            Ok(server) => {
                self.welcome = Some(Arc::clone(&server.welcome));
                Ok(Ok(server))
            }
            Err(error) if error.is_retryable() => {
                self.shared.doubt.raise();
                tracing::debug!(user = &*pool.user, %error, "no connection to the primary yet");
                Ok(Err(error.to_string()))
            }
            Err(ConnectError::Refused { body, .. }) => Err(Unattached::Said(body)),
            Err(error) => {
                tracing::warn!(user = &*pool.user, %error, "can't log in at the primary");
                let report = Report::fatal(
                    errors::INVALID_AUTHORIZATION,
                    "the proxy can't log in at the server",
                );
                Err(Unattached::End(report.detail(&error.to_string())))
            }
        }
    }

    /// Gives the server what the session has; `false`: it was lost over it.
    async fn furnish(&mut self, server: &mut Server, wait: &mut Wait) -> Result<bool, Unattached> {
        let settings = server.wanted(self.mind.journal.settings());
        if !server.has(&settings) {
            match self.wait(wait, server.restore(&settings)).await? {
                Ok(()) => {}
                Err(Refusal::Lost) => return Ok(false),
                Err(Refusal::Error(why)) => {
                    self.shared.stats.close("unmovable");
                    let report = errors::unmovable("settings that another server refuses");
                    return Err(Unattached::End(report.hint(&why)));
                }
            }
        }
        if self.is_to_be_prepared() {
            for portion in to_prepare(&self.mind) {
                // One that can't be prepared any more is missing when it is used, and the client hears of it.
                let asked = server.send_bytes(&portion, Origin::Proxy);
                let lost = |done| matches!(done, Err(Refusal::Lost));
                if asked.is_err() || lost(self.wait(wait, server.finish()).await?) {
                    return Ok(false);
                }
            }
        }
        let Some(begin) = self.mind.begun.clone() else {
            return Ok(true);
        };
        match self.wait(wait, server.run(&begin)).await? {
            Ok(()) => Ok(true),
            Err(Refusal::Lost) => Ok(false),
            Err(Refusal::Error(why)) => {
                let report = errors::lost_transaction();
                Err(Unattached::Refused(report.hint(&why)))
            }
        }
    }

    /// Whether a new server must have the session's statements before anything else.
    fn is_to_be_prepared(&self) -> bool {
        self.mind.is_tied() && !self.mind.statements.is_empty() || self.mind.journal.has_prepared()
    }

    /// The client hears of parameters that are not what it was told last.
    pub(super) fn tell_differences(&mut self, server: &Server) {
        if !Arc::ptr_eq(&self.told, &server.mirror.parameters) {
            self.tell_parameters(&server.mirror.parameters);
        }
    }

    pub(super) fn tell_parameters(&mut self, parameters: &Arc<Parameters>) {
        let none = BTreeMap::new();
        let told = match self.is_greeted {
            true => &*self.told,
            false => &none,
        };
        for (name, value) in parameters.iter() {
            if told.get(name) == Some(value) {
                continue;
            }
            let text = |bytes: &[u8]| std::ffi::CString::new(bytes).unwrap_or_default();
            let (name, value) = (text(name), text(value));
            let message = Message::ParameterStatus {
                name: &name,
                value: &value,
            };
            // It came in a message of the same form.
            let _ = message.encode(self.outbox.room());
        }
        self.told = Arc::clone(parameters);
    }

    /// Takes a place among those who wait, if it has none.
    fn hold(&mut self, wait: &mut Wait) -> Result<(), Unattached> {
        if wait.is_next {
            wait.in_vain = Some(self.pool.wait_in_vain(&wait.why));
        }
        if wait.held.is_none() {
            let held = self.shared.hold.enter(self.inbox.unread().len());
            let stats = &self.shared.stats;
            let held = held.map_err(|full| {
                stats.refused.count();
                let why = self.shared.reason(&format!("{}; {full}", wait.why));
                Unattached::Refused(errors::held_too_long(&why))
            })?;
            stats.held.count();
            wait.held = Some(held);
        }
        Ok(())
    }

    /// Waits for something, unless the client leaves, cancels, or has waited for long enough.
    async fn wait<T>(
        &mut self,
        wait: &mut Wait,
        something: impl Future<Output = T>,
    ) -> Result<T, Unattached> {
        let done = self.until(wait.deadline, &mut wait.held, something).await;
        done.map_err(|interrupted| self.broken_off(interrupted, &wait.why))
    }

    /// The same; gives what it is broken off for.
    async fn until<T>(
        &mut self,
        deadline: Instant,
        held: &mut Option<Held>,
        something: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut something = pin!(something);
        std::future::poll_fn(|cx| match something.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_interrupted(deadline, held, cx).map(Err),
        })
        .await
    }

    /// Asks a server something for the session, between two transactions. What is under way then can't be canceled.
    pub(super) async fn ask_server<T>(
        &mut self,
        asked: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Unasked> {
        let deadline = Instant::now() + self.shared.limits.load().hold_time;
        let mut asked = pin!(asked);
        std::future::poll_fn(|cx| match asked.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(answered.map_err(|_| Unasked::Lost)),
            Poll::Pending if self.poll_gone(&mut None, cx).is_ready() => {
                Poll::Ready(Err(Unasked::Gone))
            }
            Poll::Pending if self.shared.closing.has_begun() => Poll::Ready(Err(Unasked::Lost)),
            Poll::Pending => self.alarm.poll(deadline, cx).map(|()| Err(Unasked::Lost)),
        })
        .await
    }

    /// What ends any wait. Whoever gives up or closes wakes the task.
    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        held: &mut Option<Held>,
        cx: &mut Context<'_>,
    ) -> Poll<Interrupted> {
        if self.poll_gone(held, cx).is_ready() {
            return Poll::Ready(Interrupted::Gone);
        }
        if self.key.slot.has_given_up() {
            return Poll::Ready(Interrupted::Canceled);
        }
        if self.shared.closing.has_begun() {
            return Poll::Ready(Interrupted::Closing);
        }
        self.alarm.poll(deadline, cx).map(|()| Interrupted::Late)
    }

    fn broken_off(&self, interrupted: Interrupted, why: &str) -> Unattached {
        match interrupted {
            Interrupted::Gone => Unattached::Gone,
            Interrupted::Canceled => Unattached::Refused(errors::canceled()),
            Interrupted::Closing => Unattached::End(errors::closing()),
            Interrupted::Late => {
                self.shared.stats.refused.count();
                let reason = self.shared.reason(why);
                if self.shared.hold.in_vain.is_due() {
                    let (user, database) = (&*self.pool.user, &*self.pool.database);
                    tracing::warn!(
                        user,
                        database,
                        reason = &*reason,
                        "a request got no server in time"
                    );
                }
                Unattached::Refused(errors::held_too_long(&reason))
            }
        }
    }

    /// Until the client leaves. What it sends meanwhile counts where it is held.
    fn poll_gone(&mut self, held: &mut Option<Held>, cx: &mut Context<'_>) -> Poll<()> {
        while self.inbox.unread().len() < AHEAD_MAX && held.as_ref().is_none_or(Held::has_room) {
            match ready!(self.inbox.poll_fill(cx, &mut self.stream)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(count) => held.iter_mut().for_each(|held| held.grow(count)),
            }
        }
        Poll::Pending
    }
}

/// A wait under way.
#[derive(Debug)]
pub(super) struct Wait {
    begun: Instant,
    deadline: Instant,
    held: Option<Held>,
    /// It has a place of the pool, and others wait for that.
    is_next: bool,
    in_vain: Option<InVain>,
    why: Cow<'static, str>,
}

/// What prepares what the client has prepared, in the order of nothing in particular: none needs another. In portions,
/// each to be answered before the next one.
fn to_prepare(mind: &super::mind::Mind) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for sql in mind.journal.prepared() {
        let text: Vec<u8> = sql.iter().copied().filter(|byte| *byte != 0).collect();
        let text = std::ffi::CString::new(text).unwrap_or_default();
        let mut bytes = Vec::new();
        let encoded = frontend::Message::Query(&text).encode(&mut bytes);
        debug_assert!(encoded.is_ok(), "it came in a message");
        all.push(bytes);
    }
    if mind.mode == crate::options::PoolMode::Session {
        for (name, prepared) in mind.statements.iter() {
            let mut bytes = Vec::new();
            prepared.parse(name, &mut bytes);
            // Each for itself: one whose table is gone must not take the others with it.
            bytes.extend_from_slice(SYNC);
            all.push(bytes);
        }
    }
    all.chunks(PORTION).map(<[_]>::concat).collect()
}
