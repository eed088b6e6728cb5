//! One statement: what it does to transactions and to the session.

use super::set;
use super::token::{Kind, NAME_MAX, Token};
use super::{Act, calls};

/// A change of the session that a later server must be told of, once the statement has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A setting for the session: its name, and the SQL that sets it again.
    Set {
        name: Box<str>,
        sql: Box<[u8]>,
    },
    /// The same by calls of `set_config`, whose arguments may be parameters.
    Config(Vec<ConfigCall>),
    /// A setting goes back to what it was when the session began.
    Reset(Box<str>),
    ResetAll,
    Savepoint(Box<str>),
    Release(Box<str>),
    RollbackTo(Box<str>),
    /// A statement prepared by SQL: its name, and the SQL that prepares it again.
    Prepare {
        name: Box<str>,
        sql: Box<[u8]>,
    },
    Deallocate(Box<str>),
    /// Of all, also by DISCARD ALL.
    DeallocateAll,
}

/// `set_config(name, value, is_local)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigCall {
    pub(crate) name: Argument,
    pub(crate) value: Argument,
    pub(crate) local: Argument,
}

/// An argument of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Argument {
    Text(Box<[u8]>),
    /// Counted from 1.
    Parameter(u16),
}

/// What ties a session to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Pin {
    Temporary = 1,
    Listening = 2,
    AdvisoryLock = 4,
    HeldCursor = 8,
    Seed = 16,
    Library = 32,
    Dblink = 64,
    Authorization = 128,
    Settings = 256,
    TooLong = 512,
    NotUnderstood = 1024,
    Replication = 2048,
}

/// A set of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pins(u16);

impl Pins {
    /// What PostgreSQL's catalogs and views show of a session.
    const VISIBLE: u16 = Pin::Temporary as u16
        | Pin::Listening as u16
        | Pin::AdvisoryLock as u16
        | Pin::HeldCursor as u16;

    const ALL: [(Pin, &'static str); 12] = [
        (Pin::Temporary, "temporary objects"),
        (Pin::Listening, "channels that it listens on"),
        (Pin::AdvisoryLock, "advisory locks"),
        (Pin::HeldCursor, "cursors WITH HOLD"),
        (Pin::Seed, "a seed for random numbers"),
        (Pin::Library, "a loaded library"),
        (Pin::Dblink, "connections of dblink"),
        (Pin::Authorization, "another session authorization"),
        (
            Pin::Settings,
            "settings that were made in a way that is not followed",
        ),
        (
            Pin::TooLong,
            "what a statement has done that was too long to be read",
        ),
        (
            Pin::NotUnderstood,
            "what a statement has done that was not understood",
        ),
        (Pin::Replication, "a replication connection"),
    ];

    #[must_use]
    pub(crate) fn with(self, pin: Pin) -> Self {
        Self(self.0 | pin as u16)
    }

    #[must_use]
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Of those that a server can be asked for, these and no others.
    #[must_use]
    pub(crate) fn seen(self, seen: Self) -> Self {
        Self((self.0 & !Self::VISIBLE) | seen.0)
    }

    #[must_use]
    pub(super) fn all_but(self, pin: Pin) -> Self {
        Self(self.0 & !(pin as u16))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, pin: Pin) -> bool {
        self.0 & pin as u16 != 0
    }

    /// For those who keep them as a number.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// For people: `temporary objects and advisory locks`.
    pub(crate) fn describe(self) -> String {
        let held = Self::ALL
            .iter()
            .filter(|(pin, _)| self.0 & *pin as u16 != 0);
        let held: Vec<_> = held.map(|(_, text)| *text).collect();
        held.join(" and ")
    }
}

/// What was found in a statement.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) act: Act,
    pub(super) deeds: Vec<Deed>,
    pub(super) pins: Pins,
}

impl Found {
    pub(super) fn act(act: Act) -> Self {
        Self {
            act,
            deeds: Vec::new(),
            pins: Pins::default(),
        }
    }

    pub(super) fn deed(deed: Deed) -> Self {
        Self {
            deeds: vec![deed],
            ..Self::act(Act::Nothing)
        }
    }

    pub(super) fn pin(pin: Pin) -> Self {
        Self {
            pins: Pins::default().with(pin),
            ..Self::act(Act::Work)
        }
    }
}

/// Reads one statement; there is at least one token.
pub(super) fn of(whole: &[u8], tokens: &[Token<'_>]) -> Found {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
    let any = |word: &str| tokens.iter().any(|token| token.is(word));
    let first = tokens[0];
    let mut room = [0; NAME_MAX];
    let word = match first.kind {
        Kind::Word => first.folded(&mut room),
        _ => None,
    };
    // `(SELECT 1)` begins with none.
    let Some(word) = word else {
        return Found::act(Act::Work);
    };
    match word {
        "begin" => Found::act(Act::Begin),
        "start" => Found::act(Act::Begin),
        "commit" | "rollback" | "prepare" if is(1, "prepared") => Found::act(Act::Work),
        "commit" | "end" if chains(tokens) => Found::act(Act::CommitAndChain),
        "commit" | "end" => Found::act(Act::CommitPlain),
        "rollback" | "abort" if chains(tokens) => Found::act(Act::RollbackAndChain),
        "rollback" | "abort" => match tokens.iter().position(|token| token.is("to")) {
            Some(at) => named(
                tokens,
                at + 1 + usize::from(is(at + 1, "savepoint")),
                |name| Found {
                    act: Act::RollbackTo,
                    ..Found::deed(Deed::RollbackTo(name))
                },
            ),
            None => Found::act(Act::Rollback),
        },
        "savepoint" => named(tokens, 1, |name| Found::deed(Deed::Savepoint(name))),
        "release" => named(tokens, 1 + usize::from(is(1, "savepoint")), |name| {
            Found::deed(Deed::Release(name))
        }),
        "prepare" if is(1, "transaction") => Found::act(Act::Commit),
        "prepare" => named(tokens, 1, |name| {
            let sql = whole.into();
            Found::deed(Deed::Prepare { name, sql })
        }),
        "deallocate" => {
            let at = 1 + usize::from(is(1, "prepare") && tokens.len() > 2);
            match is(at, "all") {
                true => Found::deed(Deed::DeallocateAll),
                false => named(tokens, at, |name| Found::deed(Deed::Deallocate(name))),
            }
        }
        "set" => set::set(whole, tokens),
        "reset" => set::reset(tokens),
        "discard" if is(1, "all") => Found::deed(Deed::DeallocateAll),
        "show" | "discard" | "unlisten" | "close" => Found::act(Act::Nothing),
        "select" => set::config(tokens).unwrap_or_else(|| Found::act(select(tokens))),
        "with" | "values" | "table" => Found::act(Act::Query),
        "listen" => Found::pin(Pin::Listening),
        "load" => Found::pin(Pin::Library),
        "declare" if any("hold") => Found::pin(Pin::HeldCursor),
        "create" if is_temporary(tokens) => Found::pin(Pin::Temporary),
        // A function's body in SQL has statements of its own, and we have cut it at the first.
        "create" if any("atomic") => Found::pin(Pin::NotUnderstood),
        _ => Found::act(Act::Work),
    }
}

/// `… AND CHAIN`, and not `… AND NO CHAIN`.
fn chains(tokens: &[Token<'_>]) -> bool {
    let mut pairs = tokens.windows(2);
    pairs.any(|pair| pair[0].is("and") && pair[1].is("chain"))
}

/// A statement that needs a name at a place.
fn named(tokens: &[Token<'_>], at: usize, make: impl FnOnce(Box<str>) -> Found) -> Found {
    match tokens.get(at).and_then(Token::name) {
        Some(name) => make(name.into()),
        None => Found::pin(Pin::NotUnderstood),
    }
}

/// Constants alone change nothing. Of anything else, only the server knows.
fn select(tokens: &[Token<'_>]) -> Act {
    let constant = |token: &Token<'_>| match token.kind {
        Kind::Number | Kind::Plain | Kind::Parameter | Kind::Sign(b',') => true,
        Kind::Word => ["null", "true", "false"].iter().any(|word| token.is(word)),
        Kind::Quoted | Kind::Unicode | Kind::Fancy | Kind::Sign(_) => false,
    };
    match tokens[1..].iter().all(constant) {
        true => Act::Nothing,
        false => Act::Query,
    }
}

/// `CREATE [OR REPLACE | LOCAL | GLOBAL] TEMP …`, or something in `pg_temp`.
fn is_temporary(tokens: &[Token<'_>]) -> bool {
    is_said_temporary(tokens) || is_in_pg_temp(tokens)
}

fn is_said_temporary(tokens: &[Token<'_>]) -> bool {
    let head = &tokens[1..tokens.len().min(5)];
    let temp = |token: &Token<'_>| token.is("temp") || token.is("temporary");
    head.iter().any(temp)
}

fn is_in_pg_temp(tokens: &[Token<'_>]) -> bool {
    let mut room = [0; NAME_MAX];
    let mut names = tokens.iter().filter(|token| token.text.len() >= 7);
    names.any(|token| token.folded(&mut room) == Some("pg_temp"))
}

/// Words that matter wherever they stand: calls, and INTO.
pub(super) fn by_any_word(tokens: &[Token<'_>], deeds: &[Deed]) -> Pins {
    let mut pins = Pins::default();
    let mut room = [0; NAME_MAX];
    let understood = matches!(deeds, [Deed::Config(_)]);
    // Looked for once, and not behind each INTO: a text may be made of them.
    let in_pg_temp = is_in_pg_temp(tokens);
    for (at, token) in tokens.iter().enumerate() {
        if !token.is_name() || token.text.len() < 4 {
            continue;
        }
        let called = tokens.get(at + 1).is_some_and(|next| next.is_sign(b'('));
        if token.is("into") && (in_pg_temp || is_said_temporary(&tokens[at..])) {
            pins = pins.with(Pin::Temporary);
        }
        if !called {
            continue;
        }
        // It may be any of them.
        if token.kind == Kind::Unicode && !calls::is_table(tokens, at) {
            pins = pins.with(Pin::NotUnderstood);
        }
        let Some(name) = token.folded(&mut room) else {
            continue;
        };
        match name {
            "set_config" if !understood => pins = pins.with(Pin::Settings),
            "pg_advisory_lock"
            | "pg_advisory_lock_shared"
            | "pg_try_advisory_lock"
            | "pg_try_advisory_lock_shared" => pins = pins.with(Pin::AdvisoryLock),
            "setseed" => pins = pins.with(Pin::Seed),
            "dblink_connect" | "dblink_connect_u" => pins = pins.with(Pin::Dblink),
            _ => {}
        }
    }
    pins
}
