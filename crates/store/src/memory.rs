//! A store in memory, for tests and for simulated agents. Time is tokio's, so a test may pause it.
//!
//! **Invariant:** what one handle commits, every reachable handle sees.
//! A handle can be cut off by itself, as a node is by its network.

use crate::kv::{LeaseId, Outcome, Result, Snapshot, Store, StoreError, Txn, View};
use crate::lock;
use crate::state::{Answer, Applied, Command, State};
use crate::views::Views;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// What stands between a handle and its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Nothing gets through: calls fail, views stand still.
    Unreachable,
    /// Calls arrive and happen, their answers are lost; views stand still.
    AnswersLost,
    /// The next change happens and its answer is lost; after it all is well.
    NextAnswerLost,
    /// The next change is lost, and nobody can tell; after it all is well.
    NextChangeLost,
}

/// A handle on a shared store. [`MemoryStore::handle`] makes another one with faults of its own.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct Shared {
    state: State,
    last_lease: i64,
    deadlines: BTreeMap<LeaseId, Instant>,
    ends: Vec<Weak<End>>,
}

/// This handle's end of the line.
#[derive(Debug, Default)]
struct End {
    fault: Mutex<Fault>,
    views: Views,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::attached(Arc::new(Mutex::new(Shared::default())))
    }

    /// Another handle on the same store.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self::attached(Arc::clone(&self.shared))
    }

    /// Puts a fault on this handle (and its clones), or takes it away.
    pub fn set_fault(&self, fault: Fault) {
        let shared = lock(&self.shared);
        *lock(&self.end.fault) = fault;
        if fault == Fault::None {
            self.end.views.refresh(&shared.state);
        }
    }

    fn attached(shared: Arc<Mutex<Shared>>) -> Self {
        let end = Arc::new(End::default());
        lock(&shared).ends.push(Arc::downgrade(&end));
        Self { shared, end }
    }

    fn call(&self, command: impl FnOnce(&mut Shared) -> Command) -> Result<Answer> {
        let fault = self.end.fault_of_a_change();
        if fault == Fault::Unreachable {
            return Err(StoreError::Unreachable("cut off by the test".into()));
        }
        if fault == Fault::NextChangeLost {
            return Err(StoreError::Unknown("lost by the test".into()));
        }
        let answer = {
            let mut shared = lock(&self.shared);
            let command = command(&mut shared);
            shared.apply(&command)
        };
        if matches!(fault, Fault::AnswersLost | Fault::NextAnswerLost) {
            return Err(StoreError::Unknown("answer lost by the test".into()));
        }
        match answer {
            Answer::LeaseEnded(lease) => Err(StoreError::LeaseEnded(lease)),
            answer => Ok(answer),
        }
    }
}

impl End {
    /// Takes one that is for the next change alone away.
    fn fault_of_a_change(&self) -> Fault {
        let mut fault = lock(&self.fault);
        match *fault {
            Fault::NextAnswerLost | Fault::NextChangeLost => std::mem::take(&mut fault),
            lasting => lasting,
        }
    }
}

impl Shared {
    fn apply(&mut self, command: &Command) -> Answer {
        let Applied { answer, touched } = self.state.apply(command);
        if !matches!(
            answer,
            Answer::LeaseEnded(_) | Answer::Outcome(Outcome::Refused)
        ) {
            self.keep_time(command);
        }
        self.ends.retain(|end| end.strong_count() > 0);
        for end in self.ends.iter().filter_map(Weak::upgrade) {
            if *lock(&end.fault) == Fault::None {
                end.views.publish(&self.state, &touched);
            }
        }
        answer
    }

    fn keep_time(&mut self, command: &Command) {
        let renewed = match command {
            Command::Grant { lease, .. } | Command::Renew(lease) => Some(*lease),
            Command::Commit(txn) => txn.renew,
            Command::Revoke(_) | Command::Expire { .. } => None,
        };
        if let Some(lease) = renewed
            && let Some(found) = self.state.leases().get(&lease)
        {
            self.deadlines.insert(lease, Instant::now() + found.ttl);
        }
        let alive = self.state.leases();
        self.deadlines.retain(|lease, _| alive.contains_key(lease));
    }
}

/// Ends `lease` when its time is over, unless it ends or the store goes away before.
async fn watch_lease(shared: Weak<Mutex<Shared>>, lease: LeaseId) {
    loop {
        let deadline = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut shared = lock(&shared);
            let Some(deadline) = shared.deadlines.get(&lease).copied() else {
                return;
            };
            if deadline <= Instant::now() {
                let renewals = shared
                    .state
                    .leases()
                    .get(&lease)
                    .map_or(0, |found| found.renewals);
                shared.apply(&Command::Expire { lease, renewals });
                return;
            }
            deadline
        };
        tokio::time::sleep_until(deadline).await;
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot> {
        // Not within the match: who changes something has the other lock first.
        let fault = *lock(&self.end.fault);
        match fault {
            Fault::None | Fault::NextAnswerLost | Fault::NextChangeLost => {
                Ok(lock(&self.shared).state.snapshot(prefix))
            }
            Fault::Unreachable => Err(StoreError::Unreachable("cut off by the test".into())),
            Fault::AnswersLost => Err(StoreError::Unknown("answer lost by the test".into())),
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        match self.call(|_| Command::Commit(txn))? {
            Answer::Outcome(outcome) => Ok(outcome),
            other => Err(StoreError::Fatal(format!(
                "a transaction was answered by {other:?}"
            ))),
        }
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        let mut granted = LeaseId(0);
        self.call(|shared| {
            shared.last_lease += 1;
            granted = LeaseId(shared.last_lease);
            Command::Grant {
                lease: granted,
                ttl,
            }
        })?;
        tokio::spawn(watch_lease(Arc::downgrade(&self.shared), granted));
        Ok(granted)
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        self.call(|_| Command::Renew(lease)).map(drop)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.call(|_| Command::Revoke(lease)).map(drop)
    }

    fn view(&self, prefix: &str) -> View {
        let shared = lock(&self.shared);
        let reachable = *lock(&self.end.fault) == Fault::None;
        self.end.views.follow(prefix, || {
            if reachable {
                shared.state.snapshot(prefix)
            } else {
                Snapshot::default()
            }
        })
    }
}
