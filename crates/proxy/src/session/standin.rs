//! Answers in a server's stead: after a transaction was lost, until its client has ended it, and to
//! a request that no server could be found for.
//!
//! **Invariant:** it answers as PostgreSQL answers in a transaction that has failed, and never says
//! that anything was done but that a transaction was rolled back.
//!
//! **Invariant:** of names it remembers no more than [`BYTES_MAX`].

use super::mind::Mind;
use crate::errors;
use crate::sql::{Acts, Phase, Reading};
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use wire::List;
use wire::backend::{self, Report, TransactionStatus};
use wire::frontend::{Frame, Message, Tag, Target};

/// Of names, with what it takes to find them. A client that says more has to be ended: what its next request would do
/// could not be told any more.
const BYTES_MAX: usize = 4 * 1024 * 1024;
const ENTRY_BYTES: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct StandIn {
    /// [`Phase::Failed`]: in the lost transaction. [`Phase::Outside`]: it answers one request.
    phase: Phase,
    /// What the client has not been told yet.
    first: Option<Report>,
    /// Up to a Sync nothing is answered any more.
    skipping: bool,
    /// What the request that is refused would have done, if it would have begun with a beginning: what the client has sent
    /// behind that is not to run outside of its transaction. Behind another statement that has failed, no server would have
    /// begun it.
    refused: Option<Acts>,
    /// The statements that it would have prepared; those with names only if they do something to transactions.
    texts: HashMap<Box<[u8]>, Acts>,
    /// Portals of statements that end the transaction.
    portals: HashSet<Box<[u8]>>,
    /// So much the names take.
    bytes: usize,
}

/// Whether it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    /// The next request is for a server.
    Leave,
    /// There were too many names.
    Full,
}

impl StandIn {
    /// In a lost transaction. `told`: the client has had the error already; `skipping`: within a
    /// batch, whose Sync is still to come.
    pub(super) fn for_transaction(told: bool, skipping: bool) -> Self {
        let first = (!told).then(errors::lost_transaction);
        Self::new(Phase::Failed, first, skipping)
    }

    /// In a transaction that could not be begun anew, for this reason.
    pub(super) fn for_unbegun(why: Report) -> Self {
        Self::new(Phase::Failed, Some(why), false)
    }

    /// For one request, which gets this answer.
    pub(super) fn for_request(answer: Report) -> Self {
        Self::new(Phase::Outside, Some(answer), false)
    }

    /// For the rest of a batch that has failed outside of a transaction. `begun`: some of its statements were sent.
    pub(super) fn for_rest_of_batch(begun: bool) -> Self {
        let mut rest = Self::new(Phase::Outside, None, true);
        rest.refused = begun.then(Acts::default);
        rest
    }

    fn new(phase: Phase, first: Option<Report>, skipping: bool) -> Self {
        Self {
            phase,
            first,
            skipping,
            refused: None,
            texts: HashMap::new(),
            portals: HashSet::new(),
            bytes: 0,
        }
    }

    /// Answers one message of the client's.
    pub(super) fn answer(&mut self, frame: &Frame<'_>, mind: &mut Mind, out: &mut Vec<u8>) -> Next {
        let next = self.answered(frame, mind, out);
        match self.bytes > BYTES_MAX && next == Next::Stay {
            true => Next::Full,
            false => next,
        }
    }

    fn answered(&mut self, frame: &Frame<'_>, mind: &mut Mind, out: &mut Vec<u8>) -> Next {
        if self.phase == Phase::Outside {
            self.note_refused(frame, mind);
        }
        match frame.tag() {
            Tag::Sync => {
                self.skipping = false;
                return self.ready(out);
            }
            // The data of a COPY that has failed are thrown away.
            Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Flush => return Next::Stay,
            Tag::Query if !self.skipping => {
                let text = frame.body().strip_suffix(b"\0");
                let reading = text.map(|text| Reading::of(text, true));
                if reading.is_some_and(|reading| frame.is_whole() && ends(&reading)) {
                    self.end(out);
                } else {
                    self.refuse(out);
                }
                return self.ready(out);
            }
            Tag::FunctionCall if !self.skipping => {
                self.refuse(out);
                return self.ready(out);
            }
            _ if self.skipping => return Next::Stay,
            _ => {}
        }
        let done = match frame.message() {
            Ok(message) => self.part(&message, frame, mind, out),
            Err(_) => false,
        };
        if !done {
            self.refuse(out);
            self.skipping = true;
        }
        Next::Stay
    }

    fn note_refused(&mut self, frame: &Frame<'_>, mind: &Mind) {
        let acts = |text: &[u8]| Reading::of(text, true).acts;
        match (frame.tag(), frame.message()) {
            (Tag::Query, _) if frame.is_whole() => {
                self.refuse_acts(acts(frame.body().strip_suffix(b"\0").unwrap_or_default()));
            }
            (_, Ok(Message::Parse(parse))) => {
                let (name, acts) = (parse.name.to_bytes(), acts(parse.query.to_bytes()));
                if self.texts.remove(name).is_some() {
                    self.bytes -= ENTRY_BYTES + name.len();
                }
                if name.is_empty() || moves(acts) {
                    self.bytes += ENTRY_BYTES + name.len();
                    self.texts.insert(name.into(), acts);
                }
            }
            (_, Ok(Message::Bind(bind))) => {
                let name = bind.statement.to_bytes();
                let here = self.texts.get(name).copied();
                let bound = here.or_else(|| mind.lookup(name).map(|known| known.reading.acts));
                self.refuse_acts(bound.unwrap_or_default());
            }
            _ => {}
        }
    }

    fn refuse_acts(&mut self, acts: Acts) {
        self.refused = Some(match self.refused {
            None => acts,
            Some(before) if before.leads_to(Phase::Outside) == Phase::Inside => before.and(acts),
            Some(before) => before,
        });
    }

    /// A part of a batch; `false`: it is refused.
    fn part(
        &mut self,
        message: &Message<'_>,
        frame: &Frame<'_>,
        mind: &mut Mind,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.phase != Phase::Failed {
            return false;
        }
        match message {
            Message::Parse(parse) => {
                let name = parse.name.to_bytes();
                let reading = Reading::of(parse.query.to_bytes(), true);
                if !ends(&reading) || !mind.has_place_for(name) {
                    return false;
                }
                mind.learn(name, &frame.body()[name.len() + 1..]);
                say(&backend::Message::ParseComplete, out);
            }
            Message::Bind(bind) if ends_by(bind.statement, mind) => {
                let name = bind.portal.to_bytes();
                if self.portals.insert(name.into()) {
                    self.bytes += ENTRY_BYTES + name.len();
                }
                say(&backend::Message::BindComplete, out);
            }
            Message::Describe(Target::Portal(name)) if self.has_portal(name) => {
                say(&backend::Message::NoData, out);
            }
            Message::Describe(Target::Statement(name)) if ends_by(name, mind) => {
                say(&backend::Message::ParameterDescription(List::empty()), out);
                say(&backend::Message::NoData, out);
            }
            Message::Execute { portal, .. } if self.has_portal(portal) => self.end(out),
            Message::Close(target) => {
                match target {
                    Target::Statement(name) => mind.forget(name.to_bytes()),
                    Target::Portal(name) => {
                        if self.portals.remove(name.to_bytes()) {
                            self.bytes -= ENTRY_BYTES + name.to_bytes().len();
                        }
                    }
                }
                say(&backend::Message::CloseComplete, out);
            }
            _ => return false,
        }
        true
    }

    fn has_portal(&self, name: &CStr) -> bool {
        self.portals.contains(name.to_bytes())
    }

    /// The client ends the transaction, whatever it wanted to become of it.
    fn end(&mut self, out: &mut Vec<u8>) {
        match self.first.take() {
            // It may have asked for a commit: it must hear that there was none.
            Some(first) => tell(&first, out),
            None => say(&backend::Message::CommandComplete(c"ROLLBACK"), out),
        }
        self.phase = Phase::Outside;
    }

    fn refuse(&mut self, out: &mut Vec<u8>) {
        let report = self.first.take();
        tell(&report.unwrap_or_else(errors::in_failed_transaction), out);
    }

    fn ready(&mut self, out: &mut Vec<u8>) -> Next {
        let refused = self.refused.take().unwrap_or_default();
        if self.phase == Phase::Outside && refused.leads_to(Phase::Outside) == Phase::Inside {
            self.phase = Phase::Failed;
        }
        let (status, next) = match self.phase {
            Phase::Failed => (TransactionStatus::Failed, Next::Stay),
            Phase::Outside | Phase::Inside => (TransactionStatus::Idle, Next::Leave),
        };
        say(&backend::Message::ReadyForQuery(status), out);
        next
    }
}

/// Whether it does anything to transactions, wherever it is said.
fn moves(acts: Acts) -> bool {
    let all = [Phase::Outside, Phase::Inside, Phase::Failed];
    all.iter().any(|phase| acts.leads_to(*phase) != *phase)
}

/// Whether it is one statement that ends a transaction, and begins no other.
fn ends(reading: &Reading) -> bool {
    reading.statements == 1 && reading.acts.leads_to(Phase::Failed) == Phase::Outside
}

/// The same of a statement that is prepared.
fn ends_by(name: &CStr, mind: &Mind) -> bool {
    let known = mind.lookup(name.to_bytes());
    known.is_some_and(|known| ends(&known.reading))
}

pub(super) fn say(message: &backend::Message<'_>, out: &mut Vec<u8>) {
    // None of these has a part that could be too long.
    let _ = message.encode(out);
}

pub(super) fn tell(report: &Report, out: &mut Vec<u8>) {
    // The texts are ours, and short.
    let _ = report.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{PoolMode, Route};
    use std::sync::Arc;
    use wire::frontend::Framer;
    use wire::{Limits, Stage, Step};

    /// The types of the answers, the codes of errors, and the status of each ReadyForQuery.
    fn answers(stand_in: &mut StandIn, messages: &[Message<'_>]) -> (String, Next) {
        let mode = PoolMode::Transaction;
        let mut mind = Mind::new(mode, Route::Write, Arc::default(), 10);
        let (mut out, mut next) = (Vec::new(), Next::Stay);
        for message in messages {
            let mut bytes = Vec::new();
            message.encode(&mut bytes).unwrap();
            let mut framer = Framer::new(Stage::Conversation, Limits::default());
            let Ok(Step::Message(frame)) = framer.next(&bytes) else {
                panic!("{message:?}");
            };
            next = stand_in.answer(&frame, &mut mind, &mut out);
        }
        let mut said = Vec::new();
        let mut framer = backend::Framer::new(Stage::Conversation, Limits::default());
        let mut rest = &out[..];
        while let Ok(Step::Message(frame)) = framer.next(rest) {
            rest = &rest[frame.bytes().len()..];
            said.push(match frame.message().unwrap() {
                backend::Message::ErrorResponse(fields) => fields.sqlstate().unwrap().to_string(),
                backend::Message::ReadyForQuery(status) => char::from(status as u8).to_string(),
                backend::Message::CommandComplete(tag) => tag.to_string_lossy().into_owned(),
                other => other.tag().name().to_owned(),
            });
        }
        (said.join(" "), next)
    }

    /// What becomes of one message.
    fn told(stand_in: &mut StandIn, message: &Message<'_>) -> Next {
        answers(stand_in, std::slice::from_ref(message)).1
    }

    #[test]
    fn a_lost_transaction_is_answered_as_a_failed_one() {
        let mut lost = StandIn::for_transaction(false, false);
        let query = |text| [Message::Query(text)];
        let say = |lost: &mut StandIn, text| answers(lost, &query(text));
        assert_eq!(say(&mut lost, c"select 1"), ("40001 E".into(), Next::Stay));
        assert_eq!(say(&mut lost, c"select 1"), ("25P02 E".into(), Next::Stay));
        assert_eq!(
            say(&mut lost, c"rollback to s"),
            ("25P02 E".into(), Next::Stay)
        );
        assert_eq!(
            say(&mut lost, c"rollback and chain"),
            ("25P02 E".into(), Next::Stay)
        );
        assert_eq!(
            say(&mut lost, c"commit; select 1"),
            ("25P02 E".into(), Next::Stay)
        );
        assert_eq!(
            say(&mut lost, c"commit"),
            ("ROLLBACK I".into(), Next::Leave)
        );
    }

    #[test]
    fn who_commits_hears_that_nothing_was_committed() {
        let mut lost = StandIn::for_transaction(false, false);
        let commit = answers(&mut lost, &[Message::Query(c"COMMIT")]);
        assert_eq!(commit, ("40001 I".into(), Next::Leave));
    }

    #[test]
    fn a_batch_is_skipped_to_its_end() {
        let parse = |query| {
            Message::Parse(wire::frontend::Parse {
                name: c"",
                query,
                types: List::empty(),
            })
        };
        let bind = Message::Bind(wire::frontend::Bind {
            portal: c"",
            statement: c"",
            formats: List::empty(),
            parameters: List::empty(),
            result_formats: List::empty(),
        });
        let execute = Message::Execute {
            portal: c"",
            rows_max: 0,
        };
        let mut lost = StandIn::for_transaction(false, false);
        let batch = [parse(c"select 1"), bind, execute, Message::Sync];
        assert_eq!(answers(&mut lost, &batch), ("40001 E".into(), Next::Stay));
        let rollback = [parse(c"ROLLBACK"), bind, execute, Message::Sync];
        let wanted = "ParseComplete BindComplete ROLLBACK I";
        assert_eq!(answers(&mut lost, &rollback), (wanted.into(), Next::Leave));
        let mut refused = StandIn::for_request(errors::held_too_long("why"));
        let begin = [parse(c"begin"), bind, execute, Message::Sync];
        assert_eq!(
            answers(&mut refused, &begin),
            ("57P03 E".into(), Next::Stay)
        );
        assert_eq!(
            answers(&mut refused, &[Message::Query(c"insert")]),
            ("25P02 E".into(), Next::Stay)
        );
        let mut refused = StandIn::for_request(errors::held_too_long("why"));
        let whole = [
            parse(c"begin"),
            bind,
            execute,
            parse(c"commit"),
            bind,
            execute,
        ];
        let whole = [&whole[..], &[Message::Sync]].concat();
        assert_eq!(
            answers(&mut refused, &whole),
            ("57P03 I".into(), Next::Leave)
        );
        // Behind a statement that has failed, a beginning is skipped like everything else.
        let behind = [
            parse(c"select 1"),
            bind,
            execute,
            parse(c"begin"),
            bind,
            execute,
            Message::Sync,
        ];
        let mut refused = StandIn::for_request(errors::held_too_long("why"));
        assert_eq!(
            answers(&mut refused, &behind),
            ("57P03 I".into(), Next::Leave)
        );
        let mut rest = StandIn::for_rest_of_batch(true);
        assert_eq!(answers(&mut rest, &behind[3..]), ("I".into(), Next::Leave));
        // Unless nothing of the batch was sent but what prepares it.
        let mut rest = StandIn::for_rest_of_batch(false);
        assert_eq!(answers(&mut rest, &behind[3..]), ("E".into(), Next::Stay));
        let mut refused = StandIn::for_request(errors::held_too_long("why"));
        assert_eq!(
            answers(&mut refused, &[Message::Query(c"begin; select 1")]),
            ("57P03 E".into(), Next::Stay)
        );
        assert_eq!(
            answers(&mut refused, &[Message::Query(c"rollback")]),
            ("ROLLBACK I".into(), Next::Leave)
        );
        let mut refused = StandIn::for_request(errors::held_too_long("why"));
        let batch = [parse(c"select 1"), bind, execute, Message::Sync];
        assert_eq!(
            answers(&mut refused, &batch),
            ("57P03 I".into(), Next::Leave)
        );
    }
    #[test]
    fn of_names_it_remembers_what_it_needs_and_not_without_an_end() {
        let pad = "x".repeat(30_000);
        let parse = |stand_in: &mut StandIn, query: &CStr| {
            let mut last = (0, Next::Stay);
            for n in 0..200 {
                let name = std::ffi::CString::new(format!("{n}{pad}")).unwrap();
                let message = Message::Parse(wire::frontend::Parse {
                    name: &name,
                    query,
                    types: List::empty(),
                });
                last = (n, told(stand_in, &message));
                if last.1 != Next::Stay {
                    break;
                }
            }
            last
        };
        let refused = || StandIn::for_request(errors::held_too_long("why"));
        assert_eq!(parse(&mut refused(), c"select 1"), (199, Next::Stay));
        let (count, next) = parse(&mut refused(), c"begin");
        assert_eq!((count < 199, next), (true, Next::Full));
        // In a lost transaction, portals of what ends it.
        let mut lost = StandIn::for_transaction(true, false);
        let name = std::ffi::CString::new("x".repeat(9_000)).unwrap();
        let ends = Message::Parse(wire::frontend::Parse {
            name: c"",
            query: c"rollback",
            types: List::empty(),
        });
        let portal = |portal| {
            Message::Bind(wire::frontend::Bind {
                portal,
                statement: c"",
                formats: List::empty(),
                parameters: List::empty(),
                result_formats: List::empty(),
            })
        };
        let close = Message::Close(Target::Portal(&name));
        let both = [portal(&name), close];
        let mut many = vec![ends];
        many.extend(both.repeat(600));
        assert_eq!(answers(&mut lost, &many).1, Next::Stay);
        assert_eq!(lost.bytes, 0);
        let names: Vec<_> = (0..600)
            .map(|n| std::ffi::CString::new(format!("{n}{}", "x".repeat(9_000))).unwrap())
            .collect();
        let mut many = vec![ends];
        many.extend(names.iter().map(|name| portal(name)));
        assert_eq!(answers(&mut lost, &many).1, Next::Full);
    }
}
