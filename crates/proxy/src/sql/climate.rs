//! What PostgreSQL reads a text by when it prepares it: settings that constants and names are understood by.
//!
//! **Invariant:** a statement that says in its text that it changes one of them is told of.
//!
//! It does not see what functions set.

use super::token::{Kind, Token};

/// By which a constant has another value, or a name is that of something else. In small letters, as they are recorded.
pub(crate) const CLIMATE: [&str; 13] = [
    "array_nulls",
    "backslash_quote",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "role",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// What else they are called, behind a SET, a RESET or a DISCARD.
const FORMS: [&str; 6] = ["all", "authorization", "names", "schema", "xml", "zone"];

/// Constants that stand for the moment at which they are read.
const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether the texts behind a statement may be read otherwise. `is_plain`: it calls nothing.
pub(super) fn changes(tokens: &[Token<'_>], is_plain: bool) -> bool {
    let Some(first) = tokens.first() else {
        return false;
    };
    if ["set", "reset", "discard"]
        .iter()
        .any(|word| first.is(word))
    {
        return tokens[1..].iter().any(is_named);
    }
    let calls = |(at, token): (usize, &Token<'_>)| {
        token.is_name()
            && token.text.len() >= "set_config".len()
            && token.name().as_deref() == Some("set_config")
            && tokens.get(at + 1).is_some_and(|next| next.is_sign(b'('))
            && tokens.get(at + 2).is_none_or(is_or_may_be)
    };
    !is_plain && tokens.iter().enumerate().any(calls)
}

fn is_named(token: &Token<'_>) -> bool {
    if !token.is_name() || token.kind == Kind::Unicode {
        return token.kind == Kind::Unicode;
    }
    let inner = match token.kind {
        Kind::Quoted => &token.text[1..token.text.len() - 1],
        _ => token.text,
    };
    let mut names = CLIMATE.iter().chain(&FORMS);
    names.any(|name| name.as_bytes().eq_ignore_ascii_case(inner))
}

/// Of the first argument of `set_config`.
fn is_or_may_be(token: &Token<'_>) -> bool {
    let is = |text: &[u8]| {
        let mut names = CLIMATE.iter();
        names.any(|name| name.as_bytes().eq_ignore_ascii_case(text))
    };
    token.string().is_none_or(|text| is(&text))
}

/// Whether it is a string with such a word.
pub(super) fn is_moment(token: &Token<'_>) -> bool {
    let mut words = token.text.split(|byte| !byte.is_ascii_alphanumeric());
    matches!(token.kind, Kind::Plain | Kind::Fancy)
        && words.any(|word| MOMENTS.iter().any(|one| one.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::super::Reading;
    use super::*;

    #[test]
    fn what_texts_are_read_by_is_seen_to_change() {
        assert!(CLIMATE.is_sorted());
        for (text, changes) in [
            ("set timezone = 'UTC'", true),
            ("SET LOCAL Search_Path TO a, b", true),
            ("set session \"DateStyle\" = 'ISO'", true),
            ("set time zone 'UTC'", true),
            ("set names 'latin1'", true),
            ("set schema 'a'", true),
            ("set xml option document", true),
            ("set role a", true),
            ("reset all", true),
            ("discard all", true),
            ("reset intervalstyle", true),
            ("select 1; set local timezone = 'UTC'", true),
            ("select set_config('search_path', $1, true)", true),
            (
                "select 1, pg_catalog.Set_Config('TimeZone', 'UTC', true)",
                true,
            ),
            ("select set_config($1, $2, true)", true),
            ("select set_config(a, b, true) from c", true),
            ("update pg_settings set setting = $1 where name = $2", true),
            ("set local app.tenant = '1'", false),
            ("set work_mem = '1MB'", false),
            ("select set_config('app.tenant', $1, true)", false),
            ("select set_config from t where timezone = 'UTC'", false),
            ("select 'set timezone = 1'", false),
            ("begin", false),
        ] {
            let reading = Reading::of(text.as_bytes(), true);
            assert_eq!(reading.changes_climate, changes, "{text}");
        }
    }

    #[test]
    fn what_stands_for_the_moment_is_seen() {
        for (text, is_of_moment) in [
            ("select 'now'::timestamptz", true),
            ("select timestamp ' TODAY '", true),
            ("select date E'tomorrow'", true),
            ("select '04:05 yesterday'::timestamp", true),
            ("select $$now$$::date", true),
            ("select now()", false),
            ("select today from t where a = 'nowhere'", false),
        ] {
            let reading = Reading::of(text.as_bytes(), true);
            assert_eq!(reading.is_of_moment, is_of_moment, "{text}");
        }
    }
}
