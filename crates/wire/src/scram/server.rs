//! The side that verifies.
//!
//! **Invariant:** whether a user is unknown or a password wrong, the exchange goes the same way to
//! its last message: for an unknown user the caller makes up a verifier.

use super::keys::{hash, hmac, xor};
use super::text::{Attributes, nonce};
use super::{Keys, ScramError, Verifier, base64};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// What became of channel binding on the server's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer<'a> {
    /// The mechanism with it was not offered.
    Plain,
    /// It was offered, and the client has chosen the one without.
    Declined,
    /// It was chosen; the hash of our certificate (`tls-server-end-point`).
    Chosen(&'a [u8]),
}

/// An exchange whose challenge is on its way.
pub struct Server {
    verifier: Verifier,
    /// Both first messages, as they are signed.
    exchange: Vec<u8>,
    nonce: Vec<u8>,
    /// What the client must repeat.
    binding: Vec<u8>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server(hidden)")
    }
}

/// A client that knows the password.
#[derive(Debug)]
pub struct Accepted {
    /// The data of AuthenticationSASLFinal.
    pub message: Vec<u8>,
    /// With them one can log in as this user wherever the verifier is the same.
    pub keys: Keys,
}

impl Server {
    /// Reads the client's first message, and makes the data of AuthenticationSASLContinue.
    ///
    /// `fresh_nonce` is printable ASCII without commas, never used before.
    ///
    /// # Errors
    /// The message is none, or its channel binding does not fit.
    pub fn begin(
        client_first: &[u8],
        offer: Offer<'_>,
        verifier: Verifier,
        fresh_nonce: &str,
    ) -> Result<(Vec<u8>, Self), ScramError> {
        nonce(fresh_nonce.as_bytes())?;
        let header_len = header_len(client_first)?;
        let (header, bare) = client_first.split_at(header_len);
        let data = match (header, offer) {
            (b"n,,", Offer::Plain | Offer::Declined) | (b"y,,", Offer::Plain) => &[][..],
            (b"p=tls-server-end-point,,", Offer::Chosen(hash)) => hash,
            _ => return Err(ScramError::Binding),
        };
        let mut attributes = Attributes::of(bare);
        attributes.next(b'n', "the name")?;
        let theirs = nonce(attributes.next(b'r', "the nonce")?)?;
        let nonce = [theirs, fresh_nonce.as_bytes()].concat();
        let salt = base64::encode(&verifier.salt);
        let rest = format!(",s={salt},i={}", verifier.iterations);
        let server_first = [b"r=", &nonce[..], rest.as_bytes()].concat();
        let server = Self {
            verifier,
            exchange: [bare, b",", &server_first, b","].concat(),
            nonce,
            binding: [header, data].concat(),
        };
        Ok((server_first, server))
    }

    /// Reads the client's last message.
    ///
    /// # Errors
    /// It is none, or the client does not know the password.
    pub fn finish(&self, client_final: &[u8]) -> Result<Accepted, ScramError> {
        let proof_at = client_final.windows(3).rposition(|it| it == b",p=");
        let proof_at = proof_at.ok_or(ScramError::Malformed("the proof"))?;
        let (unproven, proof) = client_final.split_at(proof_at);
        let mut attributes = Attributes::of(unproven);
        let bound = attributes.next(b'c', "the channel binding")?;
        if base64::decode(bound).as_ref() != Some(&self.binding) {
            return Err(ScramError::Binding);
        }
        if attributes.next(b'r', "the nonce")? != self.nonce {
            return Err(ScramError::WrongProof);
        }
        // A mandatory extension would have to be understood; the others are signed like the rest.
        if attributes.rest().starts_with(b"m=") {
            return Err(ScramError::Malformed("an extension"));
        }
        let proof = base64::decode(&proof[3..]).and_then(|proof| proof.try_into().ok());
        let proof = proof.ok_or(ScramError::Malformed("the proof"))?;
        let signed: [&[u8]; 2] = [&self.exchange, unproven];
        let signature = hmac(&self.verifier.stored_key, &signed);
        let client_key = xor(proof, &signature);
        if !bool::from(hash(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::WrongProof);
        }
        let server_key = self.verifier.server_key;
        let ours = base64::encode(&hmac(&server_key, &signed));
        Ok(Accepted {
            message: format!("v={ours}").into_bytes(),
            keys: Keys {
                client_key,
                server_key,
            },
        })
    }
}

/// How long the part before the first attributes is: a word on channel binding, and no other
/// identity to act as, which PostgreSQL does not have.
fn header_len(message: &[u8]) -> Result<usize, ScramError> {
    let malformed = ScramError::Malformed("the header");
    let comma = message.iter().position(|byte| *byte == b',');
    let comma = comma.ok_or(malformed)?;
    if message.get(comma + 1) != Some(&b',') {
        return Err(malformed);
    }
    Ok(comma + 2)
}
