//! The embedded store's members: asked for in the background, shown from memory.
//!
//! **Invariant:** no answer waits for the store, but for the very first one, and that for [`FIRST_WITHIN`] at most.

use crate::options::{Membership, StoreMember};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A list older than this is asked for again.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long the first answer may wait for the first list.
const FIRST_WITHIN: Duration = Duration::from_millis(250);
/// When an unanswered question counts as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Members {
    source: Option<Arc<dyn Membership>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    members: Option<Vec<StoreMember>>,
    asked: Option<Instant>,
    asking: bool,
}

impl Members {
    pub(crate) fn new(source: Option<Arc<dyn Membership>>) -> Self {
        Self {
            source,
            known: Arc::default(),
        }
    }

    /// Whether the store is the embedded one.
    pub(crate) fn source(&self) -> Option<&dyn Membership> {
        self.source.as_deref()
    }

    /// The last known list; a new one is asked for if this is old.
    pub(crate) fn known(&self) -> Vec<StoreMember> {
        self.refresh();
        lock(&self.known).members.clone().unwrap_or_default()
    }

    /// The same, and the first time after a short wait.
    pub(crate) async fn ready(&self) {
        let first = self.source.is_some() && lock(&self.known).members.is_none();
        if let (true, Some(asked)) = (first, self.refresh()) {
            let _ = tokio::time::timeout(FIRST_WITHIN, asked).await;
        }
    }

    /// Asks, unless the list is new enough or asked for already.
    fn refresh(&self) -> Option<tokio::task::JoinHandle<()>> {
        let source = Arc::clone(self.source.as_ref()?);
        {
            let mut known = lock(&self.known);
            let fresh = known.asked.is_some_and(|asked| asked.elapsed() < FRESH_FOR);
            if known.asking || (fresh && known.members.is_some()) {
                return None;
            }
            known.asking = true;
        }
        let known = Arc::clone(&self.known);
        Some(tokio::spawn(async move {
            let answer = tokio::time::timeout(ANSWER_WITHIN, source.members()).await;
            let mut known = lock(&known);
            known.asking = false;
            known.asked = Some(Instant::now());
            match answer {
                Ok(Ok(members)) => known.members = Some(members),
                // Who leads is not known then; who is a member still is.
                Ok(Err(_)) | Err(_) => {
                    for member in known.members.iter_mut().flatten() {
                        member.leader = false;
                        member.reachable = None;
                    }
                }
            }
        }))
    }
}

/// A panic elsewhere leaves this whole: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
