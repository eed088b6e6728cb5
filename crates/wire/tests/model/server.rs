//! A server that reads messages as PostgreSQL's main loop does, without doing anything.

use crate::ask::{Ask, Effect};
use std::collections::{BTreeSet, VecDeque};
use wire::backend::{CopyFormats, Field, Fields, Message as Said, TransactionStatus};
use wire::{Busy, Copying, List};

/// A COPY from the client that goes on.
#[derive(Debug)]
struct Reading {
    fails_at: Option<u8>,
    read: u8,
    /// A query goes on with these afterwards; an Execute has nothing more to do.
    rest: Option<Vec<Effect>>,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) inbox: VecDeque<Ask>,
    pub(crate) outbox: VecDeque<Vec<u8>>,
    pub(crate) statements: BTreeSet<Vec<u8>>,
    pub(crate) portals: BTreeSet<Vec<u8>>,
    /// What ReadyForQuery said last.
    pub(crate) said: TransactionStatus,
    /// A COPY has failed. What it has read as data and what it has not, nobody outside can tell.
    pub(crate) copy_failed: bool,
    /// What PostgreSQL 13 does with a message that does not belong into a COPY: it goes on.
    lenient: bool,
    status: TransactionStatus,
    skipping: bool,
    batch_open: bool,
    reading: Option<Reading>,
    ended: bool,
}

impl Server {
    pub(crate) fn new(lenient: bool) -> Self {
        Self {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            statements: BTreeSet::new(),
            portals: BTreeSet::new(),
            said: TransactionStatus::Idle,
            copy_failed: false,
            lenient,
            status: TransactionStatus::Idle,
            skipping: false,
            batch_open: false,
            reading: None,
            ended: false,
        }
    }

    /// What a session should say when everything has arrived.
    pub(crate) fn truth(&self) -> Result<(), Busy> {
        if self.ended {
            return Err(Busy::Ended);
        }
        if self.reading.is_some() {
            return Err(Busy::Copying(Copying::In));
        }
        if self.skipping {
            return Err(Busy::Skipping);
        }
        if self.batch_open {
            return Err(Busy::BatchOpen);
        }
        match self.status {
            TransactionStatus::Idle => Ok(()),
            TransactionStatus::InTransaction => Err(Busy::InTransaction),
            TransactionStatus::Failed => Err(Busy::InFailedTransaction),
        }
    }

    /// Reads one message.
    pub(crate) fn work(&mut self) {
        let Some(ask) = self.inbox.pop_front() else {
            return;
        };
        if self.ended {
            return;
        }
        if self.reading.is_some() {
            return self.read(&ask);
        }
        if self.skipping && !matches!(ask, Ask::Sync) {
            return;
        }
        match ask {
            Ask::Sync => {
                self.skipping = false;
                self.ready();
            }
            Ask::Flush | Ask::CopyData | Ask::CopyDone | Ask::CopyFail => {}
            Ask::Query(effects) => {
                self.statements.remove(&b""[..]);
                self.portals.remove(&b""[..]);
                self.go_on(effects);
            }
            Ask::Function { fails } => {
                if fails || self.status == TransactionStatus::Failed {
                    self.fail();
                } else {
                    self.say(&Said::FunctionCallResponse(None));
                }
                self.ready();
            }
            extended => {
                if self.extended(&extended).is_err() {
                    self.fail();
                    self.skipping = true;
                } else if self.reading.is_none() {
                    self.batch_open = true;
                }
            }
        }
    }

    fn extended(&mut self, ask: &Ask) -> Result<(), ()> {
        let failed = self.status == TransactionStatus::Failed;
        match ask {
            Ask::Parse(name) => {
                let name = name.to_bytes().to_vec();
                if name.is_empty() {
                    self.statements.remove(&name);
                }
                if failed || !self.statements.insert(name) {
                    return Err(());
                }
                self.say(&Said::ParseComplete);
            }
            Ask::Bind(portal, statement) => {
                let portal = portal.to_bytes().to_vec();
                if failed || !self.statements.contains(statement.to_bytes()) {
                    return Err(());
                }
                if !self.portals.insert(portal.clone()) && !portal.is_empty() {
                    return Err(());
                }
                self.say(&Said::BindComplete);
            }
            Ask::Describe(name, true) => {
                if failed || !self.portals.contains(name.to_bytes()) {
                    return Err(());
                }
                self.say(&Said::NoData);
            }
            Ask::Describe(name, false) => {
                if failed || !self.statements.contains(name.to_bytes()) {
                    return Err(());
                }
                self.say(&Said::ParameterDescription(List::empty()));
                self.say(&Said::RowDescription(List::empty()));
            }
            Ask::Close(name, portal) => {
                let all = if *portal {
                    &mut self.portals
                } else {
                    &mut self.statements
                };
                all.remove(name.to_bytes());
                self.say(&Said::CloseComplete);
            }
            Ask::Execute(portal, effect) => {
                if !self.portals.contains(portal.to_bytes()) {
                    return Err(());
                }
                self.say(&Said::NoticeResponse(Fields(List::empty())));
                return self.execute(*effect, None);
            }
            other => panic!("{other:?} is no part of a batch"),
        }
        Ok(())
    }

    /// The rest of a query, up to its end or to a COPY that reads from the client.
    fn go_on(&mut self, effects: Vec<Effect>) {
        for (place, effect) in effects.iter().enumerate() {
            let rest = &effects[place + 1..];
            if self.execute(*effect, Some(rest)).is_err() {
                self.fail();
                break;
            }
            if self.reading.is_some() || self.ended {
                return;
            }
        }
        self.ready();
    }

    fn execute(&mut self, effect: Effect, rest: Option<&[Effect]>) -> Result<(), ()> {
        let ends = matches!(effect, Effect::Commits | Effect::RollsBack | Effect::Dies);
        if self.status == TransactionStatus::Failed && !ends {
            return Err(());
        }
        let formats = CopyFormats {
            overall: 0,
            columns: List::empty(),
        };
        let tag = match effect {
            Effect::Fails => return Err(()),
            Effect::Dies => {
                self.error(c"FATAL");
                self.ended = true;
                return Ok(());
            }
            Effect::CopiesIn { fails_at } => {
                self.say(&Said::CopyInResponse(formats));
                if fails_at == Some(0) {
                    self.copy_failed = true;
                    return Err(());
                }
                self.reading = Some(Reading {
                    fails_at,
                    read: 0,
                    rest: rest.map(<[_]>::to_vec),
                });
                return Ok(());
            }
            Effect::Suspends if rest.is_none() => {
                self.say(&Said::DataRow(List::empty()));
                self.say(&Said::PortalSuspended);
                return Ok(());
            }
            Effect::Nothing => {
                self.say(&Said::EmptyQueryResponse);
                return Ok(());
            }
            Effect::Rows | Effect::Suspends => {
                if rest.is_some() {
                    self.say(&Said::RowDescription(List::empty()));
                }
                self.say(&Said::DataRow(List::empty()));
                c"SELECT 1"
            }
            Effect::CopiesOut => {
                self.say(&Said::CopyOutResponse(formats));
                self.say(&Said::CopyData(b"1\n"));
                self.say(&Said::CopyDone);
                c"COPY 1"
            }
            Effect::Deallocates => {
                self.statements.retain(Vec::is_empty);
                c"DEALLOCATE ALL"
            }
            Effect::Begins => {
                self.status = TransactionStatus::InTransaction;
                c"BEGIN"
            }
            Effect::Commits | Effect::RollsBack => {
                self.status = TransactionStatus::Idle;
                self.portals.clear();
                c"ROLLBACK"
            }
        };
        self.say(&Said::CommandComplete(tag));
        Ok(())
    }

    /// A message arrives while COPY reads.
    fn read(&mut self, ask: &Ask) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        let failed = match ask {
            Ask::Sync | Ask::Flush => return,
            Ask::CopyData => {
                reading.read += 1;
                if reading.fails_at != Some(reading.read) {
                    return;
                }
                true
            }
            Ask::CopyDone => false,
            Ask::CopyFail => true,
            _ if self.lenient => true,
            _ => {
                self.error(c"ERROR");
                self.error(c"FATAL");
                self.ended = true;
                return;
            }
        };
        let rest = self.reading.take().and_then(|reading| reading.rest);
        if failed {
            self.copy_failed = true;
            self.fail();
        } else {
            self.say(&Said::CommandComplete(c"COPY 1"));
        }
        match rest {
            Some(_) if failed => self.ready(),
            Some(rest) => self.go_on(rest),
            None if failed => self.skipping = true,
            None => self.batch_open = true,
        }
    }

    fn fail(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
        self.error(c"ERROR");
    }

    fn error(&mut self, severity: &std::ffi::CStr) {
        let fields = [(b'S', severity), (b'V', severity), (b'C', c"XX000")];
        let fields = fields.map(|(code, text)| Field { code, text });
        let mut room = Vec::new();
        let fields = Fields(List::write(fields, &mut room));
        self.say(&Said::ErrorResponse(fields));
    }

    fn ready(&mut self) {
        self.batch_open = false;
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.said = self.status;
        self.say(&Said::ReadyForQuery(self.status));
    }

    fn say(&mut self, message: &Said<'_>) {
        let mut out = Vec::new();
        message.encode(&mut out).expect("a short message");
        self.outbox.push_back(out);
    }
}
