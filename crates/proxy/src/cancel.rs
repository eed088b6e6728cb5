//! The keys by which clients cancel, and what they cancel.
//!
//! **Invariant:** a cancel reaches only a server that is at work for the client who holds the key:
//! the slot's target stays what it is until the server has the request, and no server changes hands
//! before its client's slot has another target, or none.
//!
//! **Invariant:** a key that is wrong and one that is right look alike from outside.
//!
//! **Invariant:** however many come for a client, one is on its way to the server at most, and one waits.
//!
//! The first half of a key carries the number of the proxy that has given it out, so that another
//! one of the cluster can send on what came to it; only the second half is secret.

use crate::net::{Guise, dial};
use crate::tls::ServerTls;
use rand::TryRngCore as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq as _;
use tokio::sync::Notify;
use wire::Hidden;
use wire::backend::CancelKey;
use wire::startup::{CancelRequest, Packet};

/// In the first half of a key: no client has one with it. Another proxy has sent it on.
pub(crate) const NOBODYS: u32 = 1 << 31;
/// Below the proxy's number, which has eleven bits.
const CLIENT_BITS: u32 = 20;
const NUMBER_MAX: u32 = (1 << 11) - 1;
/// Numbers of clients are drawn; with so many misses there are more clients than that is for.
const DRAWS_MAX: usize = 64;
/// For one client.
const REQUESTS_MAX: usize = 2;

/// The number of the proxy that has given out a key.
pub(crate) fn number_of(process_id: u32) -> u32 {
    (process_id & !NOBODYS) >> CLIENT_BITS
}

/// One for a proxy.
#[derive(Debug)]
pub(crate) struct Cancels {
    /// The proxy's own.
    number: AtomicU32,
    slots: Mutex<HashMap<u32, Arc<Slot>>>,
}

/// One client's.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) process_id: u32,
    pub(crate) secret: Vec<u8>,
    aim: Mutex<Aim>,
    /// A request is no longer on its way.
    arrived: Notify,
    /// Requests that are being dealt with.
    requests: AtomicUsize,
    /// The client waits for a server and wants to no more.
    gives_up: AtomicBool,
    /// The client's task, to have it look at what is new.
    waker: Mutex<Option<Waker>>,
}

/// What a cancel meets.
#[derive(Debug, Default)]
struct Aim {
    target: Option<Arc<Target>>,
    /// A request is on its way to the target, which stays what it is so long.
    is_sending: bool,
}

/// The right to send one to the target.
#[derive(Debug)]
struct Shot<'s> {
    slot: &'s Slot,
    target: Arc<Target>,
}

/// A server connection at work.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: String,
    /// How the connection to it was made: a cancel is sent no less hidden.
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) guise: Guise,
    pub(crate) process_id: u32,
    pub(crate) secret: Vec<u8>,
    /// Since when it is there.
    pub(crate) since: SystemTime,
}

/// A client's key, for as long as the client is there.
#[derive(Debug)]
pub(crate) struct Key {
    cancels: Arc<Cancels>,
    pub(crate) slot: Arc<Slot>,
}

impl Default for Cancels {
    fn default() -> Self {
        let cancels = Self {
            number: AtomicU32::new(1),
            slots: Mutex::default(),
        };
        cancels.renumber();
        cancels
    }
}

impl Cancels {
    /// What keys carry that are given out from now on.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Draws another one.
    pub(crate) fn renumber(&self) {
        let before = self.number();
        // Without random numbers nobody is let in, and then the next one is as good.
        let drawn = rand::rngs::OsRng.try_next_u32().unwrap_or(before);
        let mut number = 1 + drawn % NUMBER_MAX;
        if number == before {
            number = 1 + number % NUMBER_MAX;
        }
        self.number.store(number, Ordering::Relaxed);
    }

    /// A key that nobody else has. `None`: the machine gives no random numbers.
    pub(crate) fn issue(self: &Arc<Self>, secret_bytes: usize) -> Option<Key> {
        let mut secret = vec![0; secret_bytes];
        rand::rngs::OsRng.try_fill_bytes(&mut secret).ok()?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for draw in 0.. {
            // Clients take it for a process number: positive in 32 bits.
            let drawn = rand::rngs::OsRng.try_next_u32().ok()? & !NOBODYS;
            let process_id = match draw < DRAWS_MAX {
                true => self.number() << CLIENT_BITS | (drawn & ((1 << CLIENT_BITS) - 1)),
                false => drawn,
            };
            if process_id == 0 || slots.contains_key(&process_id) {
                continue;
            }
            let slot = Arc::new(Slot {
                process_id,
                secret,
                aim: Mutex::default(),
                arrived: Notify::new(),
                gives_up: AtomicBool::new(false),
                requests: AtomicUsize::new(0),
                waker: Mutex::default(),
            });
            slots.insert(process_id, Arc::clone(&slot));
            return Some(Key {
                cancels: Arc::clone(self),
                slot,
            });
        }
        None
    }

    /// Has all clients' tasks look around.
    pub(crate) fn wake_everybody(&self) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            slot.wake();
        }
    }

    /// The servers that clients have, by their process numbers.
    pub(crate) fn targets(&self) -> HashMap<u32, Arc<Target>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = slots
            .values()
            .filter_map(|slot| slot.locked().target.clone());
        targets.map(|target| (target.process_id, target)).collect()
    }

    /// Whose key it is.
    pub(crate) fn find(&self, process_id: u32, secret: &[u8]) -> Option<Arc<Slot>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(slots.get(&process_id)?);
        bool::from(slot.secret.ct_eq(secret)).then_some(slot)
    }
}

impl Slot {
    /// Notes the task that calls it. It must be the task's own, not one of several futures in it.
    pub(crate) async fn belongs_here(&self) {
        let waker = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// The client has got a server, or has none any more. Waits while a cancel is on its way.
    pub(crate) async fn aim(&self, target: Option<Arc<Target>>) {
        let mut target = target;
        loop {
            let arrived = self.arrived.notified();
            match self.try_aim(target) {
                Ok(()) => return,
                Err(again) => target = again,
            }
            arrived.await;
        }
    }

    /// `None`: there are enough.
    fn turn(&self) -> Option<Turn<'_>> {
        let within = |now: usize| (now < REQUESTS_MAX).then_some(now + 1);
        let requests = &self.requests;
        requests
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .ok()?;
        Some(Turn(requests))
    }

    /// The same where nobody is on the way.
    pub(crate) fn try_aim(&self, target: Option<Arc<Target>>) -> Result<(), Option<Arc<Target>>> {
        let mut aim = self.locked();
        if aim.is_sending {
            return Err(target);
        }
        aim.target = target;
        Ok(())
    }

    /// Until nobody else sends; `None`: there is no target, and whoever waits for one has been told.
    async fn shot(&self) -> Option<Shot<'_>> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut aim = self.locked();
                let Some(target) = aim.target.clone() else {
                    self.gives_up.store(true, Ordering::Release);
                    drop(aim);
                    self.wake();
                    return None;
                };
                if !std::mem::replace(&mut aim.is_sending, true) {
                    return Some(Shot { slot: self, target });
                }
            }
            arrived.await;
        }
    }

    /// The client waits for a server from now on: what was cancelled before is over.
    pub(crate) fn begin_to_wait(&self) {
        self.gives_up.store(false, Ordering::Release);
    }

    /// Whether the client, which waits for a server, wants to no more.
    pub(crate) fn has_given_up(&self) -> bool {
        self.gives_up.load(Ordering::Acquire)
    }

    fn locked(&self) -> MutexGuard<'_, Aim> {
        self.aim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Shot<'_> {
    fn drop(&mut self) {
        self.slot.locked().is_sending = false;
        self.slot.arrived.notify_waiters();
    }
}

/// A request that is being dealt with.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends a client's wish on to the server that is at work for it, or ends its wait for one.
pub(crate) async fn pass_on(slot: &Slot, limit: Duration) {
    // The one that waits is sent after this one has come, and says the same.
    let Some(_turn) = slot.turn() else { return };
    let Some(shot) = slot.shot().await else {
        return;
    };
    let passed = tokio::time::timeout(limit, send(&shot.target)).await;
    if !matches!(passed, Ok(Ok(()))) {
        tracing::debug!(
            address = shot.target.address,
            "a cancel did not reach the server"
        );
    }
}

/// Sends a request, and waits until it is done with.
pub(crate) async fn send(target: &Target) -> std::io::Result<()> {
    let request = Packet::Cancel(CancelRequest(CancelKey {
        process_id: target.process_id,
        secret: Hidden(&target.secret),
    }));
    let mut bytes = Vec::new();
    request.encode(&mut bytes).map_err(std::io::Error::other)?;
    let dialled = dial(&target.address, &target.tls, target.guise).await;
    let mut stream = dialled.map_err(std::io::Error::other)?;
    stream.write_all(&bytes).await?;
    // The server closes when it has sent the signal; by TLS without a farewell.
    let mut room = [0; 8];
    let _ = std::future::poll_fn(|cx| stream.poll_read(cx, &mut room)).await;
    Ok(())
}

impl Drop for Key {
    fn drop(&mut self) {
        let slots = self.cancels.slots.lock();
        let mut slots = slots.unwrap_or_else(PoisonError::into_inner);
        slots.remove(&self.slot.process_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_which_proxy_has_given_it_out() {
        let cancels = Arc::new(Cancels::default());
        for _ in 0..100 {
            let number = cancels.number();
            assert!((1..=NUMBER_MAX).contains(&number));
            let key = cancels.issue(4).unwrap();
            assert!(i32::try_from(key.slot.process_id).unwrap() > 0);
            assert_eq!(number_of(key.slot.process_id), number);
            assert_eq!(number_of(key.slot.process_id | NOBODYS), number);
            cancels.renumber();
            assert_ne!(cancels.number(), number);
            // It is known here whatever the proxy is called by now.
            assert!(
                cancels
                    .find(key.slot.process_id, &key.slot.secret)
                    .is_some()
            );
        }
    }

    #[tokio::test]
    async fn one_request_is_on_its_way_and_one_waits() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: server.local_addr().unwrap().to_string(),
            tls: Arc::default(),
            guise: Guise::Plain,
            process_id: 7,
            secret: vec![7; 4],
            since: SystemTime::now(),
        };
        let cancels = Arc::new(Cancels::default());
        let key = cancels.issue(4).unwrap();
        key.slot.aim(Some(Arc::new(target))).await;
        let limit = Duration::from_secs(60);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let slot = Arc::clone(&key.slot);
            tasks.spawn(async move { pass_on(&slot, limit).await });
        }
        // The server takes its time; all but two are done with meanwhile.
        let (first, _) = server.accept().await.unwrap();
        for _ in 0..8 {
            tasks.join_next().await.unwrap().unwrap();
        }
        drop(first);
        let (second, _) = server.accept().await.unwrap();
        drop(second);
        assert_eq!(tasks.join_all().await.len(), 2);
        assert_eq!(key.slot.requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_key_is_found_by_both_halves_and_gone_with_its_client() {
        let cancels = Arc::new(Cancels::default());
        let key = cancels.issue(4).unwrap();
        let (id, secret) = (key.slot.process_id, key.slot.secret.clone());
        assert!(cancels.find(id, &secret).is_some());
        assert!(cancels.find(id, b"????").is_none());
        assert!(cancels.find(id, &secret[..3]).is_none());
        drop(key);
        assert!(cancels.find(id, &secret).is_none());
    }
}
