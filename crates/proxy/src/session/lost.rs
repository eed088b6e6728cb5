//! The moment when a server is lost: what its client is told.
//!
//! **Invariant:** nothing that may have run is sent again, but what only prepares or describes statements and was not
//! answered: it leaves nothing behind but in the session that is lost. What is certainly not committed is told as
//! 40001 and the session goes on; what may be committed is told as 08007 and the session ends.
//!
//! **Invariant:** where a transaction is lost with its beginning, what its client has sent behind that is not run
//! outside of it: the session is in a failed transaction until the client ends it.

use super::ledger::Asked;
use super::mind::Mind;
use super::standin::{StandIn, say, tell};
use crate::errors;
use crate::pool::Server;
use crate::sql::{Phase, Pin, Pins, begin_tag};
use wire::Copying;
use wire::backend::{Message, Report, TransactionStatus};

/// Where a session's connection to its server was when it was lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) status: TransactionStatus,
    pub(super) copying: Option<Copying>,
    /// A message of the server is half passed on, or one that was due can't be passed on any more.
    pub(super) cut: bool,
    /// Transactions there began read-only, by the server's last word.
    pub(super) read_only: bool,
}

impl Moment {
    /// Between two transactions, with nothing under way.
    pub(super) const IDLE: Self = Self {
        status: TransactionStatus::Idle,
        copying: None,
        cut: false,
        read_only: false,
    };

    /// With nothing under way.
    pub(super) fn of(server: &Server) -> Self {
        Self {
            status: server.mirror.session.transaction_status(),
            read_only: server.mirror.begins_read_only(),
            ..Self::IDLE
        }
    }
}

/// How the session goes on.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nobody has noticed anything.
    Unnoticed,
    /// Neither has its client, of whom these bytes are: they are for another server now.
    AskAgain(Vec<u8>),
    /// The client was told of a request that is lost; the next one is for a server.
    Told,
    StandIn(StandIn),
    /// It ends with this; the reason in a few words.
    End(Report, &'static str),
    /// It ends, and nothing can be said any more.
    Silent,
}

impl Mind {
    /// Decides, and writes what the client is to hear at once.
    pub(super) fn lose(&mut self, moment: Moment, out: &mut Vec<u8>) -> Outcome {
        let phase = match moment.status {
            TransactionStatus::Idle => Phase::Outside,
            TransactionStatus::InTransaction => Phase::Inside,
            TransactionStatus::Failed => Phase::Failed,
        };
        let read_only = self.only_reads && moment.read_only;
        let unknown = self.ledger.may_have_committed(phase, read_only);
        let (mut asked, is_open) = self.ledger.take();
        self.journal.lost();
        let again = self.again.take();
        if moment.cut {
            return Outcome::Silent;
        }
        if unknown {
            return Outcome::End(errors::unknown_outcome(), "unknown outcome");
        }
        let opaque = std::mem::take(&mut self.opaque);
        if opaque && asked.is_empty() && phase == Phase::Outside {
            self.journal.pin(Pins::default().with(Pin::NotUnderstood));
        }
        let pins = self.journal.pins();
        if !pins.is_empty() {
            return Outcome::End(errors::unmovable(&pins.describe()), "unmovable");
        }
        if let Some(outcome) = self.begin_again(phase, &mut asked, is_open, out) {
            return outcome;
        }
        match again {
            Some(bytes) if phase == Phase::Outside => Outcome::AskAgain(bytes),
            _ => answer_all(phase, asked, is_open, moment.copying, out),
        }
    }

    /// A transaction that has done nothing but begin is begun anew on the next server, before the next request goes there:
    /// nothing that its client has seen depends on the old one. Drivers don't expect a BEGIN to fail, and some stay
    /// confused for the rest of the session. A ROLLBACK outside of a transaction is done without a server.
    fn begin_again(
        &mut self,
        phase: Phase,
        asked: &mut [Asked],
        is_open: bool,
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        match (phase, asked) {
            (Phase::Inside, []) => self.begun.is_some().then_some(Outcome::Unnoticed),
            // Nor one that ends nothing: said behind an error, it is what brings a driver back.
            (Phase::Outside, [one]) if !is_open && one.is_rollback() => {
                if !one.has_completed() {
                    say(&Message::CommandComplete(c"ROLLBACK"), out);
                }
                say(&Message::ReadyForQuery(TransactionStatus::Idle), out);
                Some(Outcome::Unnoticed)
            }
            (Phase::Outside, [one]) if !is_open && !one.failed => {
                let begin = one.begin.take()?;
                if !one.has_completed() {
                    say(&Message::CommandComplete(begin_tag(&begin)), out);
                }
                say(
                    &Message::ReadyForQuery(TransactionStatus::InTransaction),
                    out,
                );
                self.begun = Some(begin);
                Some(Outcome::Unnoticed)
            }
            _ => None,
        }
    }
}

fn answer_all(
    mut phase: Phase,
    mut asked: Vec<Asked>,
    is_open: bool,
    copying: Option<Copying>,
    out: &mut Vec<u8>,
) -> Outcome {
    if asked.is_empty() {
        return match phase {
            Phase::Outside => Outcome::Unnoticed,
            Phase::Inside | Phase::Failed => {
                // A transaction that had failed already has had its error.
                let told = phase == Phase::Failed;
                Outcome::StandIn(StandIn::for_transaction(told, false))
            }
        };
    }
    // The first Sync behind a COPY from the client was read as part of its data.
    let reading = matches!(copying, Some(Copying::In | Copying::Both { .. }));
    let mut swallowed = reading && asked.first().is_some_and(|first| first.extended);
    let mut told = false;
    let last = asked.len() - 1;
    for (number, one) in asked.drain(..).enumerate() {
        let unfinished = is_open && number == last;
        let mut is_begun = false;
        if !told || !one.failed {
            tell(&error(phase, told), out);
        }
        told = true;
        if phase == Phase::Outside && one.acts.leads_to(Phase::Outside) == Phase::Inside {
            phase = Phase::Failed;
            is_begun = true;
        }
        if unfinished || (swallowed && number == last) {
            return Outcome::StandIn(rest_of_batch(phase, one.has_statements()));
        }
        if std::mem::take(&mut swallowed) {
            continue;
        }
        if phase != Phase::Outside && !is_begun {
            phase = match one.acts.leads_to(Phase::Failed) {
                Phase::Outside => Phase::Outside,
                Phase::Inside | Phase::Failed => Phase::Failed,
            };
        }
        let status = match phase {
            Phase::Outside => TransactionStatus::Idle,
            Phase::Inside | Phase::Failed => TransactionStatus::Failed,
        };
        say(&Message::ReadyForQuery(status), out);
    }
    match phase {
        Phase::Outside => Outcome::Told,
        Phase::Inside | Phase::Failed => Outcome::StandIn(StandIn::for_transaction(true, false)),
    }
}

fn rest_of_batch(phase: Phase, begun: bool) -> StandIn {
    match phase {
        Phase::Outside => StandIn::for_rest_of_batch(begun),
        Phase::Inside | Phase::Failed => StandIn::for_transaction(true, true),
    }
}

fn error(phase: Phase, told: bool) -> Report {
    match (phase, told) {
        (Phase::Outside, _) => errors::lost_request(),
        (Phase::Inside, _) | (Phase::Failed, false) => errors::lost_transaction(),
        (Phase::Failed, true) => errors::in_failed_transaction(),
    }
}
