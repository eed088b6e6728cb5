//! Who is connected.
//!
//! **Invariant:** who is in the list is connected; the entry goes with its session.

use crate::pool::Pool;
use crate::sql::Pins;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// All sessions of a proxy, in the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    next: AtomicU64,
    cards: Mutex<BTreeMap<u64, Arc<Card>>>,
}

/// What is to be seen of one session.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) number: u64,
    pub(crate) pool: Arc<Pool>,
    /// `None`: by a Unix socket.
    pub(crate) address: Option<IpAddr>,
    pub(crate) is_encrypted: bool,
    pub(crate) since: SystemTime,
    state: AtomicU8,
    pins: AtomicU16,
    epoch: AtomicU64,
    /// The server's process, while the session has one.
    server: AtomicU32,
    /// When it began to wait; of no meaning while it does not.
    waits_since: Mutex<Option<Instant>>,
}

/// What a session is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has no server and asks for none.
    Idle,
    /// It wants one.
    Waiting,
    /// It has one, and something is under way.
    Active,
    /// It keeps one and asks for nothing.
    Kept,
}

/// A place in the list.
#[derive(Debug)]
pub(crate) struct Entry {
    roster: Arc<Roster>,
    card: Arc<Card>,
}

impl Roster {
    pub(crate) fn enter(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        address: Option<IpAddr>,
        is_encrypted: bool,
    ) -> Entry {
        let card = Arc::new(Card {
            number: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            pool: Arc::clone(pool),
            address,
            is_encrypted,
            since: SystemTime::now(),
            state: AtomicU8::new(State::Idle as u8),
            pins: AtomicU16::new(0),
            epoch: AtomicU64::new(0),
            server: AtomicU32::new(0),
            waits_since: Mutex::default(),
        });
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        cards.insert(card.number, Arc::clone(&card));
        Entry {
            roster: Arc::clone(self),
            card,
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Card>> {
        let cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        cards.values().cloned().collect()
    }

    /// How many sessions are in a state.
    pub(crate) fn count(&self, state: State) -> usize {
        let cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        cards.values().filter(|card| card.state() == state).count()
    }
}

impl std::ops::Deref for Entry {
    type Target = Card;

    fn deref(&self) -> &Card {
        &self.card
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let cards = self.roster.cards.lock();
        let mut cards = cards.unwrap_or_else(PoisonError::into_inner);
        cards.remove(&self.card.number);
    }
}

impl Card {
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            1 => State::Waiting,
            2 => State::Active,
            3 => State::Kept,
            _ => State::Idle,
        }
    }

    /// The session waits for a server from now on.
    pub(crate) fn wait(&self, now: Instant) {
        let since = self.waits_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.state.store(State::Waiting as u8, Ordering::Relaxed);
    }

    /// For how long it has waited, if it does.
    pub(crate) fn waits(&self) -> Option<Duration> {
        let since = self.waits_since.lock();
        let since = *since.unwrap_or_else(PoisonError::into_inner);
        Some(since?.elapsed()).filter(|_| self.state() == State::Waiting)
    }

    /// The session has got a server; `true`: it had one of an older epoch before.
    pub(crate) fn attach(&self, server: u32, epoch: u64) -> bool {
        self.server.store(server, Ordering::Relaxed);
        self.state.store(State::Active as u8, Ordering::Relaxed);
        let before = self.epoch.swap(epoch, Ordering::Relaxed);
        before != 0 && before < epoch
    }

    /// Whether something is under way with the server that it keeps.
    pub(crate) fn keep(&self, is_settled: bool) {
        let state = match is_settled {
            true => State::Kept,
            false => State::Active,
        };
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn rest(&self) {
        self.server.store(0, Ordering::Relaxed);
        self.state.store(State::Idle as u8, Ordering::Relaxed);
    }

    /// What ties the session to its server.
    pub(crate) fn pin(&self, pins: Pins) {
        self.pins.store(pins.bits(), Ordering::Relaxed);
    }

    pub(crate) fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    /// 0: none yet.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn server(&self) -> Option<u32> {
        Some(self.server.load(Ordering::Relaxed)).filter(|server| *server != 0)
    }
}
