//! SET, RESET and `set_config`.
//!
//! **Invariant:** a setting that is recorded is one for the session; what ends with its transaction
//! is not recorded, and what can't be told is a pin.

use super::Act;
use super::deed::{Argument, ConfigCall, Deed, Found, Pin};
use super::token::{Kind, Token};

pub(super) fn set(whole: &[u8], tokens: &[Token<'_>]) -> Found {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
    if is(1, "local") {
        return Found::act(Act::Nothing);
    }
    let at = 1 + usize::from(is(1, "session"));
    if is(at, "characteristics") {
        return characteristics(tokens);
    }
    if is(at, "transaction") || is(at, "constraints") {
        return Found::act(Act::Nothing);
    }
    if at == 2 && is(2, "authorization") {
        return Found::pin(Pin::Authorization);
    }
    let again = |name: &str| {
        Found::deed(Deed::Set {
            name: name.into(),
            sql: whole.into(),
        })
    };
    let given = |at: usize| tokens.get(at).is_some() && !is(at, "default");
    // Forms of their own, unless a setting is called so.
    if !tokens.get(at + 1).is_some_and(is_assignment) && !is_dot(tokens.get(at + 1)) {
        let special = [
            (is(at, "time") && is(at + 1, "zone"), "timezone", at + 2),
            (is(at, "names"), "client_encoding", at + 1),
            (is(at, "schema"), "search_path", at + 1),
            (is(at, "role"), "role", at + 1),
            (is(at, "xml") && is(at + 1, "option"), "xmloption", at + 2),
        ];
        return match special.into_iter().find(|(fits, ..)| *fits) {
            Some((_, name, value)) if given(value) && !is(value, "local") => again(name),
            Some((_, name, _)) => Found::deed(Deed::Reset(name.into())),
            None => Found::pin(Pin::NotUnderstood),
        };
    }
    let Some((name, behind)) = setting(&tokens[at..]) else {
        return Found::pin(Pin::NotUnderstood);
    };
    let value = at + behind + 1;
    if !tokens.get(value - 1).is_some_and(is_assignment) || tokens.get(value).is_none() {
        return Found::pin(Pin::NotUnderstood);
    }
    match name.as_str() {
        "session_authorization" => Found::pin(Pin::Authorization),
        "seed" => Found::pin(Pin::Seed),
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => {
            Found::act(Act::Nothing)
        }
        name if is(value, "default") && tokens.len() == value + 1 => {
            Found::deed(Deed::Reset(name.into()))
        }
        name => again(name),
    }
}

pub(super) fn reset(tokens: &[Token<'_>]) -> Found {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
    if is(1, "all") {
        return Found::deed(Deed::ResetAll);
    }
    if is(1, "session") && is(2, "authorization") {
        return Found::act(Act::Nothing);
    }
    if is(1, "transaction") {
        return Found::act(Act::Nothing);
    }
    if is(1, "time") && is(2, "zone") {
        return Found::deed(Deed::Reset("timezone".into()));
    }
    match setting(&tokens[1..]) {
        Some((name, _)) => Found::deed(Deed::Reset(name.into())),
        None => Found::pin(Pin::NotUnderstood),
    }
}

/// The name of a setting, in small letters, and how many tokens it is made of.
pub(super) fn setting(tokens: &[Token<'_>]) -> Option<(String, usize)> {
    let mut name = tokens.first()?.name()?;
    let mut count = 1;
    while is_dot(tokens.get(count)) {
        name.push('.');
        name.push_str(&tokens.get(count + 1)?.name()?);
        count += 2;
    }
    Some((name.to_lowercase(), count))
}

fn is_dot(token: Option<&Token<'_>>) -> bool {
    token.is_some_and(|token| token.is_sign(b'.'))
}

fn is_assignment(token: &Token<'_>) -> bool {
    token.is("to") || token.is_sign(b'=')
}

/// `SET SESSION CHARACTERISTICS AS TRANSACTION …` sets up to three settings.
fn characteristics(tokens: &[Token<'_>]) -> Found {
    let mut deeds = Vec::new();
    let mut set = |name: &str, value: &str| {
        let sql = format!("SET {name} = '{value}'");
        // The last one counts, however often a setting is named.
        deeds.retain(|deed| !matches!(deed, Deed::Set { name: set, .. } if **set == *name));
        deeds.push(Deed::Set {
            name: name.into(),
            sql: sql.into_bytes().into(),
        });
    };
    let words: Vec<_> = tokens.iter().filter_map(Token::name).collect();
    for (at, word) in words.iter().enumerate() {
        let next = |more: usize| words.get(at + more).map_or("", String::as_str);
        match (word.as_str(), next(1), next(2)) {
            ("level", first @ ("read" | "repeatable"), second) => {
                set(
                    "default_transaction_isolation",
                    &format!("{first} {second}"),
                );
            }
            ("level", "serializable", _) => set("default_transaction_isolation", "serializable"),
            ("read", "only", _) => set("default_transaction_read_only", "on"),
            ("read", "write", _) => set("default_transaction_read_only", "off"),
            ("not", "deferrable", _) => set("default_transaction_deferrable", "off"),
            ("deferrable", ..) if at == 0 || words[at - 1] != "not" => {
                set("default_transaction_deferrable", "on");
            }
            _ => {}
        }
    }
    Found {
        deeds,
        ..Found::act(Act::Nothing)
    }
}

/// `SELECT set_config(…) [, set_config(…)]…` and nothing else.
pub(super) fn config(tokens: &[Token<'_>]) -> Option<Found> {
    let mut calls = Vec::new();
    let mut rest = &tokens[1..];
    loop {
        if rest.first()?.is("pg_catalog") && is_dot(rest.get(1)) {
            rest = &rest[2..];
        }
        if !rest.first()?.is("set_config") || !rest.get(1)?.is_sign(b'(') {
            return None;
        }
        let (name, behind) = argument(&rest[2..], b',')?;
        let (value, behind) = argument(behind, b',')?;
        let (local, behind) = argument(behind, b')')?;
        calls.push(ConfigCall { name, value, local });
        rest = alias(behind)?;
        match rest.first() {
            None => break,
            Some(comma) if comma.is_sign(b',') => rest = &rest[1..],
            Some(_) => return None,
        }
    }
    Some(Found::deed(Deed::Config(calls)))
}

/// What is behind `AS name`, if that is there.
fn alias<'a, 't>(tokens: &'a [Token<'t>]) -> Option<&'a [Token<'t>]> {
    match tokens.first() {
        Some(word) if word.is("as") => tokens.get(2..),
        _ => Some(tokens),
    }
}

/// A constant or a parameter, perhaps with a cast, and what is behind the sign that ends it.
fn argument<'a, 't>(tokens: &'a [Token<'t>], end: u8) -> Option<(Argument, &'a [Token<'t>])> {
    let first = tokens.first()?;
    let argument = match first.kind {
        Kind::Plain => Argument::Text(first.string()?.into()),
        Kind::Word if first.is("true") || first.is("false") => {
            Argument::Text(first.text.to_ascii_lowercase().into())
        }
        Kind::Parameter => {
            let digits = std::str::from_utf8(&first.text[1..]).ok()?;
            Argument::Parameter(digits.parse().ok()?)
        }
        _ => return None,
    };
    let mut rest = &tokens[1..];
    if rest.first()?.is_sign(b':') && rest.get(1)?.is_sign(b':') {
        let cast = rest.get(2)?;
        if !["text", "varchar", "bool", "boolean"]
            .iter()
            .any(|it| cast.is(it))
        {
            return None;
        }
        rest = &rest[3..];
    }
    match rest.first()?.is_sign(end) {
        true => Some((argument, &rest[1..])),
        false => None,
    }
}
