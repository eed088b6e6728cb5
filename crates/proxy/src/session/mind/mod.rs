//! What is known of one session: what it has asked, what it has prepared, what it has changed.
//!
//! **Invariant:** whatever goes to the server is told to the server's session and to the ledger
//! first, and whatever comes from it, before it is passed on.
//!
//! It does not know sockets or waiting.

mod climate;
mod names;
mod reply;
mod request;
mod supply;

use super::again::Again;
use super::ledger::Ledger;
use super::mending::Mending;
use super::portals::Portals;
use super::statements::{BYTES_MAX, Statements};
use crate::journal::Journal;
use crate::options::{PoolMode, Route};
use crate::prepared::{Prepared, Registry};
use std::ffi::CStr;
use std::sync::Arc;
use wire::{Malformed, Violation};

/// A statement that does not exist is closed to get an answer that has no effect.
const NOTHING: &CStr = c"standfast_nothing";
/// In place of a DEALLOCATE of a statement that others use too; it takes nothing from anybody.
const KEEP: &CStr = c"DISCARD PLANS";

/// Whose texts have more bytes takes them along when it goes, and doesn't leave that to those who come.
const LEFT_BYTES_MAX: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Mind {
    pub(super) mode: PoolMode,
    pub(super) registry: Arc<Registry>,
    pub(super) prepared_max: usize,
    pub(super) ledger: Ledger,
    pub(super) journal: Journal,
    pub(super) statements: Statements,
    /// The statement without a name, and whether the server has it.
    pub(super) unnamed: Option<Arc<Prepared>>,
    pub(super) unnamed_here: bool,
    portals: Portals,
    /// The transaction that is open, as far as the client knows, has done nothing but begin with this.
    pub(super) begun: Option<Box<[u8]>>,
    /// It came to read, and has said nothing that could make a transaction writable which begins read-only.
    pub(super) only_reads: bool,
    /// Something was asked for that may have done more to the session than its text says, and the
    /// server was not asked what that was.
    pub(super) opaque: bool,
    /// Behind such a thing the session has kept its server, which may have settings that nobody sees.
    pub(super) stained: bool,
    /// What must be set right on a server that is lent.
    pub(super) mending: Mending,
    /// What could be asked of another server as well.
    pub(super) again: Again,
    weather: climate::Weather,
    /// Where the server's clock stood when nothing was under way.
    since: u64,
    /// The server was asked to answer what it has before the client's next message.
    has_flushed: bool,
    /// Parameters that were reported since the server was last ready.
    reported: Vec<Box<[u8]>>,
}

impl Drop for Mind {
    fn drop(&mut self) {
        if self.statements.bytes() + self.ledger.expected_bytes() > LEFT_BYTES_MAX {
            self.statements.clear();
            self.ledger = Ledger::default();
            self.portals.clear();
            self.registry.sweep();
        }
    }
}

/// What goes to the server for a message of the client.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Messages of ours before it.
    pub(super) before: Vec<u8>,
    /// What goes in place of the bytes that are here; `None`: they themselves.
    pub(super) instead: Option<Vec<u8>>,
}

/// What becomes of a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Forward,
    Drop,
    Instead(Vec<u8>),
}

/// A request that can't be sent on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the message can't be written anew")]
    Unwritable(#[from] wire::Unwritable),
    #[error("the statements of the session have more than {BYTES_MAX} bytes")]
    TooMuchPrepared,
}

impl Mind {
    pub(super) fn new(
        mode: PoolMode,
        route: Route,
        registry: Arc<Registry>,
        prepared_max: usize,
    ) -> Self {
        Self {
            mode,
            registry,
            prepared_max,
            ledger: Ledger::default(),
            journal: Journal::default(),
            statements: Statements::default(),
            unnamed: None,
            unnamed_here: false,
            portals: Portals::default(),
            begun: None,
            only_reads: route == Route::Read,
            opaque: false,
            stained: false,
            mending: Mending::default(),
            again: Again::default(),
            weather: climate::Weather::default(),
            since: 0,
            has_flushed: false,
            reported: Vec::new(),
        }
    }

    /// The session is with another server, or with none.
    pub(super) fn detached(&mut self) {
        self.stained = false;
        self.mending = Mending::default();
        self.unnamed_here = false;
        self.weather.settle();
        self.portals.clear();
        self.reported.clear();
    }

    /// Whether the session must stay with its server between transactions.
    pub(super) fn is_tied(&self) -> bool {
        self.mode == PoolMode::Session
            || !self.journal.pins().is_empty()
            || self.journal.has_prepared()
    }

    /// Whether the server must be asked what it has become, before anything else happens to it.
    pub(super) fn is_to_be_looked_at(&self) -> bool {
        self.opaque || (self.stained && !self.is_tied())
    }

    pub(super) fn renames(&self) -> bool {
        self.mode == PoolMode::Transaction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_prepared_goes_with_him() {
        let registry = Arc::new(Registry::default());
        let mode = PoolMode::Transaction;
        let mut mind = Mind::new(mode, Route::Write, Arc::clone(&registry), 10);
        for n in 0..100 {
            let name = format!("s{n}");
            let body = format!("select {n}, '{}'\0\0\0", "x".repeat(50_000));
            mind.learn(name.as_bytes(), body.as_bytes());
        }
        assert!(registry.text_bytes() > 100 * 50_000);
        drop(mind);
        assert_eq!(registry.text_bytes(), 0);
    }
}
