//! One connection, whatever it is made of.
//!
//! It does not know messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What bytes are read from and written to.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "Unix sockets come with their listener")
    )]
    Unix(UnixStream),
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

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Without it an answer waits for the peer's acknowledgement. That it can't be set makes
        // the connection slower, not wrong.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(crate) fn closer(&self) -> io::Result<Closer> {
        let handle: BorrowedFd<'_> = match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        };
        Ok(Closer(handle.try_clone_to_owned()?))
    }

    /// 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        ready!(match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut room),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, &mut room),
        })?;
        Poll::Ready(Ok(room.filled().len()))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    /// Writes all of it. Cancelled, a part may have been written: only for what no longer matters
    /// then.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }
}
