//! What a server was to prepare or to close and has not: after an error it throws away what it reads up to a Sync.
//!
//! **Invariant:** what is known of a server's statements is so, or the server is not given to anybody else.

use super::ledger::Expect;
use super::mind::Mind;
use crate::errors;
use crate::pool::Mirror;
use crate::prepared;
use std::collections::VecDeque;
use std::sync::Arc;
use wire::RequestKind;
use wire::backend::Fields;

impl Mind {
    /// A request of the kind has failed, and what its stretch expected will not come.
    pub(super) fn refused(
        &mut self,
        kind: Option<RequestKind>,
        why: Fields<'_>,
        mut unmet: VecDeque<Expect>,
        mirror: &mut Mirror,
    ) {
        if kind == Some(RequestKind::Query) {
            // It has begun, and that is enough.
            unmet.retain(|expect| !expect.is_taken());
        }
        mirror.is_mixed_up |= self.renames() && is_about_ours(why, unmet.front());
        self.retire(why, mirror);
        let first = unmet
            .front_mut()
            .filter(|_| kind == Some(RequestKind::Parse));
        if let Some(Expect::Unnamed { before, .. }) = first {
            // The older one went before the new text was looked at.
            *before = None;
        }
        self.unmet(unmet, mirror);
    }

    /// Takes back what was counted on, the last first.
    pub(super) fn unmet(&mut self, unmet: VecDeque<Expect>, mirror: &mut Mirror) {
        let mut was_shared = false;
        for expect in unmet.into_iter().rev() {
            match expect {
                Expect::Supplied(0) => self.unnamed_here = false,
                Expect::Unnamed { before, was_here } => self.unnamed_again(before, was_here),
                Expect::Taken { before, was_here } => self.kept_unnamed(before, was_here),
                Expect::Parsed(_, prepared) => {
                    was_shared = true;
                    mirror.known.remove(&prepared.id);
                }
                Expect::Supplied(id) => {
                    was_shared = true;
                    mirror.known.remove(&id);
                }
                Expect::Evicted(kept) => {
                    was_shared = true;
                    mirror.put_back(kept);
                }
                Expect::ParsedBefore(..) | Expect::Closed(_) | Expect::Passed => {}
            }
        }
        // What was sent behind it was sent in the belief that it would be done.
        mirror.is_mixed_up |= was_shared && self.renames() && self.ledger.expects_shared();
    }

    /// The Query that was to take it away was thrown away.
    fn kept_unnamed(&mut self, before: Option<Arc<prepared::Prepared>>, was_here: bool) {
        if self.unnamed.is_none() && !self.ledger.expects_unnamed() && !self.ledger.takes_unnamed()
        {
            self.unnamed_here = was_here && before.is_some();
            self.unnamed = before;
        }
    }

    /// Unless another has been sent since, or a Query, which takes it away.
    fn unnamed_again(&mut self, before: Option<Arc<prepared::Prepared>>, was_here: bool) {
        if self.unnamed.is_some() && !self.ledger.expects_unnamed() {
            self.unnamed_here = was_here && before.is_some();
            self.unnamed = before;
        }
    }
}

/// Whether it says that a statement with a name of ours is not where it is known to be, or is where it is not: a
/// function has taken all away, for one.
fn is_about_ours(why: Fields<'_>, first: Option<&Expect>) -> bool {
    match why.sqlstate() {
        Some(errors::DUPLICATE_STATEMENT) => {
            matches!(first, Some(Expect::Parsed(..) | Expect::Supplied(_)))
        }
        Some(errors::NO_SUCH_STATEMENT) => {
            let said = why.message().unwrap_or_default().to_bytes();
            let mut words = said.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
            words.any(|word| prepared::id(word).is_some())
        }
        _ => false,
    }
}
