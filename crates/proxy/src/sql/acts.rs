//! What statements that are under way can have committed.
//!
//! **Invariant:** [`Acts::may_have_committed`] says no only if nothing of it can be durable,
//! wherever among them the server was lost.

/// What a statement does to transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Leaves nothing behind outside of the session.
    Nothing,
    Begin,
    Commit,
    Rollback,
    RollbackTo,
    /// Anything else: outside of a transaction it commits by itself.
    Work,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Outside,
    Inside,
    Failed,
}

/// A sequence of acts, for each phase that it may begin in: what phase it leads to, and whether
/// something may have been committed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acts([(Phase, bool); 3]);

impl Default for Acts {
    fn default() -> Self {
        Self([
            (Phase::Outside, false),
            (Phase::Inside, false),
            (Phase::Failed, false),
        ])
    }
}

impl Acts {
    #[must_use]
    pub(crate) fn then(mut self, act: Act) -> Self {
        for (phase, committed) in &mut self.0 {
            (*phase, *committed) = match (act, *phase) {
                (Act::Nothing, phase) => (phase, *committed),
                (Act::Begin, Phase::Failed) => (Phase::Failed, *committed),
                (Act::Begin, _) => (Phase::Inside, *committed),
                (Act::Commit, Phase::Inside) => (Phase::Outside, true),
                (Act::Commit | Act::Rollback, _) => (Phase::Outside, *committed),
                (Act::RollbackTo, Phase::Failed) => (Phase::Inside, *committed),
                (Act::RollbackTo, phase) => (phase, *committed),
                (Act::Work, Phase::Outside) => (Phase::Outside, true),
                (Act::Work, phase) => (phase, *committed),
            };
        }
        self
    }

    /// One sequence behind the other.
    #[must_use]
    pub(crate) fn and(self, later: Self) -> Self {
        Self(self.0.map(|(phase, committed)| {
            let (phase, more) = later.0[phase as usize];
            (phase, committed || more)
        }))
    }

    pub(crate) fn may_have_committed(&self, from: Phase) -> bool {
        self.0[from as usize].1
    }

    /// The phase after all of it, if all of it went well.
    pub(crate) fn leads_to(&self, from: Phase) -> Phase {
        self.0[from as usize].0
    }
}
