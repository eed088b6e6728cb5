//! SCRAM-SHA-256 verifiers, computed here so that no password appears in a statement.

use crate::error::PostgresError;
use crate::secret::Secret;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// PostgreSQL's own default.
const ITERATIONS: u32 = 4096;

/// The text that `ALTER ROLE … PASSWORD` stores as it is, with a fresh salt.
///
/// Passwords outside ASCII would need SASLprep here, which only the server has; they are refused.
pub(crate) fn verifier(password: &Secret) -> Result<String, PostgresError> {
    let why = "must not be empty and must be printable ASCII";
    let plain = password.expose();
    if plain.is_empty() || !plain.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(PostgresError::Option {
            what: "password",
            why,
        });
    }
    let salt: [u8; 16] = rand::random();
    Ok(verifier_with(plain.as_bytes(), &salt, ITERATIONS))
}

/// Whether a stored verifier is that of the password: then there is nothing to change.
pub(crate) fn matches(stored: &str, password: &Secret) -> bool {
    let parts = || {
        let rest = stored.strip_prefix("SCRAM-SHA-256$")?;
        let (iterations, rest) = rest.split_once(':')?;
        let salt = unbase64(rest.split_once('$')?.0)?;
        // What is stored is as good as what an administrator wrote: bound the work.
        let iterations = iterations
            .parse()
            .ok()
            .filter(|n| (1..=1_000_000).contains(n))?;
        Some((salt, iterations))
    };
    parts().is_some_and(|(salt, iterations)| {
        verifier_with(password.expose().as_bytes(), &salt, iterations) == stored
    })
}

fn verifier_with(password: &[u8], salt: &[u8], iterations: u32) -> String {
    let salted = salted_password(password, salt, iterations);
    let client_key = hmac(&salted, b"Client Key");
    let stored_key = Sha256::digest(client_key);
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        base64(salt),
        base64(&stored_key),
        base64(&server_key)
    )
}

/// PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut result = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        for (sum, byte) in result.iter_mut().zip(last) {
            *sum ^= byte;
        }
    }
    result
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(text);
            mac.finalize().into_bytes().into()
        }
        Err(_) => unreachable!("HMAC takes keys of every length"),
    }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let index = ALPHABET.iter().position(|known| *known == c)?;
        word = word << 6 | u32::try_from(index).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        let known = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, encoded) in known {
            assert_eq!(base64(plain.as_bytes()), encoded);
            assert_eq!(unbase64(encoded).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn the_server_key_is_that_of_rfc_7677() {
        // RFC 7677 §3: user "user", password "pencil"; its server signature follows from this key.
        let salt = [
            0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36,
            0xfa, 0x81,
        ];
        let auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                    r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let salted = salted_password(b"pencil", &salt, 4096);
        let signature = hmac(&hmac(&salted, b"Server Key"), auth.as_bytes());
        assert_eq!(
            base64(&signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn a_verifier_is_recognised() {
        let stored = verifier(&Secret::new("pencil")).unwrap();
        assert!(matches(&stored, &Secret::new("pencil")));
        assert!(!matches(&stored, &Secret::new("Pencil")));
        for bad in [
            "",
            "md5abc",
            "SCRAM-SHA-256$x:y$z",
            "SCRAM-SHA-256$99999999:AAAA$B:C",
        ] {
            assert!(!matches(bad, &Secret::new("pencil")), "{bad:?}");
        }
    }

    #[test]
    fn odd_passwords_are_refused() {
        for bad in ["", "pässword", "a\u{7f}"] {
            assert!(verifier(&Secret::new(bad)).is_err(), "{bad:?}");
        }
    }
}
