//! A new proxy takes the place of an old one: it gets the listening sockets, and the old one ends as
//! its transactions do.
//!
//! **Invariant:** at every moment somebody accepts: the old one goes on until the new one has said
//! that it is ready, and one that never says so is forgotten.
//!
//! The socket on which they meet is for processes of the same user, and of root. The connection
//! stays: requests to cancel whose key the new one does not know are passed on by it.

use super::listen::Found;
use super::{Ending, Handle};
use crate::session::Shared;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use wire::startup::{CANCEL_SECRET_BYTES_MAX, Packet};

/// More sockets than a proxy listens on.
const SOCKETS_MAX: usize = 64;
/// Length, code and process before the secret.
const PACKET_BYTES_MAX: usize = 12 + CANCEL_SECRET_BYTES_MAX;
/// With the sockets.
const HERE: u8 = b'H';
/// The same, while an administrator has paused the proxy: that goes over, too.
const PAUSED: u8 = b'P';
/// The new one is ready.
const READY: u8 = b'R';
/// For what is done at once by who is alive.
const LIMIT: Duration = Duration::from_secs(5);
/// For the new one to become ready.
const START: Duration = Duration::from_secs(60);

/// The old one's side.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) meeting: UnixListener,
    pub(super) sockets: Vec<OwnedFd>,
    /// Set before anything goes: files of sockets are somebody else's now.
    pub(super) handed_over: Arc<AtomicBool>,
}

/// What a new proxy gets.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) stream: UnixStream,
    pub(super) sockets: Vec<Found>,
    pub(super) is_paused: bool,
}

/// Asks the proxy that is there for its sockets. `None`: there is none.
pub(super) async fn ask(path: &Path) -> io::Result<Option<Given>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let receiving = stream.async_io(Interest::READABLE, || receive(stream.as_fd()));
    let sockets = tokio::time::timeout(LIMIT, receiving).await;
    let (sockets, is_paused) = sockets.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(Some(Given {
        stream,
        sockets: sockets.into_iter().filter_map(Found::of).collect(),
        is_paused,
    }))
}

/// The old one may go.
pub(super) async fn ready(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[READY]).await
}

/// Where a new proxy finds this one. Whatever lies there is somebody's who is gone, or has just
/// given us its sockets.
pub(super) fn meet(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Offer {
    /// Until this proxy ends by itself, or has handed over and its successor is gone.
    pub(super) async fn run(
        self,
        handle: Handle,
        shared: Arc<Shared>,
        mut ending: watch::Receiver<Ending>,
    ) {
        let mut stream = loop {
            let accepted = tokio::select! {
                accepted = self.meeting.accept() => accepted,
                _ = ending.wait_for(|ending| *ending != Ending::No) => return,
            };
            match self.hand_over(accepted, &shared).await {
                Ok(stream) => break stream,
                Err(error) => tracing::warn!(%error, "a successor did not take over"),
            }
        };
        tracing::info!("another proxy has taken over");
        self.handed_over.store(true, Ordering::Release);
        drop(self);
        handle.drain();
        while let Ok(packet) = next_packet(&mut stream).await {
            if let Ok(Packet::Cancel(request)) = Packet::parse(&packet[4..]) {
                // It was looked for elsewhere by who has passed it on.
                let _ = shared.cancel_here(&request).await;
            }
        }
    }

    async fn hand_over(
        &self,
        accepted: io::Result<(UnixStream, tokio::net::unix::SocketAddr)>,
        shared: &Shared,
    ) -> io::Result<UnixStream> {
        let (mut stream, _) = accepted?;
        let uid = stream.peer_cred()?.uid();
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let sockets: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        let word = match shared.pause.is_on() {
            true => PAUSED,
            false => HERE,
        };
        let sending = stream.async_io(Interest::WRITABLE, || send(stream.as_fd(), word, &sockets));
        let sent = tokio::time::timeout(LIMIT, sending).await;
        sent.map_err(|_| io::ErrorKind::TimedOut)??;
        let said = tokio::time::timeout(START, stream.read_u8()).await;
        match said.map_err(|_| io::ErrorKind::TimedOut)?? {
            READY => Ok(stream),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn send(to: BorrowedFd<'_>, word: u8, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets"));
    }
    sendmsg(
        to,
        &[IoSlice::new(&[word])],
        &mut message,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The sockets, and whether the proxy that has sent them is paused.
fn receive(from: BorrowedFd<'_>) -> io::Result<(Vec<OwnedFd>, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut message, flags)?;
    if received.bytes != 1 || ![HERE, PAUSED].contains(&byte[0]) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(these) = part {
            sockets.extend(these);
        }
    }
    Ok((sockets, byte == [PAUSED]))
}

/// A request to cancel, as it came.
async fn next_packet(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if !(4..=PACKET_BYTES_MAX).contains(&bytes) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut packet = vec![0; bytes];
    packet[..4].copy_from_slice(&length.to_be_bytes());
    stream.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}
