//! A text whose DEALLOCATEs of some statements are replaced.
//!
//! **Invariant:** nothing else of the text is changed, nor how many statements it has.

use super::deed::{self, Deed};
use super::token::{Kind, Token, Tokens};

/// The text with `instead` in their places. `standard`: whether backslashes in plain strings are plain; `is_one`: whether
/// a statement of this name is one of them.
pub(crate) fn replaced(
    text: &[u8],
    standard: bool,
    instead: &[u8],
    is_one: impl Fn(&str) -> bool,
) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len() + instead.len());
    let mut from = 0;
    let mut tokens = Tokens::new(text, standard);
    let mut statement: Vec<Token<'_>> = Vec::new();
    loop {
        let token = tokens.next();
        if let Some(token) = token.filter(|token| token.kind != Kind::Sign(b';')) {
            statement.push(token);
            continue;
        }
        if let (Some(first), Some(last)) = (statement.first(), statement.last())
            && first.is("deallocate")
        {
            let end = last.at + last.text.len();
            let found = deed::of(&text[first.at..end], &statement);
            if let [Deed::Deallocate(name)] = &found.deeds[..]
                && is_one(name)
            {
                all.extend_from_slice(&text[from..first.at]);
                all.extend_from_slice(instead);
                from = end;
            }
        }
        statement.clear();
        if token.is_none() {
            break;
        }
    }
    all.extend_from_slice(&text[from..]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_replaced() {
        let check = |text: &str| {
            let all = replaced(text.as_bytes(), true, b"X", |name| name == "s1");
            String::from_utf8_lossy(&all).into_owned()
        };
        for (text, expected) in [
            ("deallocate s1", "X"),
            ("DEALLOCATE PREPARE \"s1\" ; select 2", "X ; select 2"),
            (
                "select 1;deallocate S1;deallocate s2",
                "select 1;X;deallocate s2",
            ),
            (
                "select ';deallocate s1;'; /* ; deallocate s1 */ -- ; deallocate s1",
                "",
            ),
            ("deallocate all; deallocate \"S1\"", ""),
            ("deallocate s1; deallocate s1;", "X; X;"),
        ] {
            let expected = if expected.is_empty() { text } else { expected };
            assert_eq!(check(text), expected);
        }
    }
}
