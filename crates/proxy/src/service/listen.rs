//! Where clients come in.
//!
//! **Invariant:** a Unix socket of a proxy that lives is never taken away from it; one that a dead
//! proxy has left behind is.

use super::StartError;
use crate::net::Stream;
use crate::options::{Options, Route};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tokio::net::{TcpListener, UnixListener};

/// So many connections may wait to be accepted, if the kernel allows so many.
const WAITING_MAX: i32 = 4096;

/// A Unix socket for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    /// Where the file is; clients look for `.s.PGSQL.PORT`.
    pub path: PathBuf,
    /// The file's permissions.
    pub mode: u32,
}

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    /// What the clients want who come in here.
    pub(super) route: Route,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        #[expect(dead_code, reason = "its end takes the file away")]
        remover: Remover,
    },
}

/// Takes the file away.
#[derive(Debug)]
pub(super) struct Remover(PathBuf);

impl Drop for Remover {
    fn drop(&mut self) {
        // If somebody else did so before, it is as it should be.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens all of them. Must be called in a runtime.
pub(super) fn open(options: &Options) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    let write = options.listen.iter().map(|address| (address, Route::Write));
    let read = options
        .listen_read
        .iter()
        .map(|address| (address, Route::Read));
    for (address, route) in write.chain(read) {
        let listener = tcp(*address).map_err(|source| StartError::Listen {
            place: Place::Tcp(*address),
            source,
        })?;
        let socket = Socket::Tcp(listener);
        listeners.push(Listener { socket, route });
    }
    for socket in &options.unix_sockets {
        let listener = unix(socket).map_err(|source| StartError::Listen {
            place: Place::Unix(socket.path.clone()),
            source,
        })?;
        listeners.push(Listener {
            socket: listener,
            route: Route::Write,
        });
    }
    Ok(listeners)
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    // It sets SO_REUSEADDR, so that a restart does not wait for what its clients left behind.
    let listener = std::net::TcpListener::bind(address)?;
    // The standard library leaves room for 128 who have not been let in yet; the one after them
    // would believe that it is connected, and wait for a second or a minute.
    rustix::net::listen(&listener, WAITING_MAX)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn unix(socket: &UnixSocket) -> io::Result<Socket> {
    let path = &socket.path;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        bound => bound?,
    };
    let remover = Remover(path.clone());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(socket.mode))?;
    Ok(Socket::Unix { listener, remover })
}

impl Listener {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(tcp) => Ok(Stream::tcp(tcp.accept().await?.0)),
            Socket::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}
