//! The proxies of one cluster: each writes down where it is, and sends on what came to it and is for
//! another.
//!
//! **Invariant:** what another proxy has sent on is never sent on again, and nothing is sent but
//! where the cluster's store says that a proxy is: one request to cancel leads to one at most.
//!
//! **Invariant:** however many come, [`UNDER_WAY_MAX`] are on their way at most, and
//! [`EACH_SECOND_MAX`] begin in a second.
//!
//! It does not know whose keys are right: that knows the proxy that has given them out.

use crate::cancel::{Cancels, NOBODYS, Target, number_of, send};
use crate::net::Guise;
use crate::swap::Swap;
use crate::tls::{ServerTls, SslMode, TlsFiles};
use crate::topology::{Ear, Seen};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use store::layout::{Keys, ProxyRecord, proxies};
use store::{Guard, LeaseId, Store, StoreError, Txn};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};
use wire::Hidden;
use wire::startup::CancelRequest;

/// The record of a proxy that has died is there for so long.
const TTL: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);
/// After the store has given no answer.
const AGAIN: Duration = Duration::from_secs(1);
/// For the last word, when the proxy ends.
const FAREWELL: Duration = Duration::from_secs(1);
const UNDER_WAY_MAX: usize = 32;
const EACH_SECOND_MAX: u32 = 100;

/// What others are to know of a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// For people.
    pub name: String,
    /// HOST:PORT under which the other proxies reach it; `None`: where it listens, unless that is
    /// every address of its machine.
    pub address: Option<String>,
}

/// One for a proxy.
#[derive(Debug)]
pub(crate) struct Peers {
    known: Swap<BTreeMap<u32, ProxyRecord>>,
    tls: Arc<ServerTls>,
    room: Semaphore,
    pace: Mutex<Pace>,
    lease: Mutex<Option<LeaseId>>,
    /// Of this one; one that was here before has the same, and its sessions are asked of directly.
    address: OnceLock<String>,
}

impl Default for Peers {
    fn default() -> Self {
        let files = TlsFiles {
            mode: SslMode::Require,
            ..TlsFiles::default()
        };
        Self {
            known: Swap::default(),
            // Without files there is nothing that could be wrong with them.
            tls: Arc::new(ServerTls::load(&files).unwrap_or_default()),
            room: Semaphore::new(UNDER_WAY_MAX),
            pace: Mutex::default(),
            lease: Mutex::default(),
            address: OnceLock::new(),
        }
    }
}

impl Peers {
    pub(crate) fn known(&self) -> Arc<BTreeMap<u32, ProxyRecord>> {
        self.known.load()
    }

    /// Sends a request to the proxy that has given out its key, if that is another one; `hidden`: it
    /// came by TLS, and goes no other way.
    pub(crate) async fn pass_on(
        &self,
        request: &CancelRequest<'_>,
        own: u32,
        hidden: bool,
        limit: Duration,
    ) {
        let process_id = request.0.process_id;
        let number = number_of(process_id);
        if number == own {
            return;
        }
        let known = self.known();
        let Some(record) = known.get(&number) else {
            return;
        };
        if record.address.as_ref() == self.address.get() {
            return;
        }
        let (Some(address), Some(guise)) = (record.address.clone(), guise(record, hidden)) else {
            tracing::debug!(
                to = record.name,
                "a cancel is for a proxy that can't be reached so"
            );
            return;
        };
        let now = Instant::now();
        let may_begin = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.may_begin(now)
        };
        let (Ok(_room), true) = (self.room.try_acquire(), may_begin) else {
            tracing::debug!(to = record.name, "too many cancels for other proxies");
            return;
        };
        let Hidden(secret) = request.0.secret;
        let target = Target {
            address,
            tls: Arc::clone(&self.tls),
            guise,
            process_id: process_id | NOBODYS,
            secret: secret.to_vec(),
            since: SystemTime::now(),
        };
        let sent = tokio::time::timeout(limit, send(&target)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(to = record.name, "a cancel did not reach another proxy");
        }
    }

    /// Is there for the others to find, and finds them, for as long as it runs.
    pub(crate) async fn follow(&self, at: &Place, cancels: &Cancels, seen: Seen) {
        if let Some(address) = &at.record.address {
            // It never changes.
            let _ = self.address.set(address.clone());
        }
        let mut view = at.store.view(&at.keys.proxies());
        let look = async {
            loop {
                let snapshot = Arc::clone(&view.borrow_and_update());
                self.known.store(proxies(&at.keys, &snapshot));
                if view.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut said = String::new();
        let stay = async {
            loop {
                if let Err(error) = self.stay(at, cancels, seen.clone()).await {
                    let why = error.to_string();
                    if why != said {
                        tracing::warn!(
                            error = why,
                            "the proxy can't be written down for the others of the cluster yet"
                        );
                        said = why;
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::join!(look, stay);
    }

    /// Until the store has forgotten it, or does not answer.
    async fn stay(&self, at: &Place, cancels: &Cancels, mut seen: Seen) -> Result<(), StoreError> {
        self.leave(&*at.store).await;
        let lease = at.hear(at.store.grant(TTL)).await?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        let mut record = at.record.clone();
        record.epoch = seen.borrow_and_update().epoch;
        let (key, number) = loop {
            let number = cancels.number();
            let key = at.keys.proxy(number);
            let absent = Guard::Absent { key: key.clone() };
            let txn = Txn::new()
                .when(absent)
                .put_leased(&key, record.text(), lease);
            if at.hear(at.store.commit(txn)).await?.is_committed() {
                break (key, number);
            }
            // Keys that were given out before are known here, and nowhere else.
            cancels.renumber();
        };
        tracing::info!(
            number,
            address = record.address,
            "the other proxies of the cluster can find this one"
        );
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                _ = renewal.tick() => at.hear(at.store.renew(lease)).await,
                Ok(()) = seen.changed() => {
                    let epoch = seen.borrow_and_update().epoch;
                    if epoch == record.epoch {
                        continue;
                    }
                    record.epoch = epoch;
                    let txn = Txn::new().put_leased(&key, record.text(), lease);
                    at.hear(at.store.commit(txn)).await.map(drop)
                }
            };
            match done {
                Ok(()) => {}
                // The lease lasts for another two attempts.
                Err(error) if error.is_retryable() => renewal.reset_after(AGAIN),
                Err(StoreError::LeaseEnded(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The others need not look for it any more.
    pub(crate) async fn leave(&self, store: &dyn Store) {
        let lease = self
            .lease
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(lease) = lease {
            // It ends by itself.
            let _ = tokio::time::timeout(FAREWELL, store.revoke(lease)).await;
        }
    }
}

/// Where a proxy is written down, and as what.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) record: ProxyRecord,
    /// What is asked of the store here shows whether it answers.
    pub(crate) ear: Arc<Ear>,
}

impl Place {
    /// Takes note of whether the store answers.
    async fn hear<T>(
        &self,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let answer = asked.await;
        self.ear.note(begun, answer.as_ref().map(|_| ()));
        answer
    }
}

/// How a proxy is asked; `None`: not as hidden as the request was.
fn guise(record: &ProxyRecord, hidden: bool) -> Option<Guise> {
    match (record.tls, hidden) {
        (true, _) => Some(Guise::Secured),
        (false, false) => Some(Guise::Plain),
        (false, true) => None,
    }
}

/// How many have begun in this second.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Instant>,
    begun: u32,
}

impl Pace {
    fn may_begin(&mut self, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        if self.since.is_none_or(|since| now >= since + second) {
            (self.since, self.begun) = (Some(now), 0);
        }
        self.begun += 1;
        self.begun <= EACH_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_begin_in_a_second_and_no_more() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let begun = (0..500).filter(|_| pace.may_begin(now)).count();
        assert_eq!(begun, 100);
        assert!(!pace.may_begin(now + Duration::from_millis(999)));
        assert!(pace.may_begin(now + Duration::from_secs(1)));
    }

    #[test]
    fn what_came_hidden_goes_hidden_or_not_at_all() {
        let record = |tls| ProxyRecord {
            name: "p".to_owned(),
            address: None,
            tls,
            epoch: ha::Epoch(1),
        };
        assert_eq!(guise(&record(true), true), Some(Guise::Secured));
        assert_eq!(guise(&record(true), false), Some(Guise::Secured));
        assert_eq!(guise(&record(false), false), Some(Guise::Plain));
        assert_eq!(guise(&record(false), true), None);
    }
}
