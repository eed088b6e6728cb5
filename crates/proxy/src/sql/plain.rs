//! What most clients send most of the time, read at a glance: one SELECT, UPDATE or DELETE of words,
//! numbers, parameters and operators, without strings, parentheses and comments; one INSERT of such
//! values; or the one word that begins or ends a transaction.
//!
//! **Invariant:** what is said of a text here is what its tokens say; about any other text nothing is said.

use super::acts::{Act, Acts};
use super::calls::VIEW;
use super::token::is_name;

/// Words that are constants are no longer.
const CONSTANT_MAX: usize = 5;

/// The acts of its one statement, which does nothing else. `None`: look closer.
pub(super) fn read(text: &[u8]) -> Option<Acts> {
    let act = match one_word(text) {
        Some(act) => act,
        None => one_statement(text)?,
    };
    Some(Acts::default().then(act))
}

fn one_word(text: &[u8]) -> Option<Act> {
    let word = text.strip_suffix(b";").unwrap_or(text);
    let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    match () {
        () if is("begin") => Some(Act::Begin),
        () if is("commit") || is("end") => Some(Act::CommitPlain),
        () if is("rollback") => Some(Act::Rollback),
        () => None,
    }
}

fn one_statement(text: &[u8]) -> Option<Act> {
    let (first, rest) = text.split_at_checked(6)?;
    let act = match () {
        () if first.eq_ignore_ascii_case(b"select") => Act::Query,
        () if first.eq_ignore_ascii_case(b"update") => Act::Work,
        () if first.eq_ignore_ascii_case(b"delete") => Act::Work,
        () if first.eq_ignore_ascii_case(b"insert") => return insert(rest),
        () => return None,
    };
    let words = longest_word(rest)?;
    // `SELECT 1` does nothing at all.
    if act == Act::Query && words <= CONSTANT_MAX {
        return None;
    }
    Some(act)
}

/// How long the longest word is behind the first; `None`: there is more than words and operators.
fn longest_word(mut rest: &[u8]) -> Option<usize> {
    // The first word ends here.
    if !rest.first().is_some_and(is_blank) {
        return None;
    }
    let mut longest = 0;
    while let Some((byte, behind)) = rest.split_first() {
        rest = match byte {
            b' ' | b'\n' | b'\t' | b',' | b'.' | b'=' | b'<' | b'>' | b'*' | b'+' => behind,
            b'-' if behind.first() != Some(&b'-') => behind,
            b'0'..=b'9' => behind_number(behind)?,
            b'$' if behind.first().is_some_and(u8::is_ascii_digit) => behind_number(behind)?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let (word, behind) = rest.split_at(length(rest, is_name));
                // `U&"…"`, where a string is none of ours already.
                if word.eq_ignore_ascii_case(b"into")
                    || word.eq_ignore_ascii_case(VIEW.as_bytes())
                    || behind.first() == Some(&b'&')
                {
                    return None;
                }
                longest = longest.max(word.len());
                behind
            }
            b';' => {
                return behind.iter().all(is_blank).then_some(longest);
            }
            _ => return None,
        };
    }
    Some(longest)
}

/// `INTO name (names) VALUES (values)`.
fn insert(rest: &[u8]) -> Option<Act> {
    if !rest.first().is_some_and(is_blank) {
        return None;
    }
    let rest = behind_word(rest, b"into")?;
    if !rest.first().is_some_and(is_blank) {
        return None;
    }
    let (name, rest) = word(rest)?;
    if !is_harmless(name) {
        return None;
    }
    let rest = behind_list(rest)?;
    let rest = behind_list(behind_word(rest, b"values")?)?;
    let mut end = rest.strip_prefix(b";").unwrap_or(rest).iter();
    end.all(is_blank).then_some(Act::Work)
}

/// What is behind `(a, b)`.
fn behind_list(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = behind_blanks(rest).strip_prefix(b"(")?;
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = match byte {
            b')' => return Some(behind),
            b' ' | b'\n' | b'\t' | b',' | b'.' | b'+' => behind,
            b'-' if behind.first() != Some(&b'-') => behind,
            b'0'..=b'9' => behind_number(behind)?,
            b'$' if behind.first().is_some_and(u8::is_ascii_digit) => behind_number(behind)?,
            _ => {
                let (_, behind) = word(rest).filter(|(word, _)| is_harmless(word))?;
                behind
            }
        };
    }
}

/// Whether it is none of the words that mean more than themselves behind INTO, or before a parenthesis.
fn is_harmless(word: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        let beginning = word.get(..with.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
    };
    !begins(b"pg_")
        && !begins(b"set")
        && !begins(b"temp")
        && !begins(b"dblink")
        && !word.eq_ignore_ascii_case(b"into")
}

fn behind_word<'a>(rest: &'a [u8], expected: &[u8]) -> Option<&'a [u8]> {
    let (found, behind) = word(rest)?;
    found.eq_ignore_ascii_case(expected).then_some(behind)
}

/// The next one, and what is behind it.
fn word(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = behind_blanks(rest);
    let is_word = matches!(rest.first()?, b'a'..=b'z' | b'A'..=b'Z' | b'_');
    is_word.then(|| rest.split_at(length(rest, is_name)))
}

fn behind_blanks(rest: &[u8]) -> &[u8] {
    &rest[length(rest, |byte| is_blank(&byte))..]
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t')
}

/// What is behind the digits; `None`: `1e5`, `0x1F`, `1_000`, and what begins right behind a number, or behind its point.
fn behind_number(digits: &[u8]) -> Option<&[u8]> {
    let behind = &digits[length(digits, |byte| byte.is_ascii_digit() || byte == b'.')..];
    let goes_on = behind.first().is_some_and(|byte| is_name(*byte));
    (!goes_on).then_some(behind)
}

/// How many bytes at the beginning are of one kind.
fn length(bytes: &[u8], kind: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| !kind(*byte));
    end.unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Reading;
    use proptest::prelude::*;

    #[test]
    fn the_everyday_is_read_at_a_glance() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 123;",
            "select * from t where account.id >= $1 and b <> -1",
            "UPDATE pgbench_tellers SET tbalance = tbalance + -5 WHERE tid = 3;",
            "delete\tfrom accounts\nwhere id = $12 ; ",
            "BEGIN",
            "end;",
            "INSERT INTO pgbench_history (tid, bid, mtime) VALUES (3, -5, CURRENT_TIMESTAMP);",
            "insert into t(a) values($1,default) ",
        ] {
            assert!(read(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn what_begins_right_behind_a_number_is_looked_at_closer() {
        for text in ["select 1.select ", "select 1a", "select 1.5.abcdef"] {
            assert!(read(text.as_bytes()).is_none(), "{text}");
        }
        assert!(read(b"select column + 1.5").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_glance_sees_what_the_tokens_say(
            first in prop::sample::select(vec![
                "select ", "SELECT\n", "Update ", "delete ", "select", "selects ", "", "Begin", "commit", "END", "end;",
                "rollback",
            ]),
            parts in proptest::collection::vec(part(), 0..12),
            standard: bool,
        ) {
            let text = [first.as_bytes(), &parts.concat()].concat();
            if let Some(acts) = read(&text) {
                prop_assert_eq!(Reading::plain(acts), Reading::of_tokens(&text, standard));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_glance_at_an_insert_sees_what_its_tokens_say(
            begin in prop::sample::select(vec!["insert into ", "INSERT\tINTO\n", "insert  Into", "insert "]),
            name in name(),
            columns in proptest::collection::vec(name(), 0..4),
            values in prop::sample::select(vec![" values ", "VALUES", ") values (", " overriding ", " "]),
            items in proptest::collection::vec(prop_oneof![3 => name(), 1 => part()], 0..4),
            end in prop::sample::select(vec![")", ");", ") ;", "); ", ") returning a", "), (1)", ""]),
            standard: bool,
        ) {
            let columns = columns.join(&b", "[..]);
            let items = items.join(&b","[..]);
            let parts = [begin.as_bytes(), &name, b" (", &columns, b")", values.as_bytes(), b"(", &items, end.as_bytes()];
            let text = parts.concat();
            if let Some(acts) = read(&text) {
                prop_assert_eq!(Reading::plain(acts), Reading::of_tokens(&text, standard));
            }
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let names = prop::sample::select(vec![
            "t",
            "accounts",
            "a_b",
            "x1",
            "into",
            "temp",
            "TEMPORARY",
            "pg_temp",
            "pg_temp.t",
            "set_config",
            "setseed",
            "Dblink_Connect",
            "pg_advisory_lock",
            "now",
            "values",
            "current_timestamp",
            "null",
            "s.t",
            "select",
            "1",
            "-5",
            "$1",
            "$2",
            "default",
            "é",
            "nextval",
            "version",
            "unlogged",
        ]);
        names.prop_map(|name| name.as_bytes().to_vec())
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
            "pg_settings ",
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
