//! TLS between members: it begins after the magic, and the handshake with the secret runs inside it.
//!
//! A certificate says who a machine is, the secret says that it belongs to the cluster.
//!
//! **Invariant:** with certificates, no byte of a peer counts before the peer has proved a certificate of the
//! authority; whoever dials has made sure that it names the host that was dialled.
//! It knows nothing of what is said then.

mod credentials;
mod denial;
mod rotation;
#[cfg(test)]
mod tests;

use super::frame::{Reader, Writer};
use super::handshake::HandshakeError;
use certs::TlsError;
use credentials::Credentials;
use rotation::Rotation;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ConnectionCommon};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) use denial::{Denial, denial, is_gibberish};

use crate::lock;

/// What both sides of a TLS connection know and nobody between them does.
pub(crate) type Binding = [u8; 32];

/// What the secret's handshake runs over.
pub(crate) struct Wire {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// Of TLS; a plain connection has none.
    pub(crate) binding: Option<Binding>,
}

/// The first byte of every TLS connection.
pub(crate) const FIRST_BYTE: u8 = 22;

/// How a member without certificates turns TLS away: a fatal alert with a number of the private range.
const NO_TLS: u8 = 224;

/// What is still read from a peer that was turned away.
const FAREWELL_BYTES_MAX: u64 = 32 << 10;

/// Where certificates are and what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// This node's certificate in PEM, with those between it and the authority, if any.
    pub certificate: PathBuf,
    /// Its private key in PEM, not encrypted.
    pub key: PathBuf,
    /// The certificates in PEM of which one must have signed every member's.
    pub authority: PathBuf,
    /// Under which others dial this node, so which its certificate must name; `None` for a process that only dials.
    pub host: Option<String>,
    /// Whether a peer without TLS is refused. `false` is for the time in which a cluster is given TLS.
    pub required: bool,
}

/// Certificates in force. Clones are the same; see [`Tls::reload`].
#[derive(Clone, Debug)]
pub struct Tls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: TlsOptions,
    current: Mutex<Arc<Credentials>>,
    rotation: Mutex<Rotation>,
    watched: AtomicBool,
}

impl Tls {
    /// Reads the files and makes sure that the others will accept what is in them. Blocks.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let rotation = Rotation::begin(&options);
        let credentials = Credentials::load(&options, rustls::pki_types::UnixTime::now())?;
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                current: Mutex::new(Arc::new(credentials)),
                rotation: Mutex::new(rotation),
                watched: AtomicBool::new(false),
            }),
        })
    }

    /// Reads the files again, changed or not. What is wrong with them leaves everything as it was.
    /// Connections that are open go on. Blocks.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.shared.reload()
    }

    /// When the certificate expires, in seconds since 1970; `None` where nobody can say.
    pub fn expires(&self) -> Option<u64> {
        self.credentials().ends_before(
            &self.shared.options,
            rustls::pki_types::UnixTime::since_unix_epoch(certs::pem::NEVER),
        )
    }

    /// Sees to it that changed files are read, for as long as this is in use. Must be called in a runtime.
    pub(crate) fn watch(&self) {
        if !self.shared.watched.swap(true, Ordering::Relaxed) {
            tokio::spawn(rotation::watch(Arc::downgrade(&self.shared)));
        }
    }

    pub(crate) fn is_required(&self) -> bool {
        self.shared.options.required
    }

    fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&lock(&self.shared.current))
    }

    /// The side that dialled `address`.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        address: &str,
    ) -> Result<Wire, HandshakeError> {
        let name = ServerName::try_from(host(address).to_owned())
            .map_err(|_| HandshakeError::Tls(Denial::NoName))?;
        let connector = TlsConnector::from(Arc::clone(&self.credentials().client));
        let stream = connector.connect(name, stream).await?;
        let binding = binding(stream.get_ref().1)?;
        Ok(wire(stream, Some(binding)))
    }

    /// The side that was dialled.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<Wire, HandshakeError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.credentials().server));
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let binding = binding(stream.get_ref().1)?;
                Ok(wire(stream, Some(binding)))
            }
            Err((error, stream)) => {
                see_off(stream).await;
                Err(error.into())
            }
        }
    }
}

/// A connection without TLS.
pub(crate) fn plain(stream: TcpStream) -> Wire {
    let (reader, writer) = stream.into_split();
    Wire {
        // A frame is read in parts: one call to the system for all of them.
        reader: Box::new(BufReader::new(reader)),
        writer: Box::new(writer),
        binding: None,
    }
}

/// Tells a peer that wants TLS that there is none here.
pub(crate) async fn turn_away(mut stream: TcpStream) {
    let alert = [21, 3, 3, 0, 2, 2, NO_TLS];
    if stream.write_all(&alert).await.is_ok() {
        see_off(stream).await;
    }
}

/// Lets a peer read what was said to it last: a socket that is closed over unread bytes takes it back.
pub(crate) async fn see_off(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(FAREWELL_BYTES_MAX);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

fn wire(stream: impl AsyncRead + AsyncWrite + Send + 'static, binding: Option<Binding>) -> Wire {
    let (reader, writer) = tokio::io::split(stream);
    Wire {
        reader: Box::new(reader),
        writer: Box::new(writer),
        binding,
    }
}

fn binding<D>(connection: &ConnectionCommon<D>) -> io::Result<Binding> {
    connection
        .export_keying_material([0; 32], b"EXPORTER-standfast-peer", None)
        .map_err(io::Error::other)
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}
