//! What the client has asked and has not been answered, in stretches that each end with a
//! ReadyForQuery.
//!
//! **Invariant:** a statement is in the ledger before it can reach the server, and leaves it when its
//! stretch is answered: whatever becomes of the server, what it may have done is known.

use crate::pool::Kept;
use crate::prepared::Prepared;
use crate::sql::{Act, Acts, Deed, Phase, Phases, Reading};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The values that a portal was bound with.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) all: Box<[Option<Box<[u8]>>]>,
    /// What is set by them is set. A portal that is executed again does not begin again.
    is_spent: AtomicBool,
}

impl Values {
    pub(super) fn new(all: Box<[Option<Box<[u8]>>]>) -> Arc<Self> {
        Arc::new(Self {
            all,
            is_spent: AtomicBool::new(false),
        })
    }

    /// Whether this is the first time.
    pub(super) fn spend(&self) -> bool {
        !self.is_spent.swap(true, Ordering::Relaxed)
    }
}

/// One stretch: a Query, a FunctionCall, or everything up to a Sync.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) acts: Acts,
    /// Ends with a Sync.
    pub(super) extended: bool,
    /// Statements sent, and how many of them have been done.
    statements: u32,
    completed: u32,
    pub(super) failed: bool,
    /// The server has said that a transaction is committed.
    committed: bool,
    /// What its statements do only their tags say.
    pub(super) is_by_tags: bool,
    /// The server has said that a transaction has begun.
    begun: bool,
    /// All of it, if that only begins a transaction.
    pub(super) begin: Option<Box<[u8]>>,
    deeds: VecDeque<(u32, Arc<Deed>, Option<Arc<Values>>)>,
    expected: VecDeque<Expect>,
}

/// What a ParseComplete or CloseComplete will mean.
#[derive(Debug)]
pub(super) enum Expect {
    /// The client's statement is there.
    Parsed(Box<[u8]>, Arc<Prepared>),
    /// The same, where the server has it already: we sent a Close of nothing in its place.
    ParsedBefore(Box<[u8]>, Arc<Prepared>),
    /// A statement that the server lacked; the client knows nothing of it.
    Supplied(u64),
    /// One that the server had too many of; likewise.
    Evicted(Kept),
    /// The client's statement without a name is there, in place of an older one.
    Unnamed {
        before: Option<Arc<Prepared>>,
        was_here: bool,
    },
    /// A Query takes that one away, unless it is thrown away itself, behind an error in what stands before it. No
    /// message of its own says so.
    Taken {
        before: Option<Arc<Prepared>>,
        was_here: bool,
    },
    /// The client's statement is gone.
    Closed(Box<[u8]>),
    /// A portal, or a statement too long to be known.
    Passed,
}

/// All stretches.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    whole: VecDeque<Asked>,
    open: Asked,
    is_open: bool,
    /// Something that was asked since the last time that all was answered may take a statement away.
    may_deallocate: bool,
    /// Room that the last stretch had for what it expected: most expect as much.
    spare: VecDeque<Expect>,
}

/// More room than for so many is not kept.
const KEPT_MAX: usize = 16;

impl Ledger {
    /// The client has asked for something that a Sync will end.
    pub(super) fn ask(&mut self) -> &mut Asked {
        self.is_open = true;
        &mut self.open
    }

    /// It will be answered by this, too.
    pub(super) fn expect(&mut self, expect: Expect) {
        self.is_open = true;
        if self.open.expected.capacity() == 0 {
            self.open.expected = std::mem::take(&mut self.spare);
        }
        self.open.expected.push_back(expect);
    }

    /// Everything since the last end belongs together.
    pub(super) fn end(&mut self, extended: bool) {
        self.is_open = false;
        let mut asked = std::mem::take(&mut self.open);
        asked.extended = extended;
        self.whole.push_back(asked);
    }

    /// What the server is at, or will be next.
    pub(super) fn current(&mut self) -> &mut Asked {
        match self.whole.front_mut() {
            Some(asked) => asked,
            None => &mut self.open,
        }
    }

    /// The server is ready again; gives what it was at. What that still expected goes to `unmet`.
    pub(super) fn answered(&mut self, unmet: &mut VecDeque<Expect>) -> Option<Asked> {
        let asked = self.whole.pop_front();
        if self.whole.is_empty() && self.whole.capacity() > KEPT_MAX {
            self.whole = VecDeque::new();
        }
        let mut asked = asked?;
        asked.expected.retain(|expect| !expect.is_taken());
        if !asked.expected.is_empty() {
            unmet.append(&mut asked.expected);
        }
        if (1..=KEPT_MAX).contains(&asked.expected.capacity()) {
            self.spare = std::mem::take(&mut asked.expected);
        }
        Some(asked)
    }

    /// So many answers are still to come. What is older than that will have none: the server has
    /// read its Sync as part of a COPY, or thrown it away behind an error.
    pub(super) fn owed(&mut self, answers: usize, unmet: &mut VecDeque<Expect>) {
        while self.whole.len() > answers
            && let Some(mut asked) = self.whole.pop_front()
        {
            unmet.append(&mut asked.expected);
        }
    }

    /// Whether something is expected that depends on which statements with names of ours the server has.
    pub(super) fn expects_shared(&self) -> bool {
        let all = self.whole.iter().chain([&self.open]);
        let mut expected = all.flat_map(|asked| asked.expected.iter());
        expected.any(|expect| match expect {
            Expect::Parsed(..) | Expect::ParsedBefore(..) | Expect::Evicted(_) => true,
            Expect::Supplied(id) => *id != 0,
            Expect::Unnamed { .. } | Expect::Taken { .. } | Expect::Closed(_) | Expect::Passed => {
                false
            }
        })
    }

    /// Whether the statement without a name is still to be prepared.
    pub(super) fn expects_unnamed(&self) -> bool {
        self.expects_unnamed_before() || self.open.expected.iter().any(Expect::is_unnamed)
    }

    /// Whether it is still to be seen which one that is. Who prepares it in the stretch that is open has it there, or
    /// all else of the stretch is thrown away, too.
    pub(super) fn may_lack_unnamed(&self) -> bool {
        let is_prepared = self.open.expected.iter().rev().any(Expect::is_unnamed);
        let mut before = self.whole.iter().flat_map(|asked| asked.expected.iter());
        !is_prepared && before.any(|expect| expect.is_unnamed() || expect.is_taken())
    }

    /// Whether a Query takes it away that stands behind the next Sync.
    pub(super) fn takes_unnamed(&self) -> bool {
        let mut whole = self
            .whole
            .iter()
            .skip_while(|asked| !asked.extended)
            .skip(1);
        whole.any(|asked| !asked.extended)
    }

    /// Whether that is so in a stretch that has its end already.
    fn expects_unnamed_before(&self) -> bool {
        let mut expected = self.whole.iter().flat_map(|asked| asked.expected.iter());
        expected.any(Expect::is_unnamed)
    }

    /// How many bytes the texts have that are still to be prepared.
    pub(super) fn expected_bytes(&self) -> usize {
        let all = self.whole.iter().chain([&self.open]);
        let expected = all.flat_map(|asked| asked.expected.iter());
        let bytes = expected.map(|expect| match expect {
            Expect::Parsed(_, prepared) | Expect::ParsedBefore(_, prepared) => {
                prepared.text_bytes()
            }
            _ => 0,
        });
        bytes.sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty() && !self.is_open
    }

    /// Whether nothing but a BEGIN is on its way. Where it fails, what comes behind it would commit by itself; and as long
    /// as nothing does, the transaction can begin on another server.
    pub(super) fn is_at_a_begin(&self) -> bool {
        self.whole.front().is_some_and(|one| one.begin.is_some())
    }

    /// Statements are on their way.
    pub(super) fn read(&mut self, reading: &Reading, values: Option<&Arc<Values>>) -> &mut Asked {
        let takes = |(_, deed): &(u32, Arc<Deed>)| {
            matches!(**deed, Deed::Deallocate(_) | Deed::DeallocateAll)
        };
        self.may_deallocate &= !self.is_empty();
        self.may_deallocate |= reading.deeds.iter().any(takes);
        let asked = self.ask();
        asked.read(reading, values);
        asked
    }

    /// Whether it is still to be seen if SQL takes away a statement of this name. `None`: of any.
    pub(super) fn may_deallocate(&self, name: Option<&[u8]>) -> bool {
        let takes = |deed: &Deed| match deed {
            Deed::Deallocate(of) => name.is_none_or(|name| of.as_bytes() == name),
            Deed::DeallocateAll => true,
            _ => false,
        };
        let all = self.whole.iter().chain([&self.open]);
        let mut deeds = all.flat_map(|asked| &asked.deeds);
        self.may_deallocate && deeds.any(|(_, deed, _)| takes(deed))
    }

    /// Whether everything that was asked has its end.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_open
    }

    /// Everything there is, oldest first, and whether the last one is still open.
    pub(super) fn take(&mut self) -> (Vec<Asked>, bool) {
        let mut all: Vec<_> = self.whole.drain(..).collect();
        let is_open = std::mem::take(&mut self.is_open);
        if is_open {
            all.push(std::mem::take(&mut self.open));
        }
        (all, is_open)
    }

    /// `read_only`: transactions of the session begin read-only, and nothing that it has said can have made one
    /// writable. That holds for one statement at a time: what a function has done about the next transaction the
    /// server reports behind its statement.
    pub(super) fn may_have_committed(&self, from: Phase, read_only: bool) -> bool {
        let mut all = self.whole.iter().chain(self.is_open.then_some(&self.open));
        let stretches = self.whole.len() + usize::from(self.is_open);
        let one = self.whole.front().unwrap_or(&self.open);
        if read_only && stretches == 1 && one.statements <= 1 {
            return one.acts.may_have_committed_read_only(from);
        }
        // Where a BEGIN fails, what was sent behind it commits by itself.
        let mut from = Phases::only(from);
        let committed = all.any(|asked| {
            let committed = asked.acts.may_have_committed(from);
            from = asked.may_lead_to(from);
            committed
        });
        committed || one.is_beyond_its_reading()
    }

    /// The statement that a name will stand for when what was asked has been done.
    pub(super) fn named(&self, name: &[u8]) -> Option<Option<Arc<Prepared>>> {
        let all = self.whole.iter().chain([&self.open]);
        let expected = all.flat_map(|asked| asked.expected.iter());
        let mut about = expected.filter_map(|expect| match expect {
            Expect::Parsed(of, prepared) | Expect::ParsedBefore(of, prepared) if **of == *name => {
                Some(Some(Arc::clone(prepared)))
            }
            Expect::Closed(of) if **of == *name => Some(None),
            _ => None,
        });
        about.next_back()
    }
}

impl Expect {
    fn is_unnamed(&self) -> bool {
        matches!(self, Self::Unnamed { .. } | Self::Supplied(0))
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }
}

impl Asked {
    /// A ROLLBACK and nothing else, as one simple query.
    pub(super) fn is_rollback(&self) -> bool {
        let rollback = Acts::default().then(Act::Rollback);
        self.acts == rollback && self.statements == 1 && !self.extended && !self.failed
    }

    /// Statements are on their way.
    fn read(&mut self, reading: &Reading, values: Option<&Arc<Values>>) {
        self.acts = self.acts.and(reading.acts);
        // Behind an error none of them is done.
        let deeds = reading.deeds.iter().filter(|_| !self.failed);
        for (number, deed) in deeds {
            let number = self.statements + number;
            self.deeds
                .push_back((number, Arc::clone(deed), values.cloned()));
        }
        self.statements += reading.statements;
        self.is_by_tags |= reading.is_by_tags;
    }

    pub(super) fn met(&mut self) -> Option<Expect> {
        self.expected.pop_front()
    }

    /// The server has said that a transaction is committed.
    pub(super) fn has_committed(&mut self) {
        self.committed = true;
    }

    /// The server has said that a transaction has begun.
    pub(super) fn has_begun(&mut self) {
        self.begun = true;
    }

    /// Where the next stretch may find the session.
    fn may_lead_to(&self, from: Phases) -> Phases {
        let begun = self.begun.then(|| self.acts.may_lead_to_from_begin());
        let begun = begun.flatten();
        begun.unwrap_or_else(|| self.acts.may_lead_to(from))
    }

    /// Whether the server's words don't go with what was read in the statements: whatever it said of a commit counts more,
    /// and so does the end of a statement that was not seen.
    fn is_beyond_its_reading(&self) -> bool {
        self.committed || self.completed > self.statements
    }

    /// A statement has been done; gives what it did to the session.
    pub(super) fn completed(
        &mut self,
    ) -> impl Iterator<Item = (Arc<Deed>, Option<Arc<Values>>)> + use<'_> {
        let number = self.completed;
        self.completed += 1;
        std::iter::from_fn(move || {
            let (at, ..) = self.deeds.front()?;
            if *at > number {
                return None;
            }
            let (_, deed, values) = self.deeds.pop_front()?;
            Some((deed, values))
        })
    }

    /// Whether the client has heard that one of its statements is done.
    pub(super) fn has_completed(&self) -> bool {
        self.completed > 0
    }

    /// Whether a statement of it is on its way, and not only what prepares some.
    pub(super) fn has_statements(&self) -> bool {
        self.statements > 0
    }

    /// The rest will not be done; gives what will not come.
    pub(super) fn fail(&mut self) -> VecDeque<Expect> {
        self.failed = true;
        self.deeds.clear();
        std::mem::take(&mut self.expected)
    }
}
