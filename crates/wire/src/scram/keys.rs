//! The keys that a password stands for, and what a server stores of them.

use super::{ScramError, base64};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;

pub(super) type Key = [u8; 32];

/// With these one can log in, and recognise the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub client_key: [u8; 32],
    pub server_key: [u8; 32],
}

/// What a server stores of a password: with it one can recognise the client, but not log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl Keys {
    /// Takes as long as `iterations` say: some milliseconds for thousands.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mac = mac(password);
        let mut last = finish(mac.clone(), &[salt, &1_u32.to_be_bytes()]);
        let mut salted = last;
        for _ in 1..iterations {
            last = finish(mac.clone(), &[&last]);
            for (sum, byte) in salted.iter_mut().zip(last) {
                *sum ^= byte;
            }
        }
        Self {
            client_key: hmac(&salted, &[b"Client Key"]),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }
}

impl Verifier {
    /// What a server would store of these keys.
    pub fn of(keys: &Keys, salt: Vec<u8>, iterations: u32) -> Self {
        Self {
            iterations,
            salt,
            stored_key: hash(&keys.client_key),
            server_key: keys.server_key,
        }
    }

    /// Reads `SCRAM-SHA-256$iterations:salt$stored key:server key`, as in `pg_authid`.
    ///
    /// # Errors
    /// It is something else, such as an MD5 hash.
    pub fn parse(text: &str) -> Result<Self, ScramError> {
        let parts = || {
            let rest = text.strip_prefix("SCRAM-SHA-256$")?;
            let (iterations, rest) = rest.split_once(':')?;
            let (salt, rest) = rest.split_once('$')?;
            let (stored_key, server_key) = rest.split_once(':')?;
            Some(Self {
                iterations: iterations.parse().ok().filter(|count| *count > 0)?,
                salt: base64::decode(salt.as_bytes())?,
                stored_key: base64::decode(stored_key.as_bytes())?.try_into().ok()?,
                server_key: base64::decode(server_key.as_bytes())?.try_into().ok()?,
            })
        };
        parts().ok_or(ScramError::Malformed("the verifier"))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(hidden)")
    }
}

pub(super) fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

pub(super) fn hmac(key: &[u8], texts: &[&[u8]]) -> Key {
    finish(mac(key), texts)
}

pub(super) fn xor(mut one: Key, other: &Key) -> Key {
    for (byte, other) in one.iter_mut().zip(other) {
        *byte ^= other;
    }
    one
}

/// A key that is longer than a block stands for its hash; the rest of the block is zero.
fn mac(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    if let Some(begin) = block.get_mut(..key.len()) {
        begin.copy_from_slice(key);
    } else {
        block[..32].copy_from_slice(&hash(key));
    }
    <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into())
}

fn finish(mut mac: Hmac<Sha256>, texts: &[&[u8]]) -> Key {
    for text in texts {
        mac.update(text);
    }
    mac.finalize().into_bytes().into()
}
