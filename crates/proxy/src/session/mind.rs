//! What is known of one session: what it has asked, what it has prepared, what it has changed.
//!
//! **Invariant:** whatever goes to the server is told to the server's session and to the ledger
//! first, and whatever comes from it, before it is passed on.
//!
//! It does not know sockets or waiting.

use super::again::Again;
use super::ledger::{Expect, Ledger, Values};
use super::mending::Mending;
use super::portals::{Bound, Portals};
use super::statements::{BYTES_MAX, Statements};
use crate::journal::Journal;
use crate::options::{PoolMode, Route};
use crate::pool::Mirror;
use crate::prepared::{self, Prepared, Registry};
use crate::sql::{Deed, Pin, Pins, Reading, may_lift};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::Arc;
use wire::backend::{Fields, TransactionStatus};
use wire::frontend::{self, Bind, Message, Target};
use wire::{Malformed, Origin, Reply, Violation, backend};

/// A statement that does not exist is closed to get an answer that has no effect.
const NOTHING: &CStr = c"standfast_nothing";
/// In place of a DEALLOCATE of a statement that others use too; it takes nothing from anybody.
const KEEP: &CStr = c"DISCARD PLANS";

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
    /// Parameters that were reported since the server was last ready.
    reported: Vec<Box<[u8]>>,
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
            reported: Vec::new(),
        }
    }

    /// The session is with another server, or with none.
    pub(super) fn detached(&mut self) {
        self.stained = false;
        self.mending = Mending::default();
        self.unnamed_here = false;
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

    /// A message of the client's goes to the server.
    pub(super) fn request(
        &mut self,
        frame: &frontend::Frame<'_>,
        mirror: &mut Mirror,
    ) -> Result<Plan, Wrong> {
        use frontend::Tag;
        self.begun = None;
        self.again.note(frame);
        match frame.tag() {
            Tag::Query => {
                mirror.session.sent(frame, Origin::Client)?;
                return self.query(frame, mirror);
            }
            Tag::Parse => return self.parse(frame, mirror),
            Tag::Bind => return self.bind(frame, mirror),
            Tag::Describe | Tag::Close => return self.about(frame, mirror),
            Tag::Execute => {
                mirror.session.sent(frame, Origin::Client)?;
                if let [0, _, _, _, _] = frame.body() {
                    self.execute(c"", mirror);
                } else if let Message::Execute { portal, .. } = frame.message()? {
                    self.execute(portal, mirror);
                }
            }
            Tag::Sync => {
                mirror.session.sent(frame, Origin::Client)?;
                self.ledger.end(true);
            }
            Tag::FunctionCall => {
                mirror.session.sent(frame, Origin::Client)?;
                self.only_reads = false;
                let unread = Reading::too_long();
                self.opaque = true;
                self.ledger.ask().read(&unread, None);
                self.ledger.end(false);
            }
            Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Flush | Tag::Terminate => {
                mirror.session.sent(frame, Origin::Client)?;
            }
            Tag::Password => return Err(Violation::OutOfTurn { sent: "Password" }.into()),
        }
        Ok(Plan::default())
    }

    fn query(&mut self, frame: &frontend::Frame<'_>, mirror: &Mirror) -> Result<Plan, Wrong> {
        let reading = match frame.body().split_last() {
            Some((0, text)) if frame.is_whole() && !mirror.may_misread(text) => {
                Reading::of(text, mirror.has_standard_strings())
            }
            _ => Reading::too_long(),
        };
        self.only_reads = self.only_reads && frame.is_whole() && !may_lift(frame.body());
        self.unnamed = None;
        self.journal.pin(reading.pins);
        self.opaque |= reading.opaque;
        let mut plan = Plan::default();
        if self.deallocates_shared(&reading) {
            let mut instead = Vec::new();
            Message::Query(KEEP).encode(&mut instead)?;
            plan.instead = Some(instead);
        }
        self.mending.resets(&reading, mirror);
        let asked = self.ledger.ask();
        asked.read(&reading, None);
        if reading.only_begins() {
            asked.begin = frame.body().strip_suffix(b"\0").map(Into::into);
        }
        self.ledger.end(false);
        Ok(plan)
    }

    /// Whether it is a DEALLOCATE of a statement that the protocol has prepared, which has another
    /// name on the server and is not this client's alone.
    fn deallocates_shared(&self, reading: &Reading) -> bool {
        let [(0, Deed::Deallocate(name))] = &reading.deeds[..] else {
            return false;
        };
        reading.statements == 1
            && self.renames()
            && !self.journal.has_prepared_as(name)
            && self.lookup(name.as_bytes()).is_some()
    }

    fn execute(&mut self, portal: &CStr, mirror: &Mirror) {
        let bound = self.portals.get(portal.to_bytes());
        let asked = self.ledger.ask();
        match bound {
            Some(Bound {
                prepared: Some(prepared),
                values,
            }) => {
                asked.read(&prepared.reading, values.as_ref());
                self.journal.pin(prepared.reading.pins);
                self.opaque |= prepared.reading.opaque;
                self.mending.resets(&prepared.reading, mirror);
            }
            // One that SQL has declared, or of a statement too long to be kept.
            _ => {
                asked.read(&Reading::too_long(), None);
                self.opaque = true;
            }
        }
    }

    fn parse(&mut self, frame: &frontend::Frame<'_>, mirror: &mut Mirror) -> Result<Plan, Wrong> {
        self.only_reads = self.only_reads && frame.is_whole() && !may_lift(frame.body());
        if !frame.is_whole() || mirror.may_misread(frame.body()) {
            mirror.session.sent(frame, Origin::Client)?;
            if frame.body().first() == Some(&0) {
                self.unnamed = None;
            }
            self.journal.pin(Pins::default().with(Pin::TooLong));
            self.ledger.expect(Expect::Passed);
            return Ok(Plan::default());
        }
        let Message::Parse(parse) = frame.message()? else {
            return Ok(Plan::default());
        };
        let name = parse.name.to_bytes();
        if !name.is_empty() && self.statements.is_full() {
            return Err(Wrong::TooMuchPrepared);
        }
        let body = &frame.body()[name.len() + 1..];
        let standard = mirror.has_standard_strings();
        if name.is_empty() {
            mirror.session.sent(frame, Origin::Client)?;
            let known = self.unnamed.as_ref().filter(|known| known.is(body));
            let prepared = match known {
                Some(known) => Arc::clone(known),
                None => self.registry.alone(body, standard),
            };
            if self.deallocates_shared(&prepared.reading) {
                let asked = Arc::unwrap_or_clone(prepared);
                return self.parse_kept(asked, body);
            }
            self.prepare_unnamed(prepared);
            return Ok(Plan::default());
        }
        if !self.renames() {
            mirror.session.sent(frame, Origin::Client)?;
            let prepared = Arc::new(Prepared::alone(body, standard));
            let expect = Expect::Parsed(name.into(), prepared);
            self.ledger.expect(expect);
            return Ok(Plan::default());
        }
        if let Some(taken) = self.lookup(name) {
            // The server says that there is one already, and has one to say it of.
            let mut plan = self.supply(&taken, mirror)?;
            let mut again = Vec::new();
            taken.parse(taken.name().to_bytes(), &mut again);
            tell(mirror, &again, Origin::Client)?;
            self.ledger.expect(Expect::Passed);
            plan.instead = Some(again);
            return Ok(plan);
        }
        let prepared = self.registry.prepared(body, standard);
        let mut plan = Plan::default();
        let mut instead = Vec::new();
        if self.is_there(&prepared, mirror) {
            Message::Close(Target::Statement(NOTHING)).encode(&mut instead)?;
            let expect = Expect::ParsedBefore(name.into(), prepared);
            self.ledger.expect(expect);
        } else {
            self.evict(mirror, &mut plan.before)?;
            prepared.parse(prepared.name().to_bytes(), &mut instead);
            mirror.keep(&prepared);
            let expect = Expect::Parsed(name.into(), prepared);
            self.ledger.expect(expect);
        }
        tell(mirror, &instead, Origin::Client)?;
        plan.instead = Some(instead);
        Ok(plan)
    }

    /// The same as in [`Self::query`], by the protocol and without a name.
    fn parse_kept(&mut self, asked: Prepared, body: &[u8]) -> Result<Plan, Wrong> {
        let (_, types) = text(body)?;
        let kept = asked.with_text(KEEP, types);
        let mut instead = Vec::new();
        kept.parse(b"", &mut instead);
        self.prepare_unnamed(Arc::new(kept));
        Ok(Plan {
            instead: Some(instead),
            ..Plan::default()
        })
    }

    fn prepare_unnamed(&mut self, prepared: Arc<Prepared>) {
        let before = self.unnamed.replace(prepared);
        let was_here = std::mem::replace(&mut self.unnamed_here, true);
        self.ledger.expect(Expect::Unnamed { before, was_here });
    }

    fn bind(&mut self, frame: &frontend::Frame<'_>, mirror: &mut Mirror) -> Result<Plan, Wrong> {
        let (portal, rest) = text(frame.body())?;
        let (name, behind) = text(rest)?;
        let prepared = self.lookup(name.to_bytes());
        let plan = match &prepared {
            Some(prepared) if name.is_empty() => self.supply_unnamed(prepared, mirror)?,
            Some(prepared) if self.renames() => {
                let mut plan = self.supply(prepared, mirror)?;
                plan.instead = Some(renamed(frame, portal, prepared.name(), behind)?);
                plan
            }
            None if self.is_of_others(name) => Plan {
                instead: Some(renamed(frame, portal, NOTHING, behind)?),
                ..Plan::default()
            },
            _ => Plan::default(),
        };
        mirror.session.sent(frame, Origin::Client)?;
        self.ledger.ask();
        let values = prepared
            .as_ref()
            .filter(|prepared| wants_values(&prepared.reading))
            .and_then(|_| match frame.message() {
                Ok(Message::Bind(bind)) => Some(values(&bind)),
                _ => None,
            });
        let bound = Bound { prepared, values };
        self.portals.insert(portal.to_bytes(), bound);
        Ok(plan)
    }

    /// Describe or Close.
    fn about(&mut self, frame: &frontend::Frame<'_>, mirror: &mut Mirror) -> Result<Plan, Wrong> {
        let message = frame.message()?;
        let mut plan = Plan::default();
        match message {
            Message::Describe(Target::Statement(name)) => {
                match self.lookup(name.to_bytes()) {
                    Some(prepared) if name.is_empty() => {
                        plan = self.supply_unnamed(&prepared, mirror)?;
                    }
                    Some(prepared) if self.renames() => {
                        plan = self.supply(&prepared, mirror)?;
                        let mut instead = Vec::new();
                        let named = Target::Statement(prepared.name());
                        Message::Describe(named).encode(&mut instead)?;
                        plan.instead = Some(instead);
                    }
                    None if self.is_of_others(name) => {
                        let mut instead = Vec::new();
                        Message::Describe(Target::Statement(NOTHING)).encode(&mut instead)?;
                        plan.instead = Some(instead);
                    }
                    _ => {}
                }
                self.ledger.ask();
            }
            Message::Close(Target::Statement(name)) => {
                let known = self.lookup(name.to_bytes()).is_some();
                let is_shared = known && self.renames() && !name.is_empty();
                if is_shared || !known && self.is_of_others(name) {
                    // Others use it too.
                    let mut instead = Vec::new();
                    Message::Close(Target::Statement(NOTHING)).encode(&mut instead)?;
                    plan.instead = Some(instead);
                }
                if name.is_empty() {
                    self.unnamed = None;
                }
                let closed = Expect::Closed(name.to_bytes().into());
                self.ledger.expect(closed);
            }
            Message::Close(Target::Portal(name)) => {
                self.portals.remove(name.to_bytes());
                self.ledger.expect(Expect::Passed);
            }
            _ => drop(self.ledger.ask()),
        }
        mirror.session.sent(frame, Origin::Client)?;
        Ok(plan)
    }

    /// Whether what the server has under the name is not this client's, which has nothing under it.
    fn is_of_others(&self, name: &CStr) -> bool {
        let name = name.to_bytes();
        self.renames()
            && (name.is_empty() || prepared::id(name).is_some())
            && !self.journal.pins().has(Pin::TooLong)
    }

    /// Whether a statement of this name can be prepared where there is no server to say so.
    pub(super) fn has_place_for(&self, name: &[u8]) -> bool {
        name.is_empty() || (self.lookup(name).is_none() && !self.statements.is_full())
    }

    /// The client was told that it has a statement, without a server, which is given it when it is needed.
    pub(super) fn learn(&mut self, name: &[u8], body: &[u8]) {
        let prepared = match self.renames() && !name.is_empty() {
            true => self.registry.prepared(body, true),
            false => self.registry.alone(body, true),
        };
        match name.is_empty() {
            true => self.unnamed = Some(prepared),
            false => self.statements.insert(name.into(), prepared),
        }
    }

    /// The same of a statement that is gone.
    pub(super) fn forget(&mut self, name: &[u8]) {
        match name.is_empty() {
            true => self.unnamed = None,
            false => self.statements.remove(name),
        }
    }

    /// What a name stands for.
    pub(super) fn lookup(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        if name.is_empty() {
            return self.unnamed.clone();
        }
        match self.ledger.named(name) {
            Some(told) => told,
            None => self.statements.get(name).cloned(),
        }
    }

    /// Whether the server has it, which counts as a use.
    fn is_there(&self, prepared: &Prepared, mirror: &mut Mirror) -> bool {
        mirror.clock += 1;
        let clock = mirror.clock;
        let known = mirror.known.get_mut(&prepared.id);
        known.map(|kept| kept.used = clock).is_some()
    }

    /// Sees to it that the server has a statement under our name for it.
    fn supply(&mut self, prepared: &Arc<Prepared>, mirror: &mut Mirror) -> Result<Plan, Wrong> {
        let mut plan = Plan::default();
        if !self.is_there(prepared, mirror) {
            self.evict(mirror, &mut plan.before)?;
            let from = plan.before.len();
            prepared.parse(prepared.name().to_bytes(), &mut plan.before);
            tell(mirror, &plan.before[from..], Origin::Proxy)?;
            mirror.keep(prepared);
            let expect = Expect::Supplied(prepared.id);
            self.ledger.expect(expect);
        }
        Ok(plan)
    }

    fn supply_unnamed(&mut self, prepared: &Prepared, mirror: &mut Mirror) -> Result<Plan, Wrong> {
        let mut plan = Plan::default();
        if !self.unnamed_here || self.ledger.expects_unnamed_before() {
            prepared.parse(b"", &mut plan.before);
            tell(mirror, &plan.before, Origin::Proxy)?;
            self.unnamed_here = true;
            self.ledger.expect(Expect::Supplied(0));
        }
        Ok(plan)
    }

    fn evict(&mut self, mirror: &mut Mirror, before: &mut Vec<u8>) -> Result<(), Wrong> {
        if mirror.known.len() < self.prepared_max {
            return Ok(());
        }
        let oldest = mirror.known.iter().min_by_key(|(_, kept)| kept.used);
        let Some((&id, _)) = oldest else {
            return Ok(());
        };
        let Some(kept) = mirror.known.remove(&id) else {
            return Ok(());
        };
        let name = prepared::name(id);
        let from = before.len();
        Message::Close(Target::Statement(&name)).encode(before)?;
        tell(mirror, &before[from..], Origin::Proxy)?;
        self.ledger.expect(Expect::Evicted(kept));
        Ok(())
    }

    /// A message of the server's, which its session has been told of.
    pub(super) fn reply(
        &mut self,
        frame: &backend::Frame<'_>,
        reply: Reply,
        mirror: &mut Mirror,
    ) -> Fate {
        use backend::Tag;
        let (tag, body) = (frame.tag(), frame.body());
        self.again.spoil();
        match tag {
            Tag::ParseComplete | Tag::CloseComplete => return self.met(mirror),
            Tag::CommandComplete => return self.completed(body, mirror),
            Tag::PortalSuspended => {
                // It may go on, and then it is counted as another one.
                let _ = self.ledger.current().completed().count();
            }
            Tag::ErrorResponse => {
                let unmet = self.ledger.current().fail();
                let asked = reply.request.map(|(kind, _)| kind);
                self.refused(asked, Fields::beginning(body), unmet, mirror);
            }
            Tag::ParameterStatus => {
                let message = backend::Message::parse(tag, body);
                if let Ok(backend::Message::ParameterStatus { name, value }) = message {
                    mirror.report(name.to_bytes(), value.to_bytes());
                    self.reported.push(name.to_bytes().into());
                    if self.withholds(name.to_bytes(), mirror) {
                        return Fate::Drop;
                    }
                }
            }
            Tag::ReadyForQuery if reply.completes => {
                let mut unmet = VecDeque::new();
                let answered = self.ledger.answered(&mut unmet);
                let failed = answered.as_ref().is_some_and(|asked| asked.failed);
                let owed = mirror.session.readies_owed();
                self.ledger.owed(owed, &mut unmet);
                if !unmet.is_empty() {
                    // Sent behind an error, and thrown away.
                    self.unmet(unmet, mirror);
                }
                self.ready(failed, mirror);
                if self.ledger.is_empty() {
                    self.again.clear();
                }
                if self.ledger.is_empty()
                    && mirror.session.transaction_status() == TransactionStatus::InTransaction
                {
                    self.begun = answered.and_then(|asked| asked.begin);
                }
                let mut news = Vec::new();
                self.told(mirror, &mut news);
                if !news.is_empty() {
                    news.extend_from_slice(frame.bytes());
                    return Fate::Instead(news);
                }
            }
            _ => {}
        }
        Fate::Forward
    }

    fn met(&mut self, mirror: &mut Mirror) -> Fate {
        match self.ledger.current().met() {
            Some(Expect::Parsed(name, prepared)) => {
                self.statements.insert(name, prepared);
                Fate::Forward
            }
            Some(Expect::ParsedBefore(name, prepared)) => {
                self.statements.insert(name, prepared);
                Fate::Instead(b"1\0\0\0\x04".to_vec())
            }
            Some(Expect::Supplied(_) | Expect::Evicted(_)) => Fate::Drop,
            Some(Expect::Closed(name)) => {
                self.statements.remove(&name);
                Fate::Forward
            }
            Some(Expect::Unnamed { .. } | Expect::Passed) => Fate::Forward,
            None => {
                mirror.is_mixed_up = true;
                Fate::Forward
            }
        }
    }

    fn completed(&mut self, body: &[u8], mirror: &mut Mirror) -> Fate {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.statements.clear();
            mirror.known.clear();
            mirror.is_mixed_up = self.ledger.expects_shared();
        }
        if matches!(tag, b"COMMIT" | b"PREPARE TRANSACTION") {
            self.ledger.current().has_committed();
        }
        let mut told = false;
        let mut fate = Fate::Forward;
        for (deed, values) in self.ledger.current().completed() {
            let values = values.unwrap_or_else(|| Arc::from([]));
            self.journal.done(&deed, &values);
            told |= matches!(deed, Deed::RollbackTo(_));
            if let Deed::Deallocate(name) = &deed {
                self.statements.remove(name.as_bytes());
                if let Some(id) = prepared::id(name.as_bytes()) {
                    mirror.known.remove(&id);
                }
                if tag == KEEP.to_bytes() {
                    fate = Fate::Instead(b"C\0\0\0\x0fDEALLOCATE\0".to_vec());
                }
            }
        }
        if !told {
            self.journal.tag(tag);
        }
        fate
    }

    fn ready(&mut self, failed: bool, mirror: &Mirror) {
        let status = mirror.session.transaction_status();
        self.journal.ready(status, failed);
        if status != TransactionStatus::Idle {
            return;
        }
        // None outlives its transaction; those that a pipeline has bound behind it are to be.
        if self.ledger.is_empty() {
            self.portals.clear();
        }
        if self.reported.is_empty() {
            return;
        }
        for name in std::mem::take(&mut self.reported) {
            let value = mirror.parameters.get(&name);
            let (Some(value), Ok(text)) = (value, std::str::from_utf8(&name)) else {
                continue;
            };
            if self.takes_for_reset(&name, mirror) {
                continue;
            }
            let own = mirror.own.get(&name) == Some(value);
            if text == "session_authorization" && !own {
                self.journal.pin(Pins::default().with(Pin::Authorization));
            }
            if is_setting(text) {
                self.journal.reported(text, value, own);
            }
        }
    }
}

/// Reported parameters that a session may set.
fn is_setting(name: &str) -> bool {
    !matches!(
        name,
        "in_hot_standby"
            | "integer_datetimes"
            | "is_superuser"
            | "server_encoding"
            | "server_version"
            | "session_authorization"
    )
}

fn wants_values(reading: &Reading) -> bool {
    let config = |(_, deed): &(u32, Deed)| matches!(deed, Deed::Config(_));
    reading.deeds.iter().any(config)
}

fn values(bind: &Bind<'_>) -> Values {
    let all = bind.parameters.iter();
    all.map(|value| value.map(Into::into)).collect()
}

/// A Bind of another statement. `behind`: what follows the statement's name.
fn renamed(
    frame: &frontend::Frame<'_>,
    portal: &CStr,
    name: &CStr,
    behind: &[u8],
) -> Result<Vec<u8>, Wrong> {
    let portal = portal.to_bytes_with_nul();
    let old = frame.body().len() - portal.len() - behind.len();
    let new = name.to_bytes_with_nul();
    let length = frame.body_len() + 4 + new.len() - old;
    let length = u32::try_from(length).map_err(|_| wire::Unwritable::TooLong(length))?;
    let mut bytes = Vec::with_capacity(frame.bytes().len() + 16);
    bytes.push(b'B');
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(portal);
    bytes.extend_from_slice(new);
    bytes.extend_from_slice(behind);
    Ok(bytes)
}

fn text(bytes: &[u8]) -> Result<(&CStr, &[u8]), Malformed> {
    let text = CStr::from_bytes_until_nul(bytes).map_err(|_| Malformed {
        message: "Bind",
        flaw: wire::Flaw::EndsEarly,
    })?;
    Ok((text, &bytes[text.to_bytes_with_nul().len()..]))
}

/// Tells the server's session of one whole message that is not as the client sent it.
fn tell(mirror: &mut Mirror, bytes: &[u8], origin: Origin) -> Result<(), Wrong> {
    let whole = wire::Limits {
        held_bytes_max: usize::MAX / 2,
        ..wire::Limits::default()
    };
    let mut framer = frontend::Framer::new(wire::Stage::Conversation, whole);
    if let Ok(wire::Step::Message(frame)) = framer.next(bytes) {
        mirror.session.sent(&frame, origin)?;
    }
    Ok(())
}
