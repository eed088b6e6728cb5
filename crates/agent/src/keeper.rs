//! Keeps the agent's lease, the member key and, in office, the beat. A task of its own: however long the loop or a job
//! takes, the lease is renewed, and when the store no longer agrees the office ends.

mod member;
#[cfg(test)]
pub(crate) mod tests;

use self::member::{Written, due, fresh_member, note, text};
use crate::clock::now;
use crate::figures::Figures;
use crate::tenure::{Enforcer, Office, Session, Tenure};
use ha::{Epoch, Lsn, NodeName, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::layout::{EpochRecord, Keys, MemberRecord, StatusRecord};
use store::{Guard, Outcome, Store, StoreError, Txn};
use tokio::sync::{Notify, watch};

/// A lease that was not granted is asked for again after this, and then after ever more: an agent that restarts in
/// office has no time to lose, and its store may be electing.
const FIRST_TRIES: Duration = Duration::from_millis(25);
/// What changes together is written together.
const TOGETHER: Duration = Duration::from_millis(20);

/// What the loop tells the keeper.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// What the member key says; none until the node is registered.
    pub(crate) member: Option<MemberRecord>,
    /// The primary's flush position, as leader of this epoch. Until it is primary what stands is said again.
    pub(crate) optime: Option<(Epoch, Lsn)>,
    /// Where the leader's permanent slots are.
    pub(crate) slots: BTreeMap<String, Lsn>,
    /// What a leader puts into `failsafe`, if that is to be changed; `Some(None)` deletes it.
    pub(crate) failsafe: Option<Option<String>>,
    pub(crate) settings: Settings,
}

/// The parts that the keeper works with.
pub(crate) struct Keeper {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) me: NodeName,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) said: watch::Receiver<Said>,
    pub(crate) enforcer: Arc<dyn Enforcer>,
    pub(crate) figures: Arc<Figures>,
    /// Wakes the loop when the office has ended.
    pub(crate) wake: Arc<Notify>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Runs until its task is aborted.
    pub(crate) async fn run(mut self) {
        let mut written: Option<Written> = None;
        let mut misses = 0;
        // Of which office it was said.
        let mut hanging = None;
        loop {
            if !self.tenure.loop_hangs() {
                hanging = None;
            }
            let said = self.said.borrow_and_update().clone();
            let session = self.session(&said.settings).await;
            misses = session.as_ref().map_or(misses + 1, |_| 0);
            match session {
                Ok(session) => match self.tenure.office() {
                    Some(office) if self.tenure.loop_hangs() => {
                        if hanging.replace(office.epoch) != Some(office.epoch) {
                            tracing::warn!(
                                epoch = office.epoch.0,
                                "the agent's loop hangs: the lease is not renewed"
                            );
                        }
                    }
                    Some(office) if office.session.lease != session.lease => {
                        self.move_office(office, session).await;
                        // Until it is known where the leader key hangs, no beat counts.
                        if !self.is_moved() {
                            tokio::time::sleep(said.settings.beat).await;
                        }
                        continue;
                    }
                    Some(office) => self.beat(&said, session, office, &mut written).await,
                    None => self.stay(&said, session, &mut written).await,
                },
                Err(error) => {
                    tracing::debug!(%error, "no lease yet");
                    let rest = FIRST_TRIES * 2_u32.pow(misses.min(8));
                    tokio::time::sleep(rest.min(said.settings.ttl / 3)).await;
                    continue;
                }
            }
            self.pause(&said.settings, written.as_ref()).await;
        }
    }

    /// In office the next beat is never late; otherwise a changed member key is written soon.
    async fn pause(&mut self, settings: &Settings, written: Option<&Written>) {
        if self.tenure.office().is_some() {
            return tokio::time::sleep(settings.beat).await;
        }
        let lease = self.tenure.session().map(|session| session.lease);
        let said = &mut self.said;
        let due = |said: &watch::Receiver<Said>| {
            let said = said.borrow();
            let member = said.member.as_ref()?;
            due(member, lease, written)
        };
        let changed = async {
            // What is due already was tried just now; the store did not take it.
            let mut wait = due(said).filter(|wait| !wait.is_zero());
            loop {
                let limit = wait.unwrap_or(Duration::MAX);
                match tokio::time::timeout(limit, said.changed()).await {
                    Err(_) => return,
                    Ok(Err(_)) => std::future::pending().await,
                    Ok(Ok(())) => wait = due(said),
                }
                if wait.is_some_and(|wait| wait.is_zero()) {
                    return tokio::time::sleep(TOGETHER).await;
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(settings.ttl / 3, changed) => {}
            // The others wait for the first beat.
            () = self.tenure.took_office() => {}
        }
    }

    /// The lease, granted anew when it ended or when its time to live was changed; not while the leader key still
    /// moves to the last one.
    async fn session(&self, settings: &Settings) -> Result<Session, StoreError> {
        let held = self.tenure.session();
        let good = |session: &Session| session.ttl == settings.ttl || !self.is_moved();
        if let Some(session) = held.filter(good) {
            return Ok(session);
        }
        let lease = match (self.store.grant(settings.ttl).await, held) {
            (Ok(lease), _) => lease,
            // The one that is held goes on to be renewed.
            (Err(_), Some(held)) => return Ok(held),
            (Err(error), None) => return Err(error),
        };
        let session = Session {
            lease,
            ttl: settings.ttl,
        };
        self.tenure.heard(now());
        self.tenure.set_session(Some(session));
        Ok(session)
    }

    /// The leader key, if this node has it, hangs on the lease that the keeper renews.
    fn is_moved(&self) -> bool {
        match (self.tenure.office(), self.tenure.session()) {
            (Some(office), Some(session)) => office.session.lease == session.lease,
            (None, _) | (_, None) => true,
        }
    }

    fn still_leader(&self, office: Office) -> Txn {
        Txn::new()
            .when(Guard::Equals {
                key: self.keys.leader(),
                value: self.me.to_string(),
            })
            .when(self.still_mine(office))
    }

    /// Nobody has claimed since: no number is given twice.
    fn still_mine(&self, office: Office) -> Guard {
        Guard::Equals {
            key: self.keys.epoch(),
            value: self.epoch_record(office),
        }
    }

    fn epoch_record(&self, office: Office) -> String {
        let record = EpochRecord {
            standby: office.standby,
            ..EpochRecord::new(office.epoch, self.me.clone())
        };
        serde_json::to_string(&record).unwrap_or_default()
    }

    /// Hangs the leader key on another lease of mine: the time to live was changed, perhaps while a claim was on its
    /// way. What is not known to have moved is moved again.
    async fn move_office(&self, office: Office, session: Session) {
        if self.take_again(office, session).await {
            return;
        }
        let txn = self.still_leader(office).renew(session.lease).put_leased(
            self.keys.leader(),
            self.me.as_str(),
            session.lease,
        );
        let sent = now();
        let (epoch, enforcer) = (office.epoch, &*self.enforcer);
        self.tenure.shorten(epoch, session, sent, enforcer);
        match self.commit_in_time(txn, session).await {
            Ok(outcome) if outcome.is_committed() => {
                self.tenure.heard(now());
                self.tenure.moved(epoch, session, sent, enforcer);
                tracing::info!(epoch = epoch.0, ttl = ?session.ttl, "the leadership hangs on another lease");
            }
            Ok(_) => self.lost(office, "the store no longer has this node as leader"),
            Err(StoreError::LeaseEnded(_)) => {
                self.tenure.set_session(None);
                self.lost(office, "the lease has ended");
            }
            Err(error) => tracing::debug!(%error, "the leadership is not moved yet"),
        }
    }

    /// The leader key ended with its lease, and the members have held still: nobody has claimed, and this node takes
    /// the key again, in the same epoch. False: it can't, or need not.
    async fn take_again(&self, office: Office, session: Session) -> bool {
        if !self.tenure.is_held(office.epoch) {
            return false;
        }
        let txn = Txn::new()
            .when(Guard::Absent {
                key: self.keys.leader(),
            })
            .when(self.still_mine(office))
            .renew(session.lease)
            .put_leased(self.keys.leader(), self.me.as_str(), session.lease)
            // A key that is younger than the epoch is taken for Patroni's.
            .put(self.keys.epoch(), self.epoch_record(office));
        let sent = now();
        match self.commit_in_time(txn, session).await {
            Ok(outcome) if outcome.is_committed() => {
                self.tenure.heard(now());
                self.tenure
                    .moved(office.epoch, session, sent, &*self.enforcer);
                tracing::warn!(
                    epoch = office.epoch.0,
                    "the store is back: the leadership is taken again"
                );
            }
            Ok(_) => return false,
            Err(StoreError::LeaseEnded(_)) => self.tenure.set_session(None),
            Err(error) => tracing::debug!(%error, "the leadership is not taken again yet"),
        }
        true
    }

    /// One transaction: still the leader of this epoch, here is my position, renew my lease.
    async fn beat(
        &self,
        said: &Said,
        session: Session,
        office: Office,
        written: &mut Option<Written>,
    ) {
        let mut txn = self.still_leader(office).renew(session.lease);
        // What was seen before the claim is of another epoch.
        if let Some((_, optime)) = said.optime.filter(|(epoch, _)| *epoch == office.epoch) {
            let status = StatusRecord {
                optime,
                slots: said.slots.clone(),
            };
            let status = serde_json::to_string(&status).unwrap_or_default();
            txn = txn.put(self.keys.status(), status);
        }
        match &said.failsafe {
            Some(Some(listed)) => txn = txn.put(self.keys.failsafe(), listed.as_str()),
            Some(None) => txn = txn.delete(self.keys.failsafe()),
            None => {}
        }
        let fresh = fresh_member(said, session, written.as_ref());
        if let Some(member) = &fresh {
            txn = txn.put_leased(self.keys.member(&self.me), text(member), session.lease);
        }
        let sent = now();
        match self.commit_in_time(txn, session).await {
            Ok(outcome) if outcome.is_committed() => {
                self.tenure.heard(now());
                self.figures.answered(now().since(sent));
                self.tenure.renewed(office.epoch, sent, &*self.enforcer);
                note(written, session, fresh, sent);
            }
            Ok(_) if self.take_again(office, session).await => {}
            Ok(_) => self.lost(office, "the store no longer has this node as leader"),
            Err(StoreError::LeaseEnded(_)) => {
                self.tenure.set_session(None);
                if !self.tenure.is_held(office.epoch) {
                    self.lost(office, "the lease has ended");
                }
            }
            Err(error) => tracing::debug!(%error, "beat not acknowledged"),
        }
    }

    /// A beat that hangs (its way to the store's leader is cut) must leave time for the next.
    async fn commit_in_time(&self, txn: Txn, session: Session) -> Result<Outcome, StoreError> {
        let patience = session.ttl / 4;
        tokio::time::timeout(patience, self.store.commit(txn))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown("a beat took too long".to_owned())))
    }

    /// The store says that the office is over.
    fn lost(&self, office: Office, why: &str) {
        self.tenure.heard(now());
        tracing::warn!(epoch = office.epoch.0, "{why}");
        self.tenure.leave_office(office.epoch);
        self.wake.notify_one();
    }

    /// Out of office: renew, and write the member key when it changed.
    async fn stay(&self, said: &Said, session: Session, written: &mut Option<Written>) {
        let mut txn = Txn::new().renew(session.lease);
        let fresh = fresh_member(said, session, written.as_ref());
        if let Some(member) = &fresh {
            txn = txn.put_leased(self.keys.member(&self.me), text(member), session.lease);
        }
        let sent = now();
        match self.store.commit(txn).await {
            Ok(_) => {
                self.tenure.heard(now());
                self.figures.answered(now().since(sent));
                note(written, session, fresh, sent);
            }
            Err(StoreError::LeaseEnded(_)) => {
                self.tenure.heard(now());
                self.tenure.set_session(None);
            }
            Err(error) => tracing::debug!(%error, "renewal not acknowledged"),
        }
    }
}
