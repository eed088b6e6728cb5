//! The user's programs that Postgres waits for: `pre_promote` and `before_stop`.
//!
//! **Invariant:** nothing that must happen at once waits for them: no fence, no lease, nobody who waits for the leader key.
//!
//! `pre_promote` says whether this node may become primary; as a rule it makes sure that the old one is dead. It is not
//! asked where this node led last and leads again: nobody else has been primary since. An agent that does not know asks.

use super::{Basis, Shell, ShellError};
use ha::Epoch;
use postgres::run_users_program;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// Another machine's power switch takes its time; a program that hangs must not keep the cluster without a primary.
const PRE_PROMOTE: Duration = Duration::from_secs(300);
const BEFORE_STOP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Programs with their arguments; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Run by a node that has won the leadership, before its Postgres is promoted. Unless it ends with 0, another node
    /// shall lead.
    pub pre_promote: Vec<String>,
    /// Run before a primary is stopped in order, whatever it ends with.
    pub before_stop: Vec<String>,
}

impl Shell {
    /// `epoch` is claimed: whether the one before it, as `basis` has it, was this node's as a primary.
    pub(super) fn note_who_led(&self, epoch: Epoch, basis: &Basis) {
        let before = basis.cluster.epoch.as_ref();
        let mine = before.is_some_and(|it| it.leader == self.me && !it.standby);
        *self.lock_leads_on() = mine.then_some(epoch);
    }

    fn lock_leads_on(&self) -> MutexGuard<'_, Option<Epoch>> {
        self.leads_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Given up with the leadership: as long as it is asked, this node promises nothing to others.
    pub(super) async fn ask_pre_promote(&self, epoch: Epoch) -> Result<(), ShellError> {
        let command = &self.hooks.pre_promote;
        if command.is_empty() || *self.lock_leads_on() == Some(epoch) {
            return Ok(());
        }
        tracing::info!("asking pre_promote");
        let asking = run_users_program("pre_promote", command, PRE_PROMOTE, &self.hook_noted);
        tokio::pin!(asking);
        loop {
            match tokio::time::timeout(LOOK, &mut asking).await {
                Ok(said) => return said.map_err(ShellError::Barred),
                Err(_) => self.still_leads(epoch)?,
            }
        }
    }

    pub(super) async fn run_before_stop(&self) {
        let (command, noted) = (&self.hooks.before_stop, &self.hook_noted);
        let ended = run_users_program("before_stop", command, BEFORE_STOP, noted).await;
        if let Err(error) = ended {
            let error = crate::agent::chain(&error);
            tracing::warn!(
                error,
                "before_stop failed: Postgres is stopped all the same"
            );
        }
    }
}
