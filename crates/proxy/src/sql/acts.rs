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
    /// `COMMIT AND CHAIN`: the next transaction begins with the end of this one.
    CommitAndChain,
    RollbackAndChain,
    /// A query, whose functions may do anything: outside of a transaction it commits by itself, and where transactions
    /// are read-only it leaves nothing behind.
    Query,
    /// The end of a transaction of which nothing remains where it is read-only, however it ends.
    CommitPlain,
    /// Anything else: outside of a transaction it commits by itself.
    Work,
}

/// What may have been committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Committed {
    Nothing,
    /// Something, unless the transactions were read-only.
    IfWritable,
    Something,
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
pub(crate) struct Acts([(Phase, Committed); 3]);

impl Default for Acts {
    fn default() -> Self {
        Self([
            (Phase::Outside, Committed::Nothing),
            (Phase::Inside, Committed::Nothing),
            (Phase::Failed, Committed::Nothing),
        ])
    }
}

impl Acts {
    #[must_use]
    pub(crate) fn then(mut self, act: Act) -> Self {
        for (phase, committed) in &mut self.0 {
            let more = |more: Committed| more.max(*committed);
            (*phase, *committed) = match (act, *phase) {
                (Act::Nothing, phase) => (phase, *committed),
                (Act::Begin, Phase::Failed) => (Phase::Failed, *committed),
                (Act::Begin, _) => (Phase::Inside, *committed),
                (Act::Commit, Phase::Inside) => (Phase::Outside, Committed::Something),
                (Act::CommitPlain, Phase::Inside) => (Phase::Outside, more(Committed::IfWritable)),
                (Act::Commit | Act::CommitPlain | Act::Rollback, _) => (Phase::Outside, *committed),
                // Outside of a transaction they are errors.
                (Act::CommitAndChain | Act::RollbackAndChain, Phase::Outside) => {
                    (Phase::Outside, *committed)
                }
                (Act::CommitAndChain, Phase::Inside) => {
                    (Phase::Inside, more(Committed::IfWritable))
                }
                (Act::CommitAndChain | Act::RollbackAndChain, _) => (Phase::Inside, *committed),
                (Act::RollbackTo, Phase::Failed) => (Phase::Inside, *committed),
                (Act::RollbackTo, phase) => (phase, *committed),
                (Act::Query, Phase::Outside) => (Phase::Outside, more(Committed::IfWritable)),
                (Act::Work, Phase::Outside) => (Phase::Outside, Committed::Something),
                (Act::Query | Act::Work, phase) => (phase, *committed),
            };
        }
        self
    }

    /// One sequence behind the other.
    #[must_use]
    pub(crate) fn and(self, later: Self) -> Self {
        Self(self.0.map(|(phase, committed)| {
            let (phase, more) = later.0[phase as usize];
            (phase, committed.max(more))
        }))
    }

    pub(crate) fn may_have_committed(&self, from: Phase) -> bool {
        self.0[from as usize].1 != Committed::Nothing
    }

    /// The same where every transaction is read-only.
    pub(crate) fn may_have_committed_read_only(&self, from: Phase) -> bool {
        self.0[from as usize].1 == Committed::Something
    }

    /// The phase after all of it, if all of it went well.
    pub(crate) fn leads_to(&self, from: Phase) -> Phase {
        self.0[from as usize].0
    }
}
