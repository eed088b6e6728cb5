//! Proving who is there: clients to us, and we to servers in their name.
//!
//! **Invariant:** no secret has a printable form, and whether a user exists cannot be told from how
//! the exchange goes.

mod client;
mod hba;
mod md5;
mod peer;
mod server;
mod talk;

pub(crate) use client::{Applicant, Gatekeeper, NotLetIn, Rules};
pub use hba::{BadRule, Hba};
pub(crate) use peer::Peer;
pub(crate) use server::{Answers, KeyCache, Login, LoginError, login};
pub(crate) use talk::{Broken, next_message};

use crate::users::Secret;
use rand::TryRngCore as _;
use std::fmt;
use wire::scram::Keys;

/// With what a client's server connections log in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Password(String),
    /// The hexadecimal digits of the MD5 of password and user name.
    Md5(String),
    /// What the client has shown by SCRAM.
    Keys(Keys),
    /// Only servers that ask for nothing let it in.
    Nothing,
}

impl Credential {
    /// What one can log in with who knows this. A verifier is only for those who verify.
    pub(crate) fn of(secret: &Secret) -> Self {
        match secret {
            Secret::Password(password) => Self::Password(password.clone()),
            Secret::Md5(stored) => Self::Md5(stored.clone()),
            Secret::Scram(_) => Self::Nothing,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Keys(_) => "Keys(..)",
            Self::Nothing => "Nothing",
        })
    }
}

/// The machine gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no random numbers are to be had")]
pub(crate) struct NoRandom;

/// Printable, and never used before.
fn nonce() -> Result<String, NoRandom> {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0; 24];
    random(&mut bytes)?;
    let sign = |byte: &u8| char::from(SIGNS[usize::from(byte & 63)]);
    Ok(bytes.iter().map(sign).collect())
}

fn random(bytes: &mut [u8]) -> Result<(), NoRandom> {
    rand::rngs::OsRng
        .try_fill_bytes(bytes)
        .map_err(|_| NoRandom)
}
