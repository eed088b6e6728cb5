//! One connection, whatever it is made of.
//!
//! **Invariant:** what was written is on its way only after a flush: TLS keeps what the socket does
//! not take at once. A flush costs nothing where there is no TLS.
//!
//! It does not know messages.

use crate::tls::{ClientTls, EndPoint, PROTOCOL, end_point};
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// What bytes are read from and written to.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Early>>),
    /// It was handed over to a handshake that came to nothing.
    Gone,
}

/// A socket of which something was read already: that comes first.
#[derive(Debug)]
pub(crate) struct Early {
    bytes: Vec<u8>,
    tcp: TcpStream,
}

/// Another hand on the same connection, to end it while its owner waits.
#[derive(Debug)]
pub(crate) struct Closer(OwnedFd);

impl Closer {
    /// Both directions end at once; the peer sees it. What arrived before can still be read.
    pub(crate) fn shut_down(&self) {
        // A connection that is gone already needs no shutting down.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Closer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Without it an answer waits for the peer's acknowledgement. That it can't be set makes
        // the connection slower, not wrong.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(crate) fn closer(&self) -> io::Result<Closer> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let socket = self.socket().ok_or_else(gone)?;
        Ok(Closer(socket.try_clone_to_owned()?))
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Unix(unix) => Some(unix.as_fd()),
            _ => self.tcp_socket(),
        }
    }

    /// What it is made of, where that is TCP.
    pub(super) fn tcp_socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
            Self::Tls(tls) => Some(tls.get_ref().0.tcp.as_fd()),
            Self::Unix(_) | Self::Gone => None,
        }
    }

    /// Ends with these bytes, without a wait. They are sent if there is room for them: always, where nothing was sent
    /// before.
    pub(crate) fn end_with(self, bytes: &[u8]) {
        if let Some(socket) = self.socket() {
            // Who does not listen has not heard it.
            let _ = rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    /// Whether nobody on the way can read along.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// `None` for a Unix socket.
    pub(crate) fn peer_address(&self) -> Option<IpAddr> {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => &tls.get_ref().0.tcp,
            Self::Unix(_) | Self::Gone => return None,
        };
        // One that is gone already is from nowhere that any rule is about.
        let unspecified = IpAddr::from([0; 16]);
        let address = tcp.peer_addr().map(|address| address.ip().to_canonical());
        Some(address.unwrap_or(unspecified))
    }

    /// Whose the process at the other end of a Unix socket is.
    pub(crate) fn peer_uid(&self) -> Option<u32> {
        let Self::Unix(unix) = self else { return None };
        unix.peer_cred().ok().map(|of| of.uid())
    }

    /// The data by which SCRAM is bound to this connection, if it can be.
    pub(crate) fn server_end_point(&self) -> Option<EndPoint> {
        self.certificate().and_then(end_point)
    }

    /// The other side's own certificate, if it has shown one.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        let Self::Tls(tls) = self else { return None };
        let chain = tls.get_ref().1.peer_certificates()?;
        chain.first().map(AsRef::as_ref)
    }

    /// TLS begins, and we are the server. `early`: what was read of the handshake. `by_request`:
    /// the client has asked in clear; one that has not must name the protocol.
    pub(crate) async fn secure(
        &mut self,
        tls: &ClientTls,
        early: &[u8],
        by_request: bool,
    ) -> io::Result<()> {
        let odd = || io::Error::from(io::ErrorKind::InvalidInput);
        let config = tls.config.as_ref().ok_or_else(odd)?;
        let Self::Tcp(tcp) = std::mem::replace(self, Self::Gone) else {
            return Err(odd());
        };
        let bytes = early.to_vec();
        let acceptor = TlsAcceptor::from(std::sync::Arc::clone(config));
        let stream = acceptor.accept(Early { bytes, tcp }).await?;
        if !by_request && stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
            return Err(io::Error::other(
                "TLS without a request for it, and without ALPN",
            ));
        }
        *self = Self::Tls(Box::new(stream.into()));
        Ok(())
    }

    /// The same as the client.
    pub(super) async fn secure_as_client(
        &mut self,
        config: &std::sync::Arc<tokio_rustls::rustls::ClientConfig>,
        name: tokio_rustls::rustls::pki_types::ServerName<'static>,
    ) -> io::Result<()> {
        let Self::Tcp(tcp) = std::mem::replace(self, Self::Gone) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let bytes = Vec::new();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(config));
        let stream = connector.connect(name, Early { bytes, tcp }).await?;
        *self = Self::Tls(Box::new(stream.into()));
        Ok(())
    }

    /// 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            if let Some(read) = ready!(self.poll_heard(cx, room))? {
                return Poll::Ready(Ok(read));
            }
        }
    }

    /// Reads once, after [`Self::poll_readable`]. `None`: nothing has come after all, and the runtime knows so now.
    pub(super) fn poll_heard(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let mut taken = 0;
        let read = match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || read(&tcp, room, &mut taken)),
            Self::Unix(unix) => unix.try_io(Interest::READABLE, || read(&unix, room, &mut taken)),
            Self::Tls(tls) => {
                let mut room = ReadBuf::new(room);
                ready!(Pin::new(tls).poll_read(cx, &mut room))?;
                taken = room.filled().len();
                Ok(())
            }
            Self::Gone => Ok(()),
        };
        Poll::Ready(match read {
            Err(error) if taken == 0 => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error),
            },
            _ => Ok(Some(taken)),
        })
    }

    /// Ready when something has come, as far as the runtime has heard; always where that says nothing.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
            Self::Tls(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Whether nothing has come, the end included, as far as the runtime has heard. What it finds otherwise
    /// is lost.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut room = [0; 1];
        let read = match self {
            Self::Tcp(tcp) => tcp.try_read(&mut room),
            Self::Unix(unix) => unix.try_read(&mut room),
            Self::Tls(_) | Self::Gone => {
                let mut cx = Context::from_waker(Waker::noop());
                return self.poll_read(&mut cx, &mut room).is_pending();
            }
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// What is taken is not yet on its way; see [`Stream::poll_flush`].
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Mostly the socket takes it at once, and asking for a wait costs more than trying.
        let tried = match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Unix(unix) => unix.try_write(bytes),
            Self::Tls(tls) => return Pin::new(tls).poll_write(cx, bytes),
            Self::Gone => return Poll::Ready(Ok(0)),
        };
        match (tried, self) {
            (Err(error), Self::Tcp(tcp)) if error.kind() == io::ErrorKind::WouldBlock => {
                Pin::new(tcp).poll_write(cx, bytes)
            }
            (Err(error), Self::Unix(unix)) if error.kind() == io::ErrorKind::WouldBlock => {
                Pin::new(unix).poll_write(cx, bytes)
            }
            (tried, _) => Poll::Ready(tried),
        }
    }

    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Tcp(_) | Self::Unix(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Writes all of it, and sends it. Cancelled, a part may have been written: only for what no
    /// longer matters then.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says that nothing more comes: without it, TLS takes the end for a cut.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        let Self::Tls(tls) = self else { return Ok(()) };
        std::future::poll_fn(|cx| Pin::new(&mut *tls).poll_shutdown(cx)).await
    }
}

/// Reads once, without a wait. Where that was all there is, it says so to the runtime, which then need not try to know.
fn read(socket: impl AsFd, room: &mut [u8], taken: &mut usize) -> io::Result<()> {
    (*taken, _) = rustix::net::recv(socket, &mut *room, RecvFlags::empty())?;
    match (1..room.len()).contains(taken) {
        true => Err(io::ErrorKind::WouldBlock.into()),
        false => Ok(()),
    }
}

impl AsyncRead for Early {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, room);
        }
        let count = self.bytes.len().min(room.remaining());
        room.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
