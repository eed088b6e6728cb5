//! The cluster's configuration of Postgres, taken as soon as it has changed.
//!
//! Before a start the shell takes it by itself; here it reaches an instance that runs.
//!
//! **Invariant:** no decision and no action waits for it.

use super::Agent;
use crate::shell::shared;
use ha::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{Revision, Snapshot};
use tokio::task::JoinHandle;

/// What could not be taken is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What was taken, and what is being taken.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// The revision of the configuration that was taken last; 0: none.
    taken: Arc<AtomicU64>,
    /// The one that callbacks were told of.
    told: Revision,
    tried: Option<(Revision, Instant)>,
    task: Option<JoinHandle<()>>,
}

impl Sharing {
    fn is_due(&self, revision: Revision, at: Instant) -> bool {
        let busy = self.task.as_ref().is_some_and(|task| !task.is_finished());
        let tried = self
            .tried
            .is_some_and(|(of, when)| of == revision && at.since(when) < AGAIN);
        !busy && !tried && self.taken.load(Ordering::SeqCst) != revision
    }
}

impl Agent {
    pub(super) fn share(&mut self, snapshot: &Snapshot, at: Instant) {
        let taken = self.sharing.taken.load(Ordering::SeqCst);
        if self.reloaded.swap(false, Ordering::SeqCst) {
            self.callbacks.reloaded();
        }
        if taken != self.sharing.told {
            // What an agent takes when it starts is, as a rule, what Postgres has already.
            if self.sharing.told != 0 {
                self.callbacks.reloaded();
            }
            self.sharing.told = taken;
        }
        let Some(entry) = snapshot.entries.get(&self.shell.keys.config()) else {
            return;
        };
        let revision = entry.modified;
        if self.memory.running.is_some() || !self.sharing.is_due(revision, at) {
            return;
        }
        self.sharing.tried = Some((revision, at));
        let (instance, taken) = (self.shell.instance.clone(), Arc::clone(&self.sharing.taken));
        let read = shared(&entry.value);
        self.sharing.task = Some(tokio::spawn(async move {
            let shared = match read {
                Ok(shared) => shared,
                // Said once; only another configuration helps.
                Err(why) => {
                    tracing::warn!(
                        why,
                        "postgresql in the cluster's configuration is not taken"
                    );
                    taken.store(revision, Ordering::SeqCst);
                    return;
                }
            };
            match instance.share(&shared).await {
                Ok(()) => taken.store(revision, Ordering::SeqCst),
                Err(error) => tracing::warn!(
                    error = super::chain(&error),
                    "the cluster's configuration of Postgres is not taken yet"
                ),
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_is_taken_once_and_tried_again_in_time() {
        let at = |seconds| Instant::default().plus(Duration::from_secs(seconds));
        let mut sharing = Sharing::default();
        assert!(sharing.is_due(3, at(10)));
        sharing.tried = Some((3, at(10)));
        assert!(!sharing.is_due(3, at(12)), "it has just failed");
        assert!(sharing.is_due(4, at(12)), "another one may do better");
        assert!(sharing.is_due(3, at(15)));
        sharing.taken.store(3, Ordering::SeqCst);
        assert!(!sharing.is_due(3, at(99)));
    }
}
