//! What goes to the server for a message of the client.

use super::super::ledger::{Expect, Values};
use super::super::portals::Bound;
use super::supply::tell;
use super::{KEEP, Mind, NOTHING, Plan, Wrong};
use crate::pool::Mirror;
use crate::prepared::Prepared;
use crate::sql::{Deed, Pin, Pins, Reading, may_lift, replaced};
use std::ffi::{CStr, CString};
use std::sync::Arc;
use wire::backend::TransactionStatus;
use wire::frontend::{self, Bind, Message, Target};
use wire::{Malformed, Origin, Violation};

impl Mind {
    /// A message of the client's goes to the server.
    pub(in crate::session) fn request(
        &mut self,
        frame: &frontend::Frame<'_>,
        mirror: &mut Mirror,
    ) -> Result<Plan, Wrong> {
        use frontend::Tag;
        if mirror.session.is_skipping() && frame.tag() != Tag::Sync {
            return self.throw_away(frame, mirror);
        }
        self.begun = None;
        self.has_flushed = false;
        if self.ledger.is_empty() {
            self.since = mirror.clock;
        }
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
                self.ledger.read(&unread, None);
                self.ledger.end(false);
            }
            Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Flush | Tag::Terminate => {
                mirror.session.sent(frame, Origin::Client)?;
            }
            Tag::Password => return Err(Violation::OutOfTurn { sent: "Password" }.into()),
        }
        Ok(Plan::default())
    }

    /// The server throws it away, as it came, so nothing is planned or remembered for it: there is no end to what a client
    /// may send without a Sync. If the server does not, the session loses it over its answer, and may have run anything.
    fn throw_away(
        &mut self,
        frame: &frontend::Frame<'_>,
        mirror: &mut Mirror,
    ) -> Result<Plan, Wrong> {
        use frontend::Tag;
        let is_certain = mirror.session.skips_certainly();
        mirror.session.sent(frame, Origin::Client)?;
        let runs = matches!(frame.tag(), Tag::Query | Tag::Execute | Tag::FunctionCall);
        if runs && !is_certain {
            let asked = self.ledger.ask();
            asked.acts = asked.acts.and(Reading::too_long().acts);
        }
        Ok(Plan::default())
    }

    fn query(&mut self, frame: &frontend::Frame<'_>, mirror: &Mirror) -> Result<Plan, Wrong> {
        let reading = match frame.body().split_last() {
            Some((0, text)) if frame.is_whole() && !mirror.may_misread(text) => {
                Reading::of(text, mirror.has_standard_strings())
            }
            _ if !frame.is_whole() && !mirror.may_misread(frame.body()) => {
                Reading::beginning(frame.body(), mirror.has_standard_strings())
            }
            _ => Reading::too_long(),
        };
        self.only_reads = self.only_reads && frame.is_whole() && !may_lift(frame.body());
        let (before, was_here) = (self.unnamed.take(), self.unnamed_here);
        if !self.ledger.is_whole() {
            self.ledger.expect(Expect::Taken { before, was_here });
        }
        self.journal.pin(reading.pins);
        self.opaque |= reading.opaque;
        let mut plan = Plan::default();
        if self.deallocates_shared(&reading) {
            let text = frame.body().strip_suffix(b"\0").unwrap_or_default();
            let standard = mirror.has_standard_strings();
            let text = replaced(text, standard, KEEP.to_bytes(), |name| self.is_shared(name));
            let mut instead = Vec::new();
            let text = CString::new(text).unwrap_or_default();
            Message::Query(&text).encode(&mut instead)?;
            plan.instead = Some(instead);
        }
        self.mending.resets(&reading, mirror);
        let (weather, registry) = (&mut self.weather, &self.registry);
        match frame.is_whole() {
            true => weather.changes(registry, &reading, frame.body(), None),
            false => weather.is_unread(registry),
        }
        // A BEGIN within a transaction begins nothing.
        let is_outside = self.ledger.is_empty()
            && mirror.session.transaction_status() == TransactionStatus::Idle;
        let asked = self.ledger.read(&reading, None);
        if is_outside && reading.only_begins() {
            asked.begin = frame.body().strip_suffix(b"\0").map(Into::into);
        }
        self.ledger.end(false);
        Ok(plan)
    }

    /// Whether there is a DEALLOCATE in it of a statement that the protocol has prepared, which has another name on the
    /// server and is not this client's alone.
    fn deallocates_shared(&self, reading: &Reading) -> bool {
        let mut deeds = reading.deeds.iter();
        self.renames()
            && deeds.any(|(_, deed)| match &**deed {
                Deed::Deallocate(name) => self.is_shared(name),
                _ => false,
            })
    }

    fn is_shared(&self, name: &str) -> bool {
        !self.journal.has_prepared_as(name) && self.lookup(name.as_bytes()).is_some()
    }

    fn execute(&mut self, portal: &CStr, mirror: &Mirror) {
        let bound = self.portals.get(portal.to_bytes());
        match bound {
            Some(Bound {
                prepared: Some(prepared),
                values,
            }) => {
                self.ledger.read(&prepared.reading, values.as_ref());
                let (text, values) = (prepared.body(), values.as_deref());
                self.weather
                    .changes(&self.registry, &prepared.reading, text, values);
                self.journal.pin(prepared.reading.pins);
                self.opaque |= prepared.reading.opaque;
                self.mending.resets(&prepared.reading, mirror);
            }
            // One that SQL has declared, or of a statement too long to be kept.
            _ => {
                self.ledger.read(&Reading::too_long(), None);
                self.weather.is_unread(&self.registry);
                self.opaque = true;
            }
        }
    }

    fn parse(&mut self, frame: &frontend::Frame<'_>, mirror: &mut Mirror) -> Result<Plan, Wrong> {
        self.only_reads = self.only_reads && frame.is_whole() && !may_lift(frame.body());
        if !frame.is_whole() || mirror.may_misread(frame.body()) {
            if let Ok((name, behind)) = text(frame.body())
                && self.renames()
                && !name.is_empty()
                && let Some(taken) = self.lookup(name.to_bytes())
            {
                // As below.
                let mut plan = self.supply(&taken, mirror)?;
                plan.instead = Some(renamed(frame, None, taken.name(), behind)?);
                mirror.session.sent(frame, Origin::Client)?;
                self.ledger.expect(Expect::Passed);
                return Ok(plan);
            }
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
            if prepared.reading.statements == 1 && self.deallocates_shared(&prepared.reading) {
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
            let taken = self.fitting(taken, mirror);
            let mut plan = self.supply(&taken, mirror)?;
            let mut again = Vec::new();
            taken.parse(taken.name().to_bytes(), &mut again);
            tell(mirror, &again, Origin::Client)?;
            self.ledger.expect(Expect::Passed);
            plan.instead = Some(again);
            return Ok(plan);
        }
        let climate = self.climate();
        let prepared = self.registry.prepared(body, standard, climate);
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
        let mut prepared = self.lookup(name.to_bytes());
        if self.renames() && !name.is_empty() {
            prepared = prepared.map(|prepared| self.fitting(prepared, mirror));
        }
        let plan = match &prepared {
            Some(prepared) if name.is_empty() => self.supply_unnamed(prepared, mirror)?,
            Some(prepared) if self.renames() => {
                let mut plan = self.supply(prepared, mirror)?;
                plan.instead = Some(renamed(frame, Some(portal), prepared.name(), behind)?);
                plan
            }
            None if self.is_of_others(name) => Plan {
                instead: Some(renamed(frame, Some(portal), NOTHING, behind)?),
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
                        let prepared = self.fitting(prepared, mirror);
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
}

fn wants_values(reading: &Reading) -> bool {
    let mut deeds = reading.deeds.iter();
    reading.changes_climate || deeds.any(|(_, deed)| matches!(**deed, Deed::Config(_)))
}

fn values(bind: &Bind<'_>) -> Arc<Values> {
    let all = bind.parameters.iter();
    Values::new(all.map(|value| value.map(Into::into)).collect())
}

/// A Bind or a Parse of another statement. `portal`: what stands before the statement's name, for a Bind; `behind`: what
/// follows it.
fn renamed(
    frame: &frontend::Frame<'_>,
    portal: Option<&CStr>,
    name: &CStr,
    behind: &[u8],
) -> Result<Vec<u8>, Wrong> {
    let portal = portal.map_or(&[][..], CStr::to_bytes_with_nul);
    let old = frame.body().len() - portal.len() - behind.len();
    let new = name.to_bytes_with_nul();
    let length = frame.body_len() + 4 + new.len() - old;
    let length = u32::try_from(length).map_err(|_| wire::Unwritable::TooLong(length))?;
    let mut bytes = Vec::with_capacity(frame.bytes().len() + 16);
    bytes.extend_from_slice(&frame.bytes()[..1]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(portal);
    bytes.extend_from_slice(new);
    bytes.extend_from_slice(behind);
    Ok(bytes)
}

pub(super) fn text(bytes: &[u8]) -> Result<(&CStr, &[u8]), Malformed> {
    let text = CStr::from_bytes_until_nul(bytes).map_err(|_| Malformed {
        message: "Bind",
        flaw: wire::Flaw::EndsEarly,
    })?;
    Ok((text, &bytes[text.to_bytes_with_nul().len()..]))
}
