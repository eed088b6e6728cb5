//! Connecting to a server, with TLS where it is wanted.
//!
//! **Invariant:** where TLS is required nothing but the request for it is ever sent in clear, and
//! nothing that came in clear behind the answer is taken for what came encrypted.

use super::Stream;
use crate::tls::{ServerTls, SslMode};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use wire::startup::Packet;

/// Whether TLS is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guise {
    Plain,
    Secured,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("can't connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the server ended the connection before TLS began")]
    Ended(#[source] io::Error),
    #[error("the server has no TLS, which is required")]
    NoTls,
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("{0:?} is no name that a certificate could have")]
    Name(String),
    #[error("bytes behind the answer to the request for TLS")]
    BytesBehindAnswer,
}

impl DialError {
    /// Whether the same may work in a moment.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Ended(_))
    }
}

impl ServerTls {
    /// How a first attempt goes.
    pub(crate) fn guise(&self) -> Guise {
        match self.mode {
            SslMode::Disable | SslMode::Allow => Guise::Plain,
            _ => Guise::Secured,
        }
    }
}

/// Connects to HOST:PORT.
pub(crate) async fn dial(
    address: &str,
    tls: &ServerTls,
    guise: Guise,
) -> Result<Stream, DialError> {
    let failed = |source| DialError::Connect {
        address: address.to_owned(),
        source,
    };
    if address.starts_with('/') {
        let unix = tokio::net::UnixStream::connect(address).await;
        return unix.map(Stream::Unix).map_err(failed);
    }
    let mut tcp = TcpStream::connect(address).await.map_err(failed)?;
    let (Guise::Secured, Some(config)) = (guise, &tls.config) else {
        return Ok(Stream::tcp(tcp));
    };
    let mut request = Vec::new();
    let encoded = Packet::SslRequest.encode(&mut request);
    debug_assert!(encoded.is_ok(), "it has no parts");
    tcp.write_all(&request).await.map_err(DialError::Ended)?;
    // Byte by byte: what is behind the answer must be left where it is.
    let answer = tcp.read_u8().await.map_err(DialError::Ended)?;
    match answer {
        b'S' => {}
        b'N' if tls.mode.is_required() => return Err(DialError::NoTls),
        b'N' => return Ok(Stream::tcp(tcp)),
        // A server that can't even start a process for us says so in clear.
        b'E' => return Err(DialError::Ended(io::ErrorKind::ConnectionRefused.into())),
        _ => return Err(DialError::BytesBehindAnswer),
    }
    let host = host_of(address);
    let name = ServerName::try_from(host.to_owned());
    let name = match name {
        Ok(name) => name,
        Err(_) if tls.mode == SslMode::VerifyFull => return Err(DialError::Name(host.to_owned())),
        // It is looked at by nobody.
        Err(_) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    };
    let mut stream = Stream::tcp(tcp);
    let secured = stream.secure_as_client(config, name).await;
    secured.map_err(DialError::Handshake)?;
    Ok(stream)
}

/// The host of HOST:PORT, an IPv6 address without its brackets.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host)
}
