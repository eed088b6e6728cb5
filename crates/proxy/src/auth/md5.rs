//! Passwords as PostgreSQL knew them before SCRAM.

use md5::{Digest as _, Md5};
use std::fmt::Write as _;

/// What a server stores, without the `md5` before it.
pub(super) fn stored(password: &str, user: &str) -> String {
    hex(&[password.as_bytes(), user.as_bytes()])
}

/// What a client answers to a salt.
pub(super) fn answer(stored: &str, salt: [u8; 4]) -> String {
    format!("md5{}", hex(&[stored.as_bytes(), &salt]))
}

fn hex(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    let mut text = String::with_capacity(32);
    for byte in digest.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_postgres_stores() {
        // select md5('pencil' || 'bob')
        assert_eq!(stored("pencil", "bob").len(), 32);
        assert_eq!(stored("", ""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(answer("", [0; 4]), "md5f1d3ff8443297732862df21dc4e57262");
    }
}
