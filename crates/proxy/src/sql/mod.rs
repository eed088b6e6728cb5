//! As much of SQL as a proxy must understand: where statements begin and end, which of them begin
//! and end transactions, and which change what belongs to a session.
//!
//! **Invariant:** what is not understood is never taken for harmless: it counts as work that may
//! commit, and, where it might change the session, as a reason to keep the session where it is.
//!
//! It does not know what became of a statement, or what functions do that a statement calls: it says only
//! which statements may call some.

mod acts;
mod calls;
mod climate;
mod deallocate;
mod deed;
mod plain;
mod read_only;
mod recent;
mod reset;
mod set;
mod token;

pub(crate) use acts::{Act, Acts, Phase, Phases};
pub(crate) use climate::CLIMATE;
pub(crate) use deallocate::replaced;
pub(crate) use deed::{Argument, ConfigCall, Deed, Pin, Pins};
pub(crate) use read_only::may_lift;
pub(crate) use reset::Reset;

use std::ffi::CStr;
use std::sync::Arc;
use token::{Kind, Token, Tokens};

/// What a text of SQL does to transactions and to the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Statements that will be answered by a tag of their own.
    pub(crate) statements: u32,
    pub(crate) acts: Acts,
    /// Each with the number of its statement, counted from 0.
    pub(crate) deeds: Vec<(u32, Arc<Deed>)>,
    /// What the session may hold afterwards that belongs to one server.
    pub(crate) pins: Pins,
    /// It may do more to the session than is seen here.
    pub(crate) opaque: bool,
    /// It was not read to its end: there is more to it if a tag says so.
    pub(crate) is_by_tags: bool,
    /// What its statements reset.
    pub(crate) resets: Option<Reset>,
    /// What is prepared behind it may be understood otherwise than before it.
    pub(crate) changes_climate: bool,
    /// A constant in it may stand for the moment at which it is prepared.
    pub(crate) is_of_moment: bool,
}

impl Reading {
    /// A text of which only the beginning is here, or which can't be told from another one.
    pub(crate) fn too_long() -> Self {
        Self {
            statements: 1,
            acts: Acts::default().then(Act::Commit).then(Act::Work),
            deeds: Vec::new(),
            pins: Pins::default().with(Pin::TooLong),
            opaque: true,
            changes_climate: true,
            ..Self::default()
        }
    }

    /// One of which this is the beginning. What its statements have done to the session their tags say, see
    /// [`shows_all`], unless the beginning says more.
    pub(crate) fn beginning(text: &[u8], standard: bool) -> Self {
        let seen = Self::of(text, standard);
        let mut unread = Self::too_long();
        // Its last string has no end here.
        if seen.deeds.is_empty() && seen.pins.all_but(Pin::NotUnderstood).is_empty() {
            unread.pins = Pins::default();
            unread.is_by_tags = true;
        }
        unread
    }

    /// Whether all it does is to begin a transaction, where there was none.
    pub(crate) fn only_begins(&self) -> bool {
        self.statements == 1
            && self.acts == Acts::default().then(Act::Begin)
            && self.deeds.is_empty()
            && self.pins.is_empty()
            && !self.opaque
    }

    /// `standard`: whether backslashes in plain strings are plain.
    pub(crate) fn of(text: &[u8], standard: bool) -> Self {
        match recent::read(text) {
            Some(acts) => Self::plain(acts),
            None => Self::of_tokens(text, standard),
        }
    }

    /// Of one statement, which does nothing but this.
    fn plain(acts: Acts) -> Self {
        Self {
            statements: 1,
            acts,
            ..Self::default()
        }
    }

    fn of_tokens(text: &[u8], standard: bool) -> Self {
        let mut reading = Self::default();
        let mut tokens = Tokens::new(text, standard);
        let mut statement = Vec::with_capacity(32);
        let mut depth = 0_usize;
        let mut is_plain = true;
        loop {
            let token = tokens.next();
            match token {
                Some(token) if token.kind != Kind::Sign(b';') || depth > 0 => {
                    match token.kind {
                        Kind::Sign(b'(') => {
                            depth += 1;
                            is_plain &= !statement.last().is_some_and(Token::is_name);
                        }
                        Kind::Sign(b')') => depth = depth.saturating_sub(1),
                        Kind::Word if token.is("into") => is_plain = false,
                        Kind::Plain | Kind::Fancy => {
                            reading.is_of_moment |= climate::is_moment(&token);
                        }
                        _ => {}
                    }
                    statement.push(token);
                }
                _ => {
                    reading.statement(text, &statement, is_plain);
                    statement.clear();
                    is_plain = true;
                    if token.is_none() {
                        break;
                    }
                }
            }
        }
        if tokens.is_unfinished() {
            // The server will refuse it, unless it reads it otherwise than we do.
            reading.acts = reading.acts.then(Act::Commit).then(Act::Work);
            reading.pins = reading.pins.with(Pin::NotUnderstood);
        }
        reading
    }

    /// `is_plain`: no name is followed by a parenthesis, and nothing goes INTO anything.
    fn statement(&mut self, text: &[u8], tokens: &[Token<'_>], is_plain: bool) {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return;
        };
        let whole = &text[first.at..last.at + last.text.len()];
        let number = self.statements;
        self.statements += 1;
        let found = deed::of(whole, tokens);
        self.acts = self.acts.then(found.act);
        if found.act == Act::Nothing
            && let Some(reset) = reset::of(tokens)
        {
            self.resets = Some(match self.resets.take() {
                Some(other) if other != reset => Reset::All,
                _ => reset,
            });
        }
        self.pins = self.pins.union(found.pins);
        if !is_plain {
            self.pins = self.pins.union(deed::by_any_word(tokens, &found.deeds));
        }
        let by_view = calls::sets_by_view(tokens);
        self.opaque |= by_view || calls::is_opaque(tokens, is_plain);
        self.changes_climate |= by_view || climate::changes(tokens, is_plain);
        self.deeds
            .extend(found.deeds.into_iter().map(|deed| (number, Arc::new(deed))));
    }
}

/// Whether a statement with this tag leaves nothing in its session but what a server can be asked for, as a function may.
pub(crate) fn shows_all(tag: &[u8]) -> bool {
    let word = tag.split(|byte| *byte == b' ').next().unwrap_or_default();
    let words: [&[u8]; 11] = [
        b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"SELECT", b"COPY", b"DO", b"CALL", b"CREATE",
        b"BEGIN", b"COMMIT",
    ];
    words.contains(&word)
}

/// What PostgreSQL says when it has done this, which only begins a transaction.
pub(crate) fn begin_tag(text: &[u8]) -> &'static CStr {
    let first = Tokens::new(text, true).next();
    match first.is_some_and(|first| first.text.eq_ignore_ascii_case(b"begin")) {
        true => c"BEGIN",
        false => c"START TRANSACTION",
    }
}

#[cfg(test)]
mod tests;
