//! Whether a text could let a session write whose transactions begin read-only.
//!
//! **Invariant:** "no" is said only of a text that has no word by which that is done, however it may be spelled.
//!
//! What a function does about the next transaction it does not see; the server reports that
//! (`default_transaction_read_only`). The one that it runs in, no function can make writable.

/// `READ WRITE`, `transaction_read_only`, and escapes, by which either can be spelled.
const PARTS: [&[u8]; 4] = [b"write", b"read_only", b"\\", b"u&"];
/// What they run may begin transactions of its own.
const WORDS: [&[u8]; 2] = [b"call", b"do"];

pub(crate) fn may_lift(text: &[u8]) -> bool {
    let has = |part: &[u8]| {
        let mut places = text.windows(part.len());
        places.any(|place| place.eq_ignore_ascii_case(part))
    };
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let mut words = text.split(|byte| !is_of_word(byte));
    PARTS.into_iter().any(has)
        || words.any(|word| WORDS.iter().any(|one| one.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::may_lift;

    #[test]
    fn a_word_that_makes_writable_is_seen_in_any_spelling() {
        for text in [
            "BEGIN READ WRITE",
            "set session characteristics as transaction read Write",
            "set transaction_read_only = off",
            "SET DEFAULT_TRANSACTION_READ_ONLY TO default",
            "select set_config('default_transaction_read_only', 'off', false)",
            r#"set U&"transaction_read\005fonly" = off"#,
            r"select set_config(E'transaction_read\x5fonly', 'off', true)",
            "call p()",
            "/* */ Do $$ begin end $$",
        ] {
            assert!(may_lift(text.as_bytes()), "{text}");
        }
        for text in [
            "select f(x) from downloads where called = 1",
            "begin isolation level repeatable read",
            "commit",
        ] {
            assert!(!may_lift(text.as_bytes()), "{text}");
        }
    }
}
