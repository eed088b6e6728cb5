//! Statements that clients have prepared by the protocol.
//!
//! In transaction mode a client's statement gets a name of ours on the servers, the same for all
//! clients that prepare the same text, and is prepared wherever it is needed and not there.
//!
//! **Invariant:** two texts never share a name, nor does one that was read with backslashes as escapes
//! with one that was not, nor one that was prepared in another climate: PostgreSQL reads the constants in a text, and
//! looks for its names, when it is prepared.
//!
//! A text with a constant such as `'now'` is its client's alone.

use crate::sql::Reading;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What our names begin with.
const PREFIX: &str = "standfast_";

/// So many texts without a name are kept with what was read in them, each in the place that its hash gives it.
const RECENT: usize = 512;
/// None that is longer, in bytes.
const RECENT_BYTES_MAX: usize = 2048;

/// Texts that nobody has any more may lie about up to so many bytes.
const SWEEP_BYTES_MIN: usize = 8 * 1024 * 1024;

/// One text with its parameter types.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) id: u64,
    /// Under which a server has it in transaction mode; `None`: no other client knows of it.
    name: Option<CString>,
    /// A Parse message's body behind the name.
    body: Box<[u8]>,
    pub(crate) climate: Climate,
    pub(crate) reading: Reading,
}

/// What the texts of a session are read by: a hash of the settings that matter for that, and nothing where the session
/// has set none. Nobody can make two that are the same: the hash has a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Climate(u64);

/// All of a proxy's.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: Mutex<Known>,
    recent: Recent,
    climates: RandomState,
    /// Climates that are each a session's own.
    own: AtomicU64,
}

/// Statements without a name, which most drivers prepare anew each time: what was read once in a text is there.
#[derive(Debug)]
struct Recent {
    hasher: RandomState,
    places: Mutex<Box<[Place]>>,
}

/// With whether backslashes in plain strings were plain.
type Place = Option<(bool, Arc<Prepared>)>;

impl Default for Recent {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            places: Mutex::new(vec![None; RECENT].into()),
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    next: u64,
    /// Those read with plain strings by the standard, and the others.
    texts: [Texts; 2],
}

#[derive(Debug, Default)]
struct Texts {
    prepared: HashMap<Arc<[u8]>, Weak<Prepared>>,
    /// Of all texts that are keys here.
    bytes: usize,
    /// When there are so many, or so many bytes, those that no client and no server has any more are taken out.
    sweep_at: usize,
    sweep_at_bytes: usize,
}

impl Registry {
    /// A statement with this body, of which no other client knows by any name.
    pub(crate) fn alone(&self, body: &[u8], standard: bool) -> Arc<Prepared> {
        if body.len() > RECENT_BYTES_MAX {
            return Arc::new(Prepared::alone(body, standard));
        }
        let at = self.recent.hasher.hash_one(body) as usize % RECENT;
        let places = || {
            let places = self.recent.places.lock();
            places.unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((by, known)) = &places()[at]
            && *by == standard
            && known.is(body)
        {
            return Arc::clone(known);
        }
        let read = Arc::new(Prepared::alone(body, standard));
        places()[at] = Some((standard, Arc::clone(&read)));
        read
    }

    /// What becomes of a climate by this.
    pub(crate) fn climate(&self, before: Climate, change: impl Hash) -> Climate {
        Climate(self.climates.hash_one((before, change)).max(1))
    }

    /// One that no other session has.
    pub(crate) fn own_climate(&self) -> Climate {
        self.climate(Climate::default(), self.own.fetch_add(1, Ordering::Relaxed))
    }

    /// The statement with this body, which is the same for everybody in a climate.
    pub(crate) fn prepared(&self, body: &[u8], standard: bool, climate: Climate) -> Arc<Prepared> {
        let key = &*climate.key(body);
        if let Some(prepared) = self.locked().texts[usize::from(standard)].get(key) {
            return prepared;
        }
        // Everybody who prepares something waits for the lock: a text is read before.
        let read = Prepared::alone(body, standard);
        let mut known = self.locked();
        let Known { next, texts } = &mut *known;
        let texts = &mut texts[usize::from(standard)];
        if let Some(prepared) = texts.get(key) {
            return prepared;
        }
        let are_many = texts.prepared.len() >= texts.sweep_at.max(1024);
        if are_many || texts.bytes >= texts.sweep_at_bytes.max(SWEEP_BYTES_MIN) {
            texts.sweep();
        }
        *next += 1;
        let prepared = Arc::new(Prepared {
            id: *next,
            name: Some(name(*next)),
            climate,
            ..read
        });
        if prepared.reading.is_of_moment {
            return prepared;
        }
        let weak = Arc::downgrade(&prepared);
        if texts.prepared.insert(key.into(), weak).is_none() {
            texts.bytes += key.len();
        }
        prepared
    }

    /// Whoever prepares its text from now on prepares another one. Who has it keeps it.
    pub(crate) fn retire(&self, prepared: &Prepared) {
        let key = &*prepared.climate.key(&prepared.body);
        for texts in &mut self.locked().texts {
            if texts.get(key).is_some_and(|known| known.id == prepared.id) {
                texts.prepared.remove(key);
                texts.bytes -= key.len();
            }
        }
    }

    /// The same text in another climate.
    pub(crate) fn in_climate(
        &self,
        prepared: &Prepared,
        standard: bool,
        climate: Climate,
    ) -> Arc<Prepared> {
        self.prepared(&prepared.body, standard, climate)
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of all that it knows.
    #[cfg(test)]
    pub(crate) fn text_bytes(&self) -> usize {
        let known = self.locked();
        known.texts.iter().map(|texts| texts.bytes).sum()
    }

    /// Somebody who had much is gone.
    pub(crate) fn sweep(&self) {
        let mut known = self.locked();
        known.texts.iter_mut().for_each(Texts::sweep);
    }
}

impl Climate {
    /// Behind a body, which says itself where it ends, there is place for it.
    fn key(self, body: &[u8]) -> Cow<'_, [u8]> {
        match self.0 {
            0 => Cow::Borrowed(body),
            climate => Cow::Owned([body, &climate.to_be_bytes()].concat()),
        }
    }
}

impl Texts {
    fn get(&self, body: &[u8]) -> Option<Arc<Prepared>> {
        self.prepared.get(body).and_then(Weak::upgrade)
    }

    /// Takes out what no client and no server has any more.
    fn sweep(&mut self) {
        let is_used = |_: &_, prepared: &mut Weak<_>| prepared.strong_count() > 0;
        self.prepared.retain(is_used);
        self.prepared.shrink_to(self.prepared.len() * 2);
        self.bytes = self.prepared.keys().map(|text| text.len()).sum();
        self.sweep_at = self.prepared.len() * 2;
        self.sweep_at_bytes = self.bytes * 2;
    }
}

impl Prepared {
    /// One that no other client knows of.
    pub(crate) fn alone(body: &[u8], standard: bool) -> Self {
        let query = body.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut reading = Reading::of(query, standard);
        if reading.statements > 1 {
            // PostgreSQL refuses it. Each Execute that was sent before we hear that would have all of them.
            reading.deeds = Vec::new();
            reading.opaque = true;
        }
        Self {
            id: 0,
            name: None,
            body: body.into(),
            climate: Climate::default(),
            reading,
        }
    }

    /// Another text that stands for this one on the server. `types`: of the parameters, as they came.
    pub(crate) fn with_text(self, text: &CStr, types: &[u8]) -> Self {
        let body = [text.to_bytes_with_nul(), types].concat().into();
        Self { body, ..self }
    }

    pub(crate) fn is(&self, body: &[u8]) -> bool {
        *self.body == *body
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn text_bytes(&self) -> usize {
        self.body.len()
    }

    /// Under which a server has it in transaction mode.
    pub(crate) fn name(&self) -> &CStr {
        self.name.as_deref().unwrap_or_default()
    }

    /// Writes the Parse message that makes it.
    pub(crate) fn parse(&self, name: &[u8], out: &mut Vec<u8>) {
        let length = 4 + name.len() + 1 + self.body.len();
        out.push(b'P');
        // The body came in a message, so its length fits into one; a name is short.
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(&self.body);
    }
}

pub(crate) fn name(id: u64) -> CString {
    CString::new(format!("{PREFIX}{id}")).unwrap_or_default()
}

/// Whose name it is, if it is one of ours.
pub(crate) fn id(name: &[u8]) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_nobody_has_go() {
        let registry = Registry::default();
        let kept = registry.prepared(&[b'k'; 100_000], true, Climate::default());
        for n in 0..1_000_u32 {
            let text = [&n.to_be_bytes()[..], &[b'x'; 100_000]].concat();
            registry.prepared(&text, true, Climate::default());
            let known = registry.known.lock().unwrap();
            let bytes: usize = known.texts[1].prepared.keys().map(|text| text.len()).sum();
            assert_eq!(bytes, known.texts[1].bytes);
            assert!(bytes <= SWEEP_BYTES_MIN + 200_000, "{bytes}");
        }
        let again = registry.prepared(&[b'k'; 100_000], true, Climate::default());
        assert_eq!(kept.id, again.id);
    }

    #[test]
    fn a_text_without_a_name_is_read_once_for_each_way_to_read_it() {
        let registry = Registry::default();
        let body = |text: &str| [text.as_bytes(), b"\0\0\0"].concat();
        let text = body(r"select 'a\'; drop table t; --'");
        let once = registry.alone(&text, true);
        assert!(Arc::ptr_eq(&once, &registry.alone(&text, true)));
        for n in 0..4 * RECENT {
            let other = body(&format!("select {n}"));
            for standard in [true, false] {
                for text in [&text, &other] {
                    let read = registry.alone(text, standard);
                    assert!(read.is(text) && read.name.is_none());
                    assert_eq!(read.reading, Prepared::alone(text, standard).reading);
                }
            }
        }
        let long = vec![b'x'; RECENT_BYTES_MAX + 1];
        let read = || registry.alone(&long, true);
        assert!(!Arc::ptr_eq(&read(), &read()));
    }

    #[test]
    fn each_climate_has_names_of_its_own() {
        let registry = Registry::default();
        let body = b"select '1/2/2000'::date\0\0\0";
        let home = Climate::default();
        let away = registry.climate(home, ["set datestyle = 'DMY'"]);
        assert_eq!(away, registry.climate(home, ["set datestyle = 'DMY'"]));
        let one = registry.prepared(body, true, home);
        let other = registry.prepared(body, true, away);
        assert_ne!(one.id, other.id);
        assert_eq!(registry.prepared(body, true, away).id, other.id);
        assert_eq!(registry.in_climate(&other, true, home).id, one.id);
        assert_ne!(registry.own_climate(), registry.own_climate());
        let now = b"select 'now'::date\0\0\0";
        let first = registry.prepared(now, true, home);
        assert_ne!(first.id, registry.prepared(now, true, home).id);
    }

    #[test]
    fn what_is_retired_is_prepared_anew() {
        let registry = Registry::default();
        let away = registry.climate(Climate::default(), 1);
        for climate in [Climate::default(), away] {
            let prepare = || registry.prepared(b"select * from t\0\0\0", true, climate);
            let old = prepare();
            registry.retire(&old);
            let new = prepare();
            assert_ne!(old.id, new.id);
            // It was another one already.
            registry.retire(&old);
            assert_eq!(new.id, prepare().id);
        }
    }

    #[test]
    fn what_cannot_be_prepared_sets_nothing() {
        let read = Prepared::alone(b"set a = 1; set b = 2\0\0\0", true).reading;
        assert!(read.deeds.is_empty() && read.opaque);
        let read = Prepared::alone(b"set a = 1;\0\0\0", true).reading;
        assert!(read.deeds.len() == 1 && !read.opaque);
    }

    #[test]
    fn one_text_has_one_name() {
        let registry = Registry::default();
        let one = registry.prepared(b"select 1\0\0\0", true, Climate::default());
        let same = registry.prepared(b"select 1\0\0\0", true, Climate::default());
        let other = registry.prepared(b"select 2\0\0\0", true, Climate::default());
        assert_eq!(one.id, same.id);
        assert_ne!(one.id, other.id);
        let mut out = Vec::new();
        one.parse(b"x", &mut out);
        assert_eq!(out, b"P\0\0\0\x11x\0select 1\0\0\0");
    }
}
