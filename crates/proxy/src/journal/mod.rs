//! What a session has changed about itself, so that another server can be made to look the same.
//!
//! **Invariant:** a change counts when the server has confirmed it, and goes with the transaction or
//! the savepoint that it was made in.
//!
//! **Invariant:** no text is said again where it may be read in another way than it was said.
//!
//! **Invariant:** it has not much more than [`BYTES_MAX`]; a session that changes more about itself stays with its server.

mod settings;

pub(crate) use settings::{Settings, literal, set_config_sql, to_restore};

use crate::sql::{Argument, ConfigCall, Deed, Pins};
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::backend::TransactionStatus;

/// One session's.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    settings: Arc<Settings>,
    /// Innermost last; none outside of a transaction.
    frames: Vec<Frame>,
    /// Statements prepared by SQL: name, and what prepares it again. No transaction takes it back.
    prepared: BTreeMap<Box<str>, Box<[u8]>>,
    pins: Pins,
    /// At most so many bytes are here.
    bytes: usize,
    /// There was more, and nothing is noted any more.
    is_full: bool,
    strings: Strings,
    letters: Letters,
}

/// How texts of the session's own would be read again.
#[derive(Debug, Default)]
struct Strings {
    /// The session has said how a backslash in a string is read.
    changed: bool,
    /// A text that is kept has a backslash.
    escaped: bool,
}

/// Letters beyond ASCII in texts that are kept: their bytes mean something only in the encoding they were said in.
#[derive(Debug, Default)]
struct Letters {
    /// There are some, in the encoding that stood before the transaction, or before the session said another one.
    kept: bool,
    /// The session has said an encoding, of which the server has yet to report whether it is another one.
    is_unsure: bool,
    /// There are some said since.
    new: bool,
    /// What was reported last, if anything was.
    encoding: Option<Box<[u8]>>,
    /// The transaction is over in which that was said.
    is_over: bool,
}

impl Letters {
    fn note(&mut self, text: &[u8]) {
        self.settle();
        if !text.is_ascii() {
            match self.is_unsure {
                true => self.new = true,
                false => self.kept = true,
            }
        }
    }

    /// The session says an encoding; `false`: there are letters in one that it has said just before.
    fn say(&mut self) -> bool {
        self.settle();
        self.is_unsure = true;
        !self.new
    }

    /// `own`: it is what the session began with. `false`: there are letters in another one.
    fn report(&mut self, encoding: &[u8], own: bool) -> bool {
        let changed = match &self.encoding {
            Some(before) => **before != *encoding,
            None => !own,
        };
        self.encoding = Some(encoding.into());
        !(changed && self.kept)
    }

    /// What was said in transactions that are over stands.
    fn settle(&mut self) {
        if std::mem::take(&mut self.is_over) {
            self.kept |= std::mem::take(&mut self.new);
            self.is_unsure = false;
        }
    }
}

/// By which letters are read.
const ENCODING: &str = "client_encoding";
/// By which the name of a configuration is looked up when it is set, which is kept as it was said.
const PATH: &str = "search_path";
const LOOKED_UP: &str = "default_text_search_config";
/// Whether a backslash in a plain string is a letter like any other.
const STRINGS: &str = "standard_conforming_strings";

/// Of settings and statements, with what it takes to find them.
const BYTES_MAX: usize = 4 * 1024 * 1024;
const ENTRY_BYTES: usize = 128;

/// What a server shows of a session.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) pins: Pins,
    /// All that were set since the login, custom ones aside: the SQL that sets them again.
    pub(crate) settings: Settings,
    /// All that SQL has prepared: the SQL that did.
    pub(crate) prepared: BTreeMap<Box<str>, Box<[u8]>>,
}

#[derive(Debug, Default)]
struct Frame {
    savepoint: Option<Box<str>>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Set(Box<str>, Box<[u8]>),
    Reset(Box<str>),
    ResetAll,
}

impl Change {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Set(name, sql) => name.len() + sql.len(),
                Self::Reset(name) => name.len(),
                Self::ResetAll => 0,
            }
    }
}

impl Journal {
    /// Whether the session has set it, or will have when its transaction has ended.
    pub(crate) fn has_set(&self, name: &str) -> bool {
        let changes = self
            .frames
            .iter()
            .rev()
            .flat_map(|frame| frame.changes.iter().rev());
        let last = changes.filter_map(|change| match change {
            Change::Set(set, _) => (**set == *name).then_some(true),
            Change::Reset(reset) => (**reset == *name).then_some(false),
            Change::ResetAll => Some(false),
        });
        let mut last = last;
        last.next()
            .unwrap_or_else(|| self.settings.contains_key(name))
    }

    /// The settings as of the last transaction that has ended.
    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// These are the same settings: from now on they are so in one copy.
    pub(crate) fn share(&mut self, settings: &Arc<Settings>) {
        debug_assert_eq!(self.settings, *settings, "they are not the same");
        if !Arc::ptr_eq(&self.settings, settings) {
            self.settings = Arc::clone(settings);
        }
    }

    /// What prepares the statements again that SQL has prepared.
    pub(crate) fn prepared(&self) -> impl Iterator<Item = &[u8]> {
        self.prepared.values().map(AsRef::as_ref)
    }

    pub(crate) fn has_prepared(&self) -> bool {
        !self.prepared.is_empty()
    }

    pub(crate) fn has_prepared_as(&self, name: &str) -> bool {
        self.prepared.contains_key(name)
    }

    pub(crate) fn pins(&self) -> Pins {
        self.pins
    }

    /// A statement is on its way that may tie the session to its server.
    pub(crate) fn pin(&mut self, pins: Pins) {
        self.pins = self.pins.union(pins);
    }

    /// A statement has succeeded. `parameters`: what it was bound with, if that could be read.
    pub(crate) fn done(&mut self, deed: &Deed, parameters: &[Option<Box<[u8]>>]) {
        if !self.has_room() {
            return;
        }
        match deed {
            Deed::Set { name, sql } => {
                self.read_again(name, sql);
                self.change(Change::Set(name.clone(), sql.clone()));
            }
            Deed::Reset(name) => {
                self.read_again(name, b"");
                self.change(Change::Reset(name.clone()));
            }
            Deed::ResetAll => {
                self.changes_reading(ENCODING);
                self.change(Change::ResetAll);
            }
            Deed::Config(calls) => {
                for call in calls {
                    self.config(call, parameters);
                }
            }
            Deed::Savepoint(name) => {
                self.ensure_frame();
                self.bytes += ENTRY_BYTES + name.len();
                self.frames.push(Frame {
                    savepoint: Some(name.clone()),
                    changes: Vec::new(),
                });
            }
            Deed::Release(name) => {
                if let Some(at) = self.find(name) {
                    self.fold(at);
                }
            }
            Deed::RollbackTo(name) => {
                if let Some(at) = self.find(name) {
                    self.frames.truncate(at + 1);
                    self.frames[at].changes.clear();
                }
            }
            Deed::Prepare { name, sql } => {
                self.read_again("", sql);
                // The statement stays if the transaction is rolled back, and the encoding does not.
                if !sql.is_ascii() && self.letters.is_unsure {
                    self.pin_settings();
                }
                self.bytes += ENTRY_BYTES + name.len() + sql.len();
                self.prepared.insert(name.clone(), sql.clone());
            }
            Deed::Deallocate(name) => {
                self.prepared.remove(name);
            }
            // The tag says so.
            Deed::DeallocateAll => {}
        }
    }

    /// The tag of a statement that has succeeded, and is no deed of its own.
    pub(crate) fn tag(&mut self, tag: &[u8]) {
        match tag {
            b"COMMIT" => self.fold(0),
            b"ROLLBACK" => self.frames.clear(),
            b"DISCARD ALL" => *self = Self::default(),
            b"DEALLOCATE ALL" => self.prepared.clear(),
            _ => {}
        }
    }

    /// The server is ready for the next request; `failed`: there was an error in the last one.
    pub(crate) fn ready(&mut self, status: TransactionStatus, failed: bool) {
        self.letters.is_over |= status == TransactionStatus::Idle;
        if status == TransactionStatus::Idle && !self.frames.is_empty() {
            match failed {
                true => self.frames.clear(),
                false => self.fold(0),
            }
        }
    }

    /// The transaction that was open is lost.
    pub(crate) fn lost(&mut self) {
        self.frames.clear();
    }

    /// Outside of any transaction the server reports a setting; `own`: it is what it was when the
    /// session began.
    pub(crate) fn reported(&mut self, name: &str, value: &[u8], own: bool) {
        let name: Box<str> = name.to_ascii_lowercase().into();
        if &*name == ENCODING && !self.letters.report(value, own) {
            self.pin_settings();
        }
        let sql = set_config_sql(name.as_bytes(), value);
        let known = self.settings.get(&name);
        let right = match own {
            true => known.is_none(),
            // However it was said: it is reported because it has changed.
            false => known.is_some_and(|known| **known == *sql),
        };
        if right {
            return;
        }
        self.is_read_again(&name, b"");
        self.letters.note(value);
        let settings = Arc::make_mut(&mut self.settings);
        match own {
            true => drop(settings.remove(&name)),
            false => drop(settings.insert(name, sql)),
        }
    }

    /// Outside of any transaction the server was asked for everything that it shows of the session.
    pub(crate) fn observed(&mut self, observed: Observed) {
        self.pins = self.pins.seen(observed.pins);
        let known = |name: &str| observed.prepared.contains_key(name);
        self.prepared.retain(|name, _| known(name));
        for (name, sql) in observed.prepared {
            self.letters.note(&sql);
            self.prepared.entry(name).or_insert(sql);
        }
        let settings = &observed.settings;
        // Custom ones are not shown.
        let gone = |name: &str| !name.contains('.') && !settings.contains_key(name);
        let changed = |name: &str| self.settings.get(name) != settings.get(name);
        if !settings.keys().any(|name| changed(name))
            && !self.settings.keys().any(|name| gone(name))
        {
            return;
        }
        for sql in settings.values() {
            self.letters.note(sql);
        }
        let known = Arc::make_mut(&mut self.settings);
        known.retain(|name, _| !gone(name));
        known.extend(observed.settings);
    }

    fn config(&mut self, call: &ConfigCall, parameters: &[Option<Box<[u8]>>]) {
        let resolve = |argument: &Argument| match argument {
            Argument::Text(text) => Some(text.clone()),
            Argument::Parameter(number) => {
                let at = usize::from(*number).checked_sub(1)?;
                parameters.get(at)?.clone()
            }
        };
        let (name, value, local) = (
            resolve(&call.name),
            resolve(&call.value),
            resolve(&call.local),
        );
        let is_local = local.as_deref().and_then(boolean);
        match (name, value, is_local) {
            (_, _, Some(true)) => {}
            (Some(name), Some(value), Some(false)) => {
                let sql = set_config_sql(&name, &value);
                let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
                if has_half_letters(&value) {
                    self.pin_settings();
                }
                self.read_again(&name, b"");
                self.letters.note(&sql);
                self.change(Change::Set(name.into(), sql));
            }
            // NULL, or in a form that we do not read.
            _ => self.pin_settings(),
        }
    }

    fn pin_settings(&mut self) {
        self.pins = self.pins.with(crate::sql::Pin::Settings);
    }

    /// `sql`, which is kept, sets `name`. A session whose texts could be read otherwise later stays with its server.
    fn read_again(&mut self, name: &str, sql: &[u8]) {
        self.changes_reading(name);
        self.letters.note(sql);
        self.is_read_again(name, sql);
    }

    /// The setting is said.
    fn changes_reading(&mut self, name: &str) {
        let stays = match name {
            ENCODING => self.letters.say(),
            PATH => !self.has_set(LOOKED_UP),
            _ => true,
        };
        if !stays {
            self.pin_settings();
        }
    }

    fn is_read_again(&mut self, name: &str, sql: &[u8]) {
        self.strings.changed |= name == STRINGS;
        self.strings.escaped |= sql.contains(&b'\\');
        if has_half_letters(sql) || (self.strings.changed && self.strings.escaped) {
            self.pin_settings();
        }
    }

    fn change(&mut self, change: Change) {
        self.ensure_frame();
        self.bytes += change.bytes();
        if let Some(frame) = self.frames.last_mut() {
            frame.changes.push(change);
        }
    }

    /// Whether anything more may be noted. If not, the session stays where it is.
    fn has_room(&mut self) -> bool {
        if self.bytes > BYTES_MAX && !self.is_full {
            // What was taken back since then, or said twice, counts no more.
            let changes = self.frames.iter().flat_map(|frame| &frame.changes);
            let changes: usize = changes.map(Change::bytes).sum();
            let kept = self.settings.iter().chain(&self.prepared);
            let kept: usize = kept
                .map(|(name, sql)| ENTRY_BYTES + name.len() + sql.len())
                .sum();
            self.bytes = changes + kept + self.frames.len() * ENTRY_BYTES;
            self.is_full = self.bytes > BYTES_MAX;
        }
        if self.is_full {
            self.pin_settings();
        }
        !self.is_full
    }

    fn ensure_frame(&mut self) {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
    }

    fn find(&self, savepoint: &str) -> Option<usize> {
        let named = |frame: &Frame| frame.savepoint.as_deref() == Some(savepoint);
        self.frames.iter().rposition(named)
    }

    /// The frames from `at` on become part of what is below them.
    fn fold(&mut self, at: usize) {
        let folded = self.frames.drain(at..).flat_map(|frame| frame.changes);
        let changes: Vec<_> = folded.collect();
        if let Some(frame) = self.frames.last_mut() {
            frame.changes.extend(changes);
            return;
        }
        if changes.is_empty() {
            return;
        }
        let settings = Arc::make_mut(&mut self.settings);
        for change in changes {
            match change {
                Change::Set(name, sql) => drop(settings.insert(name, sql)),
                Change::Reset(name) => drop(settings.remove(&name)),
                // The role is no setting that RESET ALL resets.
                Change::ResetAll => settings.retain(|name, _| &**name == "role"),
            }
        }
    }
}

/// In some encodings of clients a backslash may be the second half of a letter.
fn has_half_letters(text: &[u8]) -> bool {
    text.windows(2)
        .any(|pair| !pair[0].is_ascii() && pair[1] == b'\\')
}

/// As it stands in a constant, or in a parameter in text form or in binary form.
fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        [1] => return Some(true),
        [0] => return Some(false),
        _ => {}
    }
    match text.to_ascii_lowercase().as_slice() {
        b"t" | b"true" | b"on" | b"yes" | b"y" | b"1" => Some(true),
        b"f" | b"false" | b"off" | b"no" | b"n" | b"0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
