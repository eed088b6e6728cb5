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
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Takes the file away, unless it is somebody else's by then.
#[derive(Debug)]
pub(super) struct Remover {
    path: PathBuf,
    handed_over: Arc<AtomicBool>,
}

impl Drop for Remover {
    fn drop(&mut self) {
        if !self.handed_over.load(Ordering::Acquire) {
            // If somebody else did so before, it is as it should be.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket that another proxy listens on.
#[derive(Debug)]
pub(super) struct Found {
    at: Place,
    socket: OwnedFd,
}

impl Found {
    pub(super) fn of(socket: OwnedFd) -> Option<Self> {
        let tcp = std::net::TcpListener::from(socket);
        if let Ok(address) = tcp.local_addr() {
            let at = Place::Tcp(address);
            let socket = tcp.into();
            return Some(Self { at, socket });
        }
        let unix = std::os::unix::net::UnixListener::from(OwnedFd::from(tcp));
        let at = Place::Unix(unix.local_addr().ok()?.as_pathname()?.to_owned());
        let socket = unix.into();
        Some(Self { at, socket })
    }
}

/// Opens all of them that were not found at another proxy. Must be called in a runtime.
pub(super) fn open(
    options: &Options,
    mut found: Vec<Found>,
    handed_over: &Arc<AtomicBool>,
) -> Result<Vec<Listener>, StartError> {
    let write = options
        .listen
        .iter()
        .map(|address| (*address, Route::Write));
    let read = options.listen_read.iter();
    let read = read.map(|address| (*address, Route::Read));
    let tcp = write
        .chain(read)
        .map(|(at, route)| (Place::Tcp(at), 0, route));
    let unix = options.unix_sockets.iter();
    let unix = unix.map(|at| (Place::Unix(at.path.clone()), at.mode, Route::Write));
    let mut listeners = Vec::new();
    for (place, mode, route) in tcp.chain(unix) {
        let known = found.iter().position(|found| found.at == place);
        let known = known.map(|at| found.swap_remove(at).socket);
        let socket = socket(&place, mode, known, handed_over);
        let socket = socket.map_err(|source| StartError::Listen { place, source })?;
        listeners.push(Listener { socket, route });
    }
    Ok(listeners)
}

fn socket(
    place: &Place,
    mode: u32,
    known: Option<OwnedFd>,
    handed_over: &Arc<AtomicBool>,
) -> io::Result<Socket> {
    match place {
        Place::Tcp(address) => Ok(Socket::Tcp(match known {
            Some(known) => TcpListener::from_std(known.into())?,
            None => tcp(*address)?,
        })),
        Place::Unix(path) => {
            let listener = match known {
                Some(known) => UnixListener::from_std(known.into())?,
                None => unix(path)?,
            };
            let remover = Remover {
                path: path.clone(),
                handed_over: Arc::clone(handed_over),
            };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            Ok(Socket::Unix { listener, remover })
        }
    }
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

fn unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }
}

impl Listener {
    /// Another hand on it.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.as_fd().try_clone_to_owned(),
            Socket::Unix { listener, .. } => listener.as_fd().try_clone_to_owned(),
        }
    }

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
