//! Where TLS goes: between the magic and the handshake.
//!
//! The handshake of [`super::auth`] runs inside it all the same: a certificate says who a machine is,
//! the secret says that it belongs to the cluster.

use super::frame::{Reader, Writer};
use std::io;
use std::path::PathBuf;
use tokio::net::TcpStream;

/// Certificates for the connections between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority that signed every member's certificate.
    pub authority: PathBuf,
}

impl Tls {
    #[allow(clippy::unused_async, reason = "the seam: a TLS handshake waits")]
    pub(crate) async fn connect(&self, _: TcpStream, _: &str) -> io::Result<(Reader, Writer)> {
        Err(unsupported())
    }

    #[allow(clippy::unused_async, reason = "the seam: a TLS handshake waits")]
    pub(crate) async fn accept(&self, _: TcpStream) -> io::Result<(Reader, Writer)> {
        Err(unsupported())
    }
}

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this build has no TLS between members",
    )
}
