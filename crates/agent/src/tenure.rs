//! What this agent holds in the store, shared between the loop, the keeper and the shell.
//!
//! **Invariant:** the deadline counts from the moment a renewal was *sent*, and only a renewal that was acknowledged
//! under the same leadership moves it.
//! **Invariant:** an office knows the lease that its leader key hangs on, and only renewals of that one count.

use crate::clock::now;
use ha::{Epoch, Instant, Lease, Settings};
use postgres::Instance;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::LeaseId;
use tokio::sync::Notify;

/// A loop that has not turned for so long hangs; it turns at least once a second.
const LOOP_HANGS: Duration = Duration::from_secs(3);

/// Whoever sees to it that no process of the instance outlives the deadline of an office.
pub(crate) trait Enforcer: Send + Sync {
    /// Moves the deadline forward.
    fn arm(&self, epoch: Epoch, deadline: Instant);
    /// Moves it back: the leader key is about to hang on a shorter lease.
    fn shorten(&self, epoch: Epoch, deadline: Instant);
}

/// Whatever guard holds the instance.
impl Enforcer for Instance {
    fn arm(&self, epoch: Epoch, deadline: Instant) {
        if let Some(guard) = self.guard() {
            guard.arm(epoch.0, deadline.0);
        }
    }

    fn shorten(&self, epoch: Epoch, deadline: Instant) {
        if let Some(guard) = self.guard() {
            guard.shorten(epoch.0, deadline.0);
        }
    }
}

/// The agent's lease and its leadership, if any.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    inner: Mutex<Inner>,
    taken: Notify,
}

#[derive(Debug, Default, Clone)]
struct Inner {
    session: Option<Session>,
    office: Option<Office>,
    heard: Option<Instant>,
    turned: Option<Instant>,
}

/// The lease that the member key hangs on, and what an office is taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) lease: LeaseId,
    /// What the store was asked for; a changed setting counts only from the next lease on.
    pub(crate) ttl: Duration,
}

impl Session {
    /// When the holder must be dead, by this lease's own time to live.
    fn deadline(self, sent: Instant) -> Instant {
        Settings {
            ttl: self.ttl,
            ..Settings::default()
        }
        .deadline(sent)
    }
}

/// The leadership of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Office {
    pub(crate) epoch: Epoch,
    /// Of a standby cluster, as the record of the epoch says.
    pub(crate) standby: bool,
    /// What the leader key hangs on. Another than the agent's own while it is being moved to that one.
    pub(crate) session: Session,
    pub(crate) deadline: Instant,
    /// When the last renewal that the store acknowledged was sent.
    pub(crate) renewed: Instant,
    /// Until then the members hold still: the leader key may be gone, nobody else takes it.
    pub(crate) held_until: Option<Instant>,
}

impl Inner {
    fn office_of(&mut self, epoch: Epoch) -> Option<&mut Office> {
        self.office.as_mut().filter(|office| office.epoch == epoch)
    }
}

impl Tenure {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.lock().session
    }

    pub(crate) fn set_session(&self, session: Option<Session>) {
        self.lock().session = session;
    }

    pub(crate) fn office(&self) -> Option<Office> {
        self.lock().office
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        self.lock().office.map(|office| Lease {
            epoch: office.epoch,
            deadline: office.deadline,
            by_members: office.held_until.is_some_and(|until| now() < until),
        })
    }

    /// Leadership begins: the claim that was sent at `sent` was committed.
    pub(crate) fn take_office(
        &self,
        epoch: Epoch,
        standby: bool,
        session: Session,
        sent: Instant,
    ) -> Office {
        let office = Office {
            epoch,
            standby,
            session,
            deadline: session.deadline(sent),
            renewed: sent,
            held_until: None,
        };
        self.lock().office = Some(office);
        self.taken.notify_one();
        office
    }

    /// Returns when an office was taken, once for each.
    pub(crate) async fn took_office(&self) {
        self.taken.notified().await;
    }

    /// A renewal of this office's lease, sent at `sent`, was acknowledged.
    pub(crate) fn renewed(&self, epoch: Epoch, sent: Instant, enforcer: &dyn Enforcer) {
        let mut inner = self.lock();
        if let Some(office) = inner.office_of(epoch) {
            office.deadline = office.deadline.max(office.session.deadline(sent));
            office.renewed = office.renewed.max(sent);
            enforcer.arm(epoch, office.deadline);
        }
    }

    /// Enough members have given their word, for `ttl` from when they were asked, at `sent` or later.
    pub(crate) fn held(&self, epoch: Epoch, sent: Instant, ttl: Duration, enforcer: &dyn Enforcer) {
        let settings = Settings {
            ttl,
            ..Settings::default()
        };
        let until = settings.deadline(sent);
        let mut inner = self.lock();
        // Too late is too late: what has ended by its deadline is not begun again.
        let alive = |office: &&mut Office| now() < office.deadline;
        if let Some(office) = inner.office_of(epoch).filter(alive) {
            office.held_until = office.held_until.max(Some(until));
            office.deadline = office.deadline.max(until);
            enforcer.arm(epoch, office.deadline);
        }
    }

    /// Whether the members hold still for this leadership.
    pub(crate) fn is_held(&self, epoch: Epoch) -> bool {
        let lease = self.lease();
        lease.is_some_and(|lease| lease.epoch == epoch && lease.by_members)
    }

    /// Whether the loop has not turned for too long. Whoever renews for a loop that hangs keeps a leadership that nobody
    /// exercises.
    pub(crate) fn loop_hangs(&self) -> bool {
        let last = self.last_turn();
        last.is_some_and(|last| now().since(last) > LOOP_HANGS)
    }

    /// Before the leader key is hung on `session`, at `sent`: from then on it may end as early as that lease does.
    /// Nobody arms the old deadline in between.
    pub(crate) fn shorten(
        &self,
        epoch: Epoch,
        session: Session,
        sent: Instant,
        enforcer: &dyn Enforcer,
    ) {
        let mut inner = self.lock();
        if let Some(office) = inner.office_of(epoch) {
            office.deadline = office.deadline.min(session.deadline(sent));
            enforcer.shorten(epoch, office.deadline);
        }
    }

    /// The leader key hangs on `session` now, by a transaction that was sent at `sent`.
    pub(crate) fn moved(
        &self,
        epoch: Epoch,
        session: Session,
        sent: Instant,
        enforcer: &dyn Enforcer,
    ) {
        if let Some(office) = self.lock().office_of(epoch) {
            office.session = session;
        }
        self.renewed(epoch, sent, enforcer);
    }

    /// Does something with the office while nobody else changes it.
    pub(crate) fn in_office(&self, act: impl FnOnce(Office)) {
        if let Some(office) = self.lock().office {
            act(office);
        }
    }

    /// Leadership of `epoch` is over, by release or because the store said so.
    pub(crate) fn leave_office(&self, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.office.is_some_and(|office| office.epoch == epoch) {
            inner.office = None;
        }
    }

    /// The lease is renewed no more and ends by itself: nobody leads by it while a process of ours may still live, and
    /// the guard keeps its deadline.
    pub(crate) fn let_end(&self) {
        let mut inner = self.lock();
        inner.office = None;
        inner.session = None;
    }

    /// The store answered something.
    pub(crate) fn heard(&self, at: Instant) {
        let mut inner = self.lock();
        inner.heard = inner.heard.max(Some(at));
    }

    /// The loop has looked and decided.
    pub(crate) fn turned(&self, at: Instant) {
        self.lock().turned = Some(at);
    }

    /// When the loop last decided.
    pub(crate) fn last_turn(&self) -> Option<Instant> {
        self.lock().turned
    }

    /// When the store last answered.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.lock().heard
    }
}
