//! The prepared statements and portals that the protocol made.
//!
//! **Invariant:** all of it together stays within a number of bytes; what did not fit is said to be
//! forgotten, never silently missing.

use super::request::Name;
use std::collections::{BTreeMap, BTreeSet};

/// What a name costs beside its bytes, in a map, roughly.
pub(super) const ENTRY_BYTES: usize = 64;

/// A portal of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portal<'a> {
    /// Empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement that it was made of, which may be gone.
    pub statement: &'a [u8],
}

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    statements: BTreeSet<Name>,
    portals: BTreeMap<Name, Name>,
    /// The unnamed ones come and go with every query: apart from the maps they cost nothing.
    unnamed_statement: bool,
    unnamed_portal: Option<Name>,
    /// What the maps hold.
    statement_bytes: usize,
    portal_bytes: usize,
    statement_forgotten: bool,
    portal_forgotten: bool,
}

impl Names {
    pub(super) fn prepare(&mut self, name: Name, bytes_max: usize) {
        if name.is_empty() {
            self.unnamed_statement = true;
            return;
        }
        self.drop_statement(&name);
        let bytes = statement_bytes(&name);
        if self.statement_bytes + self.portal_bytes + bytes > bytes_max {
            self.statement_forgotten = true;
            return;
        }
        self.statement_bytes += bytes;
        self.statements.insert(name);
    }

    pub(super) fn drop_statement(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed_statement = false;
        } else if self.statements.remove(name) {
            self.statement_bytes -= statement_bytes(name);
        }
    }

    /// All but the unnamed one, which only its own messages replace.
    pub(super) fn drop_named_statements(&mut self) {
        self.statements.clear();
        self.statement_bytes = 0;
        self.statement_forgotten = false;
    }

    pub(super) fn bind(&mut self, portal: Name, statement: Name, bytes_max: usize) {
        if portal.is_empty() {
            self.unnamed_portal = Some(statement);
            return;
        }
        self.drop_portal(&portal);
        let bytes = portal_bytes(&portal, &statement);
        if self.statement_bytes + self.portal_bytes + bytes > bytes_max {
            self.portal_forgotten = true;
            return;
        }
        self.portal_bytes += bytes;
        self.portals.insert(portal, statement);
    }

    pub(super) fn drop_portal(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed_portal = None;
        } else if let Some(statement) = self.portals.remove(name) {
            self.portal_bytes -= portal_bytes(name, &statement);
        }
    }

    pub(super) fn drop_portals(&mut self) {
        self.unnamed_portal = None;
        self.portal_forgotten = false;
        if !self.portals.is_empty() {
            self.portals.clear();
            self.portal_bytes = 0;
        }
    }

    pub(super) fn statements(&self) -> impl Iterator<Item = &[u8]> {
        let unnamed = self.unnamed_statement.then_some(&[][..]);
        let named = self.statements.iter().map(AsRef::as_ref);
        unnamed.into_iter().chain(named)
    }

    pub(super) fn portals(&self) -> impl Iterator<Item = Portal<'_>> {
        let unnamed = self.unnamed_portal.as_deref().map(|statement| Portal {
            name: &[],
            statement,
        });
        let named = self
            .portals
            .iter()
            .map(|(name, statement)| Portal { name, statement });
        unnamed.into_iter().chain(named)
    }

    pub(super) fn has_forgotten(&self) -> bool {
        self.statement_forgotten || self.portal_forgotten
    }
}

fn statement_bytes(name: &[u8]) -> usize {
    ENTRY_BYTES + name.len()
}

fn portal_bytes(name: &[u8], statement: &[u8]) -> usize {
    ENTRY_BYTES + name.len() + statement.len()
}
