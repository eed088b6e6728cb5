//! The statements that a session has, whichever server has them.

use super::super::ledger::Expect;
use super::{Mind, Plan, Wrong};
use crate::pool::Mirror;
use crate::prepared::{self, Prepared};
use crate::sql::Pin;
use std::ffi::CStr;
use std::sync::Arc;
use wire::Origin;
use wire::frontend::{self, Message, Target};

impl Mind {
    /// Whether what the server has under the name is not this client's, which has nothing under it.
    pub(super) fn is_of_others(&self, name: &CStr) -> bool {
        let name = name.to_bytes();
        self.renames()
            && (name.is_empty() || prepared::id(name).is_some())
            && !self.journal.pins().has(Pin::TooLong)
    }

    /// Whether a statement of this name can be prepared where there is no server to say so.
    pub(in crate::session) fn has_place_for(&self, name: &[u8]) -> bool {
        name.is_empty() || (self.lookup(name).is_none() && !self.statements.is_full())
    }

    /// The client was told that it has a statement, without a server, which is given it when it is needed.
    pub(in crate::session) fn learn(&mut self, name: &[u8], body: &[u8]) {
        let prepared = match self.renames() && !name.is_empty() {
            true => {
                let climate = self.climate();
                self.registry.prepared(body, true, climate)
            }
            false => self.registry.alone(body, true),
        };
        match name.is_empty() {
            true => self.unnamed = Some(prepared),
            false => self.statements.insert(name.into(), prepared),
        }
    }

    /// The same of a statement that is gone.
    pub(in crate::session) fn forget(&mut self, name: &[u8]) {
        match name.is_empty() {
            true => self.unnamed = None,
            false => self.statements.remove(name),
        }
    }

    /// What a name stands for.
    pub(in crate::session) fn lookup(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        if name.is_empty() {
            return self.unnamed.clone();
        }
        match self.ledger.named(name) {
            Some(told) => told,
            None => self.statements.get(name).cloned(),
        }
    }

    /// Whether the server has it, which counts as a use.
    pub(super) fn is_there(&self, prepared: &Prepared, mirror: &mut Mirror) -> bool {
        mirror.clock += 1;
        let clock = mirror.clock;
        let known = mirror.known.get_mut(&prepared.id);
        known.map(|kept| kept.used = clock).is_some()
    }

    /// Sees to it that the server has a statement under our name for it.
    pub(super) fn supply(
        &mut self,
        prepared: &Arc<Prepared>,
        mirror: &mut Mirror,
    ) -> Result<Plan, Wrong> {
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

    pub(super) fn supply_unnamed(
        &mut self,
        prepared: &Prepared,
        mirror: &mut Mirror,
    ) -> Result<Plan, Wrong> {
        let mut plan = Plan::default();
        if !self.unnamed_here {
            prepared.parse(b"", &mut plan.before);
            tell(mirror, &plan.before, Origin::Proxy)?;
            self.unnamed_here = true;
            self.ledger.expect(Expect::Supplied(0));
        }
        Ok(plan)
    }

    pub(super) fn evict(&mut self, mirror: &mut Mirror, before: &mut Vec<u8>) -> Result<(), Wrong> {
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
}

/// Tells the server's session of one whole message that is not as the client sent it.
pub(super) fn tell(mirror: &mut Mirror, bytes: &[u8], origin: Origin) -> Result<(), Wrong> {
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
