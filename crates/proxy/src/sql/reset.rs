//! Statements behind which a setting is what it was when the session began.
//!
//! **Invariant:** none that says so in its text is missed. What functions reset is not seen here.

use super::set::setting;
use super::token::{Kind, Token, Tokens};
use std::ffi::CStr;

/// What one resets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The setting with this name, in small letters.
    One(Box<str>),
    All,
}

/// A statement of a text that holds others behind it.
#[derive(Debug)]
pub(crate) struct Within<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) reset: Reset,
    /// Until the end of its transaction.
    pub(crate) is_local: bool,
    /// What PostgreSQL says when it is done.
    pub(crate) tag: &'static CStr,
}

/// What a statement resets.
pub(super) fn of(tokens: &[Token<'_>]) -> Option<Reset> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
    let at = match tokens.first()? {
        first if first.is("discard") && is(1, "all") => return Some(Reset::All),
        first if first.is("reset") && is(1, "all") => return Some(Reset::All),
        first if first.is("reset") => 1,
        first if first.is("set") && (ends(tokens, "default") || ends(tokens, "local")) => {
            1 + usize::from(is(1, "local") || is(1, "session"))
        }
        _ => return None,
    };
    let name = match is(at, "time") && is(at + 1, "zone") {
        true => "timezone".to_owned(),
        false => setting(&tokens[at..])?.0,
    };
    Some(Reset::One(name.into()))
}

fn ends(tokens: &[Token<'_>], word: &str) -> bool {
    tokens.last().is_some_and(|token| token.is(word))
}

/// The text with other statements in the place of those that reset something, and what PostgreSQL says when each of
/// these is done, with its number. `make` gives what stands for one; `None`: it stays.
pub(crate) fn replaced(
    text: &[u8],
    standard: bool,
    mut make: impl FnMut(&Within<'_>) -> Option<Vec<u8>>,
) -> (Vec<u8>, Vec<(u32, &'static CStr)>) {
    let (mut out, mut tags) = (Vec::new(), Vec::new());
    let (mut copied, mut number, mut depth) = (0, 0, 0_usize);
    let mut statement = Vec::new();
    let mut tokens = Tokens::new(text, standard);
    loop {
        let token = tokens.next();
        match token {
            Some(token) if token.kind != Kind::Sign(b';') || depth > 0 => {
                match token.kind {
                    Kind::Sign(b'(') => depth += 1,
                    Kind::Sign(b')') => depth = depth.saturating_sub(1),
                    _ => {}
                }
                statement.push(token);
                continue;
            }
            _ => {}
        }
        if let (Some(first), Some(last)) = (statement.first(), statement.last()) {
            let (from, to) = (first.at, last.at + last.text.len());
            let within = within(&text[from..to], &statement);
            if let Some((tag, instead)) = within.and_then(|it| Some((it.tag, make(&it)?))) {
                out.extend_from_slice(&text[copied..from]);
                out.extend_from_slice(&instead);
                tags.push((number, tag));
                copied = to;
            }
            number += 1;
        }
        statement.clear();
        if token.is_none() {
            break;
        }
    }
    out.extend_from_slice(&text[copied..]);
    (out, tags)
}

fn within<'a>(text: &'a [u8], tokens: &[Token<'_>]) -> Option<Within<'a>> {
    let reset = of(tokens)?;
    let tag = match tokens.first()? {
        first if first.is("reset") => c"RESET",
        first if first.is("set") => c"SET",
        // It is refused where others stand beside it.
        _ => return None,
    };
    Some(Within {
        text,
        reset,
        is_local: tokens.get(1).is_some_and(|token| token.is("local")),
        tag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        let (out, tags) = replaced(text.as_bytes(), true, |it| {
            let what = match &it.reset {
                Reset::One(name) => name,
                Reset::All => "all",
            };
            let local = if it.is_local { " local" } else { "" };
            Some(format!("<{what}{local}>").into_bytes())
        });
        let tags: Vec<_> = tags
            .iter()
            .map(|(at, tag)| format!("{at} {tag:?}"))
            .collect();
        format!("{} {}", String::from_utf8_lossy(&out), tags.join(", "))
    }

    #[test]
    fn what_resets_something_is_found_among_others() {
        let many =
            "select ';'; RESET ALL ; set local time zone default;/*;*/set a.b to default; select 1";
        assert_eq!(
            check(many),
            "select ';'; <all> ; <timezone local>;/*;*/<a.b>; select 1 1 \"RESET\", 2 \"SET\", 3 \"SET\""
        );
        assert_eq!(check("set time zone local"), "<timezone> 0 \"SET\"");
        assert_eq!(check("reset \"TimeZone\""), "<timezone> 0 \"RESET\"");
        for other in ["set a = 'default'", "discard all", "show a; show b"] {
            assert_eq!(check(other), format!("{other} "));
        }
    }
}
