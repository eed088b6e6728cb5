//! Who may talk to whom: both sides prove that they know the cluster secret, then share keys.
//!
//! 1. client → server: the magic, its cluster's name, a nonce
//! 2. server → client: its own nonce
//! 3. client → server: HMAC(secret, "client" and both nonces and the name)
//! 4. server → client: HMAC(secret, "server" and the same)
//!
//! Each direction then has a key of its own made of the same parts, so that a frame can neither be
//! sent back nor moved to another connection. Inside TLS the proofs are bound to that one TLS connection: who holds
//! a certificate but not the secret cannot stand in the middle and pass them on.
//!
//! **Invariant:** the secret itself, or anything it could be read from, never leaves this module.
//! The client proves itself first: whoever merely knocks learns nothing to try secrets on.

use super::tls::Binding;
use crate::secret::{Secret, keyed};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The first four bytes of a peer connection; no HTTP request begins like this.
pub(crate) const MAGIC: [u8; 4] = *b"SFS1";

pub(crate) type Nonce = [u8; 32];
pub(crate) type Tag = [u8; 32];

/// What both sides have seen of the handshake.
#[derive(Debug)]
pub(crate) struct Transcript<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) client_nonce: Nonce,
    pub(crate) server_nonce: Nonce,
    /// Of the TLS connection around it, if there is one.
    pub(crate) binding: Option<Binding>,
}

impl Transcript<'_> {
    pub(crate) fn client_proof(&self, secret: &Secret) -> Tag {
        self.derive(secret, b"client proof")
    }

    pub(crate) fn server_proof(&self, secret: &Secret) -> Tag {
        self.derive(secret, b"server proof")
    }

    /// The keys of the two directions: client to server, server to client.
    pub(crate) fn keys(&self, secret: &Secret) -> (Key, Key) {
        let up = self.derive(secret, b"key to server");
        let down = self.derive(secret, b"key to client");
        (Key::new(up), Key::new(down))
    }

    fn derive(&self, secret: &Secret, purpose: &[u8]) -> Tag {
        let mut mac = secret.mac();
        // Lengths first, so that no two transcripts read the same.
        let parts = [
            purpose,
            self.cluster.as_bytes(),
            &self.client_nonce,
            &self.server_nonce,
        ];
        let binding = self.binding.as_ref().map(<[u8; 32]>::as_slice);
        for part in parts.into_iter().chain(binding) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Compares without telling by its duration where the difference is.
pub(crate) fn same(left: &Tag, right: &Tag) -> bool {
    left.ct_eq(right).into()
}

/// One direction's key with its frame counter.
#[derive(Clone)]
pub(crate) struct Key {
    mac: Hmac<Sha256>,
    next: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    fn new(bytes: Tag) -> Self {
        Self {
            mac: keyed(&bytes),
            next: 0,
        }
    }

    /// The tag of the next frame.
    pub(crate) fn tag(&mut self, payload: &[u8]) -> Tag {
        let mut mac = self.mac.clone();
        mac.update(&self.next.to_be_bytes());
        mac.update(payload);
        self.next += 1;
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).expect("long enough")
    }

    fn transcript(cluster: &str) -> Transcript<'_> {
        Transcript {
            cluster,
            client_nonce: [1; 32],
            server_nonce: [2; 32],
            binding: None,
        }
    }

    #[test]
    fn every_purpose_has_its_own_tag() {
        let (secret, seen) = (secret("a secret of the cluster"), transcript("main"));
        let (mut up, mut down) = seen.keys(&secret);
        let tags = [
            seen.client_proof(&secret),
            seen.server_proof(&secret),
            up.tag(b"x"),
            down.tag(b"x"),
            up.tag(b"x"),
        ];
        for (i, left) in tags.iter().enumerate() {
            for right in &tags[i + 1..] {
                assert!(!same(left, right));
            }
        }
    }

    #[test]
    fn a_proof_depends_on_secret_cluster_both_nonces_and_the_tls_connection() {
        let right = secret("a secret of the cluster");
        let proof = transcript("main").client_proof(&right);
        let other_nonce = Transcript {
            server_nonce: [3; 32],
            ..transcript("main")
        };
        let inside = |byte| Transcript {
            binding: Some([byte; 32]),
            ..transcript("main")
        };
        assert!(same(&proof, &transcript("main").client_proof(&right)));
        assert!(!same(&proof, &transcript("other").client_proof(&right)));
        assert!(!same(&proof, &other_nonce.client_proof(&right)));
        assert!(!same(&proof, &inside(1).client_proof(&right)));
        assert!(!same(
            &inside(1).client_proof(&right),
            &inside(2).client_proof(&right)
        ));
        assert!(!same(
            &proof,
            &transcript("main").client_proof(&secret("another secret of it"))
        ));
    }
}
