//! What most clients send most of the time, read at a glance: one SELECT, UPDATE or DELETE of words,
//! numbers, parameters and operators, without strings, parentheses and comments.
//!
//! **Invariant:** what is said of a text here is what its tokens say; about any other text nothing is said.

use super::Reading;
use super::acts::{Act, Acts};
use super::token::is_name;

/// Words that are constants are no longer.
const CONSTANT_MAX: usize = 5;

/// `None`: look closer.
pub(super) fn read(text: &[u8]) -> Option<Reading> {
    let (first, rest) = text.split_at_checked(6)?;
    let act = match () {
        () if first.eq_ignore_ascii_case(b"select") => Act::Query,
        () if first.eq_ignore_ascii_case(b"update") => Act::Work,
        () if first.eq_ignore_ascii_case(b"delete") => Act::Work,
        () => return None,
    };
    let words = longest_word(rest)?;
    // `SELECT 1` does nothing at all.
    if act == Act::Query && words <= CONSTANT_MAX {
        return None;
    }
    Some(Reading {
        statements: 1,
        acts: Acts::default().then(act),
        ..Reading::default()
    })
}

/// How long the longest word is behind the first; `None`: there is more than words and operators.
fn longest_word(rest: &[u8]) -> Option<usize> {
    // The first word ends here.
    if !matches!(rest.first()?, b' ' | b'\n' | b'\t') {
        return None;
    }
    let mut longest = 0;
    let mut at = 0;
    while let Some(&byte) = rest.get(at) {
        let next = || rest.get(at + 1).copied().unwrap_or(0);
        match byte {
            b' ' | b'\n' | b'\t' | b',' | b'.' | b'=' | b'<' | b'>' | b'*' | b'+' => at += 1,
            b'-' if next() != b'-' => at += 1,
            b'0'..=b'9' => {
                let more = rest[at..].iter();
                at += more.take_while(|byte| byte.is_ascii_digit()).count();
                // `1e5`, `0x1F`, `1_000`, and what begins right behind a number.
                if rest.get(at).is_some_and(|byte| is_name(*byte)) {
                    return None;
                }
            }
            b'$' if next().is_ascii_digit() => {
                let more = rest[at + 1..].iter();
                at += 1 + more.take_while(|byte| byte.is_ascii_digit()).count();
                if rest.get(at).is_some_and(|byte| is_name(*byte)) {
                    return None;
                }
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let length = rest[at..].iter().take_while(|byte| is_name(**byte)).count();
                if rest[at..at + length].eq_ignore_ascii_case(b"into") {
                    return None;
                }
                at += length;
                // `U&"…"`, where a string is none of ours already.
                if rest.get(at) == Some(&b'&') {
                    return None;
                }
                longest = longest.max(length);
            }
            b';' => {
                let mut behind = rest[at + 1..].iter();
                return behind
                    .all(|byte| matches!(byte, b' ' | b'\n' | b'\t'))
                    .then_some(longest);
            }
            _ => return None,
        }
    }
    Some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_everyday_is_read_at_a_glance() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 123;",
            "select * from t where account.id >= $1 and b <> -1",
            "UPDATE pgbench_tellers SET tbalance = tbalance + -5 WHERE tid = 3;",
            "delete\tfrom accounts\nwhere id = $12 ; ",
        ] {
            assert!(read(text.as_bytes()).is_some(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_glance_sees_what_the_tokens_say(
            first in prop::sample::select(vec!["select ", "SELECT\n", "Update ", "delete ", "select", "selects "]),
            parts in proptest::collection::vec(part(), 0..12),
            standard: bool,
        ) {
            let text = [first.as_bytes(), &parts.concat()].concat();
            if let Some(glance) = read(&text) {
                prop_assert_eq!(glance, Reading::of_tokens(&text, standard));
            }
        }
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            "select ",
            "SELECT",
            "update ",
            "delete from ",
            "insert ",
            "into",
            " INTO ",
            "null",
            " true",
            "from accounts",
            " ",
            "\n",
            ";",
            "; ",
            "1",
            "1e5",
            "0x1",
            "$1",
            "$a$",
            "$$",
            "$1$",
            "a$b",
            "é",
            "u&",
            "U&\"x\"",
            "E'a\\'b'",
            "'it''s'",
            "\"q\"\"\"",
            "--",
            "- -",
            "/*",
            "*/",
            "a/b",
            "(",
            ")",
            "set_config(",
            "now()",
            "temp ",
            ",",
            ".",
            "=",
            "<>",
            "with x as",
            "begin",
            "x",
            "e",
            "n'",
        ]);
        prop_oneof![
            8 => words.prop_map(|word| word.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 1..4),
        ]
    }
}
