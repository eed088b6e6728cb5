//! Whether Postgres still lets anybody in.
//!
//! **Invariant:** one knock at a time; it is waited for by nobody.

use ha::Instant;
use postgres::Instance;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often there is a knock. Each costs Postgres a fork.
const EVERY: Duration = Duration::from_secs(3);
/// A postmaster that is only busy (a flood of connections, a machine out of breath) answers within this. Whoever is in
/// already is served meanwhile, so there is no hurry.
const PATIENCE: Duration = Duration::from_secs(3);

/// The knocks at one postmaster's door.
#[derive(Debug, Default)]
pub(crate) struct Door {
    postmaster: i32,
    answered: Option<Instant>,
    /// Since when there is no answer.
    knocking: Option<(Instant, JoinHandle<()>)>,
}

impl Door {
    /// Knocks when it is time. Gives since when the door counts as shut.
    pub(crate) fn shut(
        &mut self,
        instance: &Instance,
        postmaster: i32,
        at: Instant,
    ) -> Option<Instant> {
        if self.postmaster != postmaster {
            self.forget();
            self.postmaster = postmaster;
        }
        if let Some((since, knock)) = &self.knocking {
            let since = *since;
            if knock.is_finished() {
                self.knocking = None;
                self.answered = Some(at);
            } else {
                return (at.since(since) > PATIENCE).then(|| since.plus(PATIENCE));
            }
        }
        if self.answered.is_none_or(|last| at.since(last) >= EVERY) {
            let instance = instance.clone();
            let knock = async move {
                if let Err(error) = instance.knock().await {
                    tracing::debug!(%error, "no door to knock at");
                }
            };
            self.knocking = Some((at, tokio::spawn(knock)));
        }
        None
    }

    /// Of a postmaster that is gone nothing is known.
    pub(crate) fn forget(&mut self) {
        if let Some((_, knock)) = self.knocking.take() {
            knock.abort();
        }
        *self = Self::default();
    }
}
