//! A session on a server that is lent to it may reset what the server was started with: that is set right again.
//!
//! **Invariant:** behind a request that has reset something, the next one of the session finds the value of its own
//! startup, and the client never hears of another. Between a RESET and the end of its request (by the extended protocol,
//! the Sync that ends it) the server's own value stands.
//!
//! **Invariant:** no text of the client's is changed for it.
//!
//! Whoever sets by a function, or for a transaction alone, just what the server happened to begin with, another client's
//! name, is taken for one who has reset it.
//!
//! It does not know sockets or waiting.

use super::mind::Mind;
use crate::pool::{Loan, Mirror, Names};
use crate::sql::{Pin, Reading, Reset};
use std::ffi::CString;
use wire::backend::{self, TransactionStatus};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// What the text of a request that is under way resets.
    reset: Names,
    /// What was reported with the value that the server began with: somebody has set it, or reset it.
    unsure: Names,
    /// What was set right until the end of the transaction that is open.
    pub(super) local: Names,
    /// What was reported since the server was last ready. The client hears of it then.
    reported: Names,
    /// What the client was told otherwise than the server reports.
    pub(super) masked: Names,
}

/// What is to be done before the session goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mend {
    Nothing,
    /// The session leaves its server: the next one is set right before it has it.
    Part,
    /// The server is asked this.
    Ask(Vec<Vec<u8>>),
}

impl Mending {
    pub(super) fn is_due(&self) -> bool {
        self.is_due_at_once() || !self.local.is_empty()
    }

    /// Whether it is due within a transaction, too.
    pub(super) fn is_due_at_once(&self) -> bool {
        !self.reset.with(self.unsure).is_empty()
    }

    /// Statements are on their way that reset something.
    pub(super) fn resets(&mut self, reading: &Reading, mirror: &Mirror) {
        let (Some(reset), Some(loan)) = (&reading.resets, &mirror.loan) else {
            return;
        };
        self.reset = self.reset.with(loan.about(named(reset)));
    }

    /// What may have the value that the server began with because it was reset: PostgreSQL takes that for one that was
    /// set, where something was set behind it for the transaction alone.
    pub(super) fn may_be_reset(&self) -> Names {
        self.local.with(self.reset).with(self.unsure)
    }

    /// It was done, and the client has been told everything.
    pub(super) fn is_done(&mut self) {
        *self = Self {
            local: self.local,
            ..Self::default()
        };
    }
}

impl Mind {
    /// The server reports a setting; `true`: the client hears of it when the server is ready.
    pub(super) fn withholds(&mut self, name: &[u8], mirror: &Mirror) -> bool {
        let Some(loan) = &mirror.loan else {
            return false;
        };
        let name = loan.about(Names::one(name));
        let astray = loan.astray(&mirror.parameters).and(name);
        self.mending.unsure = self.mending.unsure.with(astray);
        self.mending.reported = self.mending.reported.with(name);
        !name.is_empty()
    }

    /// The server is ready: what the client is to hear before it hears that.
    pub(super) fn told(&mut self, mirror: &Mirror, out: &mut Vec<u8>) {
        let Some(loan) = &mirror.loan else {
            return;
        };
        let reported = std::mem::take(&mut self.mending.reported);
        if reported.is_empty() && !self.mending.is_due() {
            return;
        }
        let reset = self.is_reset(loan, mirror);
        let news = reported.with(reset.without(self.mending.masked));
        for (one, name) in news.iter() {
            let parameters = match reset.has(one) {
                true => &loan.own,
                false => &mirror.parameters,
            };
            let value = parameters.get(name.as_bytes());
            let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
            let (name, value) = (
                text(name.as_bytes()),
                text(value.map_or(b"", |value| value)),
            );
            let message = backend::Message::ParameterStatus {
                name: &name,
                value: &value,
            };
            // It came in a message of the same form.
            let _ = message.encode(out);
        }
        let masked = self.mending.masked.without(reported);
        self.mending.masked = masked.with(reset);
    }

    /// What has the value that the server began with because it was reset, as far as that can be told.
    fn is_reset(&self, loan: &Loan, mirror: &Mirror) -> Names {
        let astray = loan.astray(&mirror.parameters).iter();
        // What was set in another way is written down, or it is not known how.
        let unknown = self.opaque || self.journal.pins().has(Pin::Settings);
        let is_reset = |one: &Names, name: &str| {
            self.mending.reset.has(*one) || unknown || !self.journal.has_set(&lower(name))
        };
        let reset = astray.filter(|(one, name)| is_reset(one, name));
        reset.fold(Names::default(), |all, (one, _)| all.with(one))
    }

    /// Whether a setting that is reported between two transactions was reset, for all that is known.
    pub(super) fn takes_for_reset(&self, name: &[u8], mirror: &Mirror) -> bool {
        let Some(loan) = &mirror.loan else {
            return false;
        };
        let one = loan.about(Names::one(name));
        !one.is_empty() && self.is_reset(loan, mirror).has(one)
    }

    /// Between two transactions it has turned out what the session has set.
    pub(super) fn masks_only_what_is_reset(&mut self) -> Names {
        let settings = self.journal.settings();
        let is_reset = |name: &str| !settings.contains_key(&*lower(name));
        let masked = self.mending.masked.iter();
        let masked = masked.filter(|(_, name)| is_reset(name));
        let masked = masked.fold(Names::default(), |all, (one, _)| all.with(one));
        self.mending.masked = masked;
        masked
    }

    /// Everything is answered: what is to be done before the session goes on.
    pub(super) fn mend(&mut self, mirror: &Mirror) -> Mend {
        let Some(loan) = &mirror.loan else {
            self.mending = Mending::default();
            return Mend::Nothing;
        };
        let status = mirror.session.transaction_status();
        if status == TransactionStatus::Failed {
            return Mend::Nothing;
        }
        let reset = self.is_reset(loan, mirror);
        (self.mending.reset, self.mending.unsure) = Default::default();
        self.mending.local = match status {
            TransactionStatus::Idle => Names::default(),
            _ => self.mending.local.with(reset),
        };
        match status {
            _ if reset.is_empty() => Mend::Nothing,
            TransactionStatus::Idle if !self.is_tied() => Mend::Part,
            TransactionStatus::Idle => Mend::Ask(loan.set_again(reset, false)),
            // What is local ends with the transaction, and so does the doubt whether the RESET was.
            _ => Mend::Ask(loan.set_again(reset, true)),
        }
    }

    /// Whether what the client asks next must wait for that.
    pub(super) fn waits_to_be_mended(&self, mirror: &Mirror) -> bool {
        let session = &mirror.session;
        let is_coming = || match session.idle() {
            Ok(()) => true,
            // What was set right until the end of the transaction can wait for that.
            Err(wire::Busy::InTransaction) => self.mending.is_due_at_once(),
            Err(_) => session.unanswered().next().is_some(),
        };
        self.mending.is_due()
            && self.ledger.is_whole()
            && session.copying().is_none()
            && is_coming()
    }
}

fn named(reset: &Reset) -> Names {
    match reset {
        Reset::One(name) => Names::one(name.as_bytes()),
        Reset::All => Names::ALL,
    }
}

fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}
