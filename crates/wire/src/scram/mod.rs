//! SCRAM-SHA-256, both sides of it (RFC 5802, RFC 7677), as PostgreSQL speaks it.
//!
//! A proxy that verifies a client learns the client's key on the way, and can log in with it at
//! every server that has the same verifier, without ever knowing the password.
//!
//! **Invariant:** what a peer says about iterations is bounded by the caller before any are made,
//! and nothing that must stay secret is printed, or compared in a time that depends on it.
//!
//! It makes no nonces, and it takes passwords as bytes: SASLprep, which changes only what is beyond
//! ASCII, is the caller's.

mod base64;
mod client;
mod keys;
mod server;
mod text;

pub use client::{Answer, Challenge, Client};
pub use keys::{Keys, Verifier};
pub use server::{Accepted, Offer, Server};

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &std::ffi::CStr = c"SCRAM-SHA-256";
/// The mechanism with it.
pub const SCRAM_SHA_256_PLUS: &std::ffi::CStr = c"SCRAM-SHA-256-PLUS";

/// What a client has of channel binding: whether the exchange is bound to the TLS connection that
/// it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding<'a> {
    /// There is no TLS, or it cannot be bound to.
    Impossible,
    /// The client could, but the server has not offered it. An error if it has: then somebody
    /// between them has taken the offer away.
    NotOffered,
    /// The hash of the server's certificate (`tls-server-end-point`); only with
    /// [`SCRAM_SHA_256_PLUS`].
    EndPoint(&'a [u8]),
}

/// Why an exchange has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    #[error("SCRAM with {0} iterations is more work than allowed")]
    TooManyIterations(u32),
    #[error("SCRAM channel binding is not what was negotiated")]
    Binding,
    #[error("the server ended SCRAM with an error")]
    Refused,
    /// The password, the nonce or the signature of the other side is wrong.
    #[error("SCRAM proof is wrong")]
    WrongProof,
}

#[cfg(test)]
mod tests;
