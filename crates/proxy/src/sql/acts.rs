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

impl Act {
    fn ends(self) -> bool {
        match self {
            Self::Commit
            | Self::CommitPlain
            | Self::Rollback
            | Self::CommitAndChain
            | Self::RollbackAndChain => true,
            Self::Nothing | Self::Begin | Self::RollbackTo | Self::Query | Self::Work => false,
        }
    }
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

/// Where a session may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phases(u8);

impl Phases {
    pub(crate) fn only(phase: Phase) -> Self {
        Self(1 << phase as u8)
    }

    #[must_use]
    pub(crate) fn or(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    fn all(self) -> impl Iterator<Item = Phase> {
        let all = [Phase::Outside, Phase::Inside, Phase::Failed];
        all.into_iter()
            .filter(move |phase| self.0 & 1 << *phase as u8 != 0)
    }
}

/// What a sequence of acts does where a session stands in one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// The phase that it leads to, if all of it goes well.
    end: Phase,
    /// Where it leads if one of its acts fails: the rest of the sequence is thrown away.
    failing: Phases,
    /// On the way to its end.
    committed: Committed,
}

impl Way {
    fn from(phase: Phase) -> Self {
        Self {
            end: phase,
            failing: after_an_error(phase),
            committed: Committed::Nothing,
        }
    }

    fn then(self, act: Act) -> Self {
        let committed = self.committed;
        let more = |more: Committed| more.max(committed);
        let (end, committed) = match (act, self.end) {
            (Act::Nothing, phase) => (phase, committed),
            (Act::Begin, Phase::Failed) => (Phase::Failed, committed),
            (Act::Begin, _) => (Phase::Inside, committed),
            (Act::Commit, Phase::Inside) => (Phase::Outside, Committed::Something),
            (Act::CommitPlain, Phase::Inside) => (Phase::Outside, more(Committed::IfWritable)),
            (Act::Commit | Act::CommitPlain | Act::Rollback, _) => (Phase::Outside, committed),
            // Outside of a transaction they are errors.
            (Act::CommitAndChain | Act::RollbackAndChain, Phase::Outside) => {
                (Phase::Outside, committed)
            }
            (Act::CommitAndChain, Phase::Inside) => (Phase::Inside, more(Committed::IfWritable)),
            (Act::CommitAndChain | Act::RollbackAndChain, _) => (Phase::Inside, committed),
            (Act::RollbackTo, Phase::Failed) => (Phase::Inside, committed),
            (Act::RollbackTo, phase) => (phase, committed),
            (Act::Query, Phase::Outside) => (Phase::Outside, more(Committed::IfWritable)),
            (Act::Work, Phase::Outside) => (Phase::Outside, Committed::Something),
            (Act::Query | Act::Work, phase) => (phase, committed),
        };
        let mut failing = self.failing.or(after_an_error(end));
        // A commit that fails ends the transaction, too.
        if matches!(act, Act::Commit | Act::CommitPlain | Act::CommitAndChain) {
            failing = failing.or(Phases::only(Phase::Outside));
        }
        Self {
            end,
            failing,
            committed,
        }
    }
}

fn after_an_error(phase: Phase) -> Phases {
    Phases::only(match phase {
        Phase::Outside => Phase::Outside,
        Phase::Inside | Phase::Failed => Phase::Failed,
    })
}

/// A sequence of acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acts {
    /// For each phase that it may begin in.
    ways: [Way; 3],
    /// One of them ends a transaction.
    ends: bool,
}

impl Default for Acts {
    fn default() -> Self {
        let phases = [Phase::Outside, Phase::Inside, Phase::Failed];
        Self {
            ways: phases.map(Way::from),
            ends: false,
        }
    }
}

impl Acts {
    #[must_use]
    pub(crate) fn then(self, act: Act) -> Self {
        Self {
            ways: self.ways.map(|way| way.then(act)),
            ends: self.ends || act.ends(),
        }
    }

    /// One sequence behind the other: what fails in the first takes the second with it.
    #[must_use]
    pub(crate) fn and(self, later: Self) -> Self {
        let ways = self.ways.map(|way| {
            let more = later.ways[way.end as usize];
            Way {
                end: more.end,
                failing: way.failing.or(more.failing),
                committed: way.committed.max(more.committed),
            }
        });
        Self {
            ways,
            ends: self.ends || later.ends,
        }
    }

    pub(crate) fn may_have_committed(&self, from: Phases) -> bool {
        from.all()
            .any(|from| self.ways[from as usize].committed != Committed::Nothing)
    }

    /// The same where every transaction is read-only.
    pub(crate) fn may_have_committed_read_only(&self, from: Phase) -> bool {
        self.ways[from as usize].committed == Committed::Something
    }

    /// The phase after all of it, if all of it went well.
    pub(crate) fn leads_to(&self, from: Phase) -> Phase {
        self.ways[from as usize].end
    }

    /// The phases that the next sequence may begin in, whatever has failed.
    pub(crate) fn may_lead_to(&self, from: Phases) -> Phases {
        let ways = from.all().map(|from| self.ways[from as usize]);
        ways.fold(Phases(0), |all, way| {
            all.or(way.failing).or(Phases::only(way.end))
        })
    }

    /// The same where a transaction has certainly begun within it.
    pub(crate) fn may_lead_to_from_begin(&self) -> Option<Phases> {
        let within = Phases::only(Phase::Inside).or(Phases::only(Phase::Failed));
        (!self.ends).then_some(within)
    }
}
