//! Statements behind which a setting is what it was when the session began.
//!
//! **Invariant:** none that says so in its text is missed. What functions reset is not seen here.

use super::set::setting;
use super::token::Token;

/// What one resets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The setting with this name, in small letters.
    One(Box<str>),
    All,
}

/// What a statement resets.
pub(super) fn of(tokens: &[Token<'_>]) -> Option<Reset> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
    let at = match tokens.first()? {
        first if first.is("discard") && is(1, "all") => return Some(Reset::All),
        first if first.is("reset") && is(1, "all") => return Some(Reset::All),
        first if first.is("reset") => 1,
        first if first.is("set") && (ends(tokens, "default") || is_local_zone(tokens)) => {
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

/// Of a time zone alone `local` is no value.
fn is_local_zone(tokens: &[Token<'_>]) -> bool {
    ends(tokens, "local") && tokens.iter().any(|token| token.is("zone"))
}

fn ends(tokens: &[Token<'_>], word: &str) -> bool {
    tokens.last().is_some_and(|token| token.is(word))
}

#[cfg(test)]
mod tests {
    use super::super::Reading;

    fn check(text: &str) -> String {
        let found = Reading::of(text.as_bytes(), true).resets;
        found.map_or_else(|| "-".to_owned(), |it| format!("{it:?}"))
    }

    #[test]
    fn what_resets_something_is_found_among_others() {
        assert_eq!(
            check("select ';'; reset \"TimeZone\"; select 1"),
            "One(\"timezone\")"
        );
        assert_eq!(check("set local time zone default"), "One(\"timezone\")");
        assert_eq!(check("set time zone local"), "One(\"timezone\")");
        assert_eq!(check("reset a; set A to default"), "One(\"a\")");
        assert_eq!(check("reset a; reset b"), "All");
        assert_eq!(check("RESET ALL ; select 1"), "All");
        assert_eq!(check("discard all"), "All");
        for other in ["set a = 'default'", "set a = local", "show a; show b"] {
            assert_eq!(check(other), "-");
        }
    }
}
