//! The side that proves that it knows the password.
//!
//! **Invariant:** a server counts as known only after [`Answer::check`]: who does not know the
//! verifier cannot pass it.

use super::keys::{hash, hmac, xor};
use super::text::{Attributes, nonce};
use super::{Binding, Keys, ScramError, base64};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// An exchange whose first message is on its way.
#[derive(Debug)]
pub struct Client {
    nonce: String,
    /// What the server is told about channel binding, and the data themselves.
    binding: Vec<u8>,
    header_len: usize,
}

/// What the server has asked.
#[derive(Debug)]
pub struct Challenge {
    client: Client,
    server_first: Vec<u8>,
    nonce: Vec<u8>,
    salt: Vec<u8>,
    iterations: u32,
}

/// The proof, and what the server must prove in return.
pub struct Answer {
    /// The body of the SASLResponse.
    pub message: Vec<u8>,
    server_signature: [u8; 32],
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(hidden)")
    }
}

impl Client {
    /// Begins with a nonce of the caller: printable ASCII without commas, never used before.
    ///
    /// # Errors
    /// The nonce is something else.
    pub fn begin(binding: Binding<'_>, fresh_nonce: &str) -> Result<Self, ScramError> {
        nonce(fresh_nonce.as_bytes())?;
        let (header, data): (&[u8], &[u8]) = match binding {
            Binding::Impossible => (b"n,,", &[]),
            Binding::NotOffered => (b"y,,", &[]),
            Binding::EndPoint(hash) => (b"p=tls-server-end-point,,", hash),
        };
        Ok(Self {
            nonce: fresh_nonce.to_owned(),
            binding: [header, data].concat(),
            header_len: header.len(),
        })
    }

    /// The response in the SASLInitialResponse. PostgreSQL knows the user already.
    pub fn first(&self) -> Vec<u8> {
        let header = &self.binding[..self.header_len];
        [header, self.first_bare().as_bytes()].concat()
    }

    /// Reads what AuthenticationSASLContinue brought.
    ///
    /// # Errors
    /// It is no answer to our message, or wants more work than allowed.
    pub fn challenged(
        self,
        server_first: &[u8],
        iterations_max: u32,
    ) -> Result<Challenge, ScramError> {
        let mut attributes = Attributes::of(server_first);
        let both = nonce(attributes.next(b'r', "the nonce")?)?;
        let theirs = both.strip_prefix(self.nonce.as_bytes());
        if theirs.is_none_or(<[u8]>::is_empty) {
            return Err(ScramError::WrongProof);
        }
        let salt = attributes.next(b's', "the salt")?;
        let salt = base64::decode(salt).filter(|salt| !salt.is_empty());
        let salt = salt.ok_or(ScramError::Malformed("the salt"))?;
        let iterations = attributes.next(b'i', "the number of iterations")?;
        let digits = iterations.iter().all(u8::is_ascii_digit);
        let iterations = std::str::from_utf8(iterations).ok().filter(|_| digits);
        let iterations = iterations.and_then(|text| text.parse().ok());
        let iterations = iterations.filter(|count| *count > 0);
        let iterations = iterations.ok_or(ScramError::Malformed("the number of iterations"))?;
        if iterations > iterations_max {
            return Err(ScramError::TooManyIterations(iterations));
        }
        Ok(Challenge {
            nonce: both.to_vec(),
            salt,
            iterations,
            server_first: server_first.to_vec(),
            client: self,
        })
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }
}

impl Challenge {
    /// For [`Keys::derive`], unless the keys are known.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Proves that we know the keys.
    pub fn answer(&self, keys: &Keys) -> Answer {
        let bound = base64::encode(&self.client.binding);
        let mut message = format!("c={bound},r=").into_bytes();
        message.extend_from_slice(&self.nonce);
        let first_bare = self.client.first_bare();
        let exchange: [&[u8]; 5] = [
            first_bare.as_bytes(),
            b",",
            &self.server_first,
            b",",
            &message,
        ];
        let signature = hmac(&hash(&keys.client_key), &exchange);
        let server_signature = hmac(&keys.server_key, &exchange);
        let proof = base64::encode(&xor(keys.client_key, &signature));
        message.extend_from_slice(b",p=");
        message.extend_from_slice(proof.as_bytes());
        Answer {
            message,
            server_signature,
        }
    }
}

impl Answer {
    /// Reads what AuthenticationSASLFinal brought.
    ///
    /// # Errors
    /// The server does not know the verifier, or has refused us.
    pub fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        if server_final.starts_with(b"e=") {
            return Err(ScramError::Refused);
        }
        let signature = Attributes::of(server_final).next(b'v', "the signature")?;
        let signature = base64::decode(signature);
        let signature = signature.ok_or(ScramError::Malformed("the signature"))?;
        if bool::from(signature.ct_eq(&self.server_signature)) {
            Ok(())
        } else {
            Err(ScramError::WrongProof)
        }
    }
}
