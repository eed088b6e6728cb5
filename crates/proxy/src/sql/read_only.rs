//! Whether a text could let a session write whose transactions begin read-only.
//!
//! **Invariant:** "no" is said only of a text that has no word by which that is done, however it may be spelled.
//!
//! What a function does about the next transaction it does not see; the server reports that
//! (`default_transaction_read_only`). The one that it runs in, no function can make writable.
//!
//! It does not see functions of the user's that write what PostgreSQL lets read-only transactions write: large objects
//! before PostgreSQL 16, and what other servers have.

/// `READ WRITE`, `transaction_read_only`, and escapes, by which either can be spelled.
const PARTS: [&[u8]; 4] = [b"write", b"read_only", b"\\", b"u&"];
/// What they run may begin transactions of its own.
const WORDS: [&[u8]; 2] = [b"call", b"do"];
/// What begins so does something that lasts, or that others see, in a read-only transaction as well: large objects
/// before PostgreSQL 16, other servers, notifications, replication slots, and what reads from them.
const BEGINNINGS: [&[u8]; 11] = [
    b"lo_",
    b"lowrite",
    b"dblink",
    b"notify",
    b"pg_notify",
    b"pg_logical_",
    b"pg_replication_",
    b"pg_create_",
    b"pg_copy_",
    b"pg_drop_",
    b"program",
];

pub(crate) fn may_lift(text: &[u8]) -> bool {
    let has = |part: &[u8]| {
        let mut places = text.windows(part.len());
        places.any(|place| place.eq_ignore_ascii_case(part))
    };
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let mut words = text.split(|byte| !is_of_word(byte));
    let begins = |word: &[u8], with: &[u8]| {
        let beginning = word.get(..with.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
    };
    PARTS.into_iter().any(has)
        || words.any(|word| {
            WORDS.iter().any(|one| one.eq_ignore_ascii_case(word))
                || BEGINNINGS.iter().any(|one| begins(word, one))
        })
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
            "select lo_create(0)",
            "select \"lo_creat\"(-1)",
            "select pg_catalog.Lo_From_Bytea(0, $1)",
            "select LOWRITE(lo_open(1, 131072), $1)",
            "select lo_put(1, 0, $1), lo_truncate(1, 2), lo_unlink(3)",
            "select * from dblink('c', 'insert into t values (1)') as t(a text)",
            "select dblink_exec('c', 'vacuum')",
            "notify a",
            "select pg_notify('a', 'b')",
            "select * from pg_logical_slot_get_changes('s', null, null)",
            "copy t to program 'cat'",
        ] {
            assert!(may_lift(text.as_bytes()), "{text}");
        }
        for text in [
            "select f(x) from downloads where called = 1",
            "begin isolation level repeatable read",
            "commit",
            "select hello_lo, xlo_put from flow where lo = 1",
        ] {
            assert!(!may_lift(text.as_bytes()), "{text}");
        }
    }
}
