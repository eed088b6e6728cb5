//! What the service manager is told of a program that it has started with `Type=notify` or `notify-reload`: a datagram
//! to the socket that `NOTIFY_SOCKET` names (sd_notify(3)).
//!
//! **Invariant:** nothing waits for it and nothing fails by it; where there is no such socket nothing happens.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves; also what ends a reload.
    Ready,
    Reloading,
    Stopping,
}

pub(crate) fn tell(state: State) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::debug!(%error, ?state, "the service manager can't be told");
    }
}

fn send(socket: &OsStr, state: State) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let text = match state {
        State::Ready => "READY=1".to_owned(),
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()),
        State::Stopping => "STOPPING=1".to_owned(),
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

/// By which the manager tells an older reload from this one.
fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_path_or_an_abstract_name() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("notify");
        let name = format!("@standfast-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name[1..]).expect("an address");
        for (socket, listener) in [
            (path.as_os_str(), UnixDatagram::bind(&path)),
            (OsStr::new(&name), UnixDatagram::bind_addr(&abstract_name)),
        ] {
            let listener = listener.expect("bound");
            send(socket, State::Ready).expect("sent");
            let mut room = [0; 64];
            let count = listener.recv(&mut room).expect("received");
            assert_eq!(&room[..count], b"READY=1");
        }
        assert!(send(OsStr::new("/nowhere/at/all"), State::Stopping).is_err());
    }
}
