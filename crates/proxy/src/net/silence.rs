//! Servers whose machine is gone while something is on its way to them: nobody acknowledges it.
//!
//! **Invariant:** who is given up has acknowledged nothing for `limit`, though it was sent something and was sent it
//! again. A server that is long at work, or takes no more for now, acknowledges, and is waited for.
//!
//! The kernel's own limit for this, `TCP_USER_TIMEOUT`, would end connections to servers that are there and do not
//! read, as one whose COPY waits for a lock. Without it the kernel goes on trying for some 15 minutes.

use super::Closer;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// One packet that is lost twice is no machine that is gone.
const TRIES_MIN: u8 = 3;

/// Connections to servers that are looked at from time to time.
#[derive(Debug, Default)]
pub(crate) struct Vigil(Mutex<Vec<Watched>>);

#[derive(Debug)]
struct Watched {
    socket: Weak<Closer>,
    silence: Silence,
}

/// Since when a peer owes an acknowledgement and has not been heard.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
}

/// What the kernel knows of what was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Something is not acknowledged, be it the question whether the peer takes more.
    is_owed: bool,
    /// How often it was sent again, in vain.
    tries: u8,
    /// How long ago the peer was heard.
    heard: Duration,
}

impl Vigil {
    /// It is watched until its owner drops it.
    pub(crate) fn watch(&self, socket: &Arc<Closer>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched {
            socket: Arc::downgrade(socket),
            silence: Silence::default(),
        });
    }

    /// Shuts down the connections to whoever is gone; gives how many. `None`: nobody is.
    pub(crate) fn look(&self, now: Instant, limit: Option<Duration>) -> usize {
        let mut gone = 0;
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain_mut(|Watched { socket, silence }| {
            let Some(socket) = socket.upgrade() else {
                return false;
            };
            // One that is not made of TCP has no machine of its own.
            let Ok(sent) = sent(socket.as_fd()) else {
                return false;
            };
            let is_over = |lasts: Duration| limit.is_some_and(|limit| lasts >= limit);
            let is_gone = silence.goes_on(sent, now).is_some_and(is_over);
            if is_gone && sent.tries >= TRIES_MIN {
                socket.shut_down();
                gone += 1;
            }
            true
        });
        gone
    }
}

impl Silence {
    /// For how long by now; `None`: nothing is owed.
    fn goes_on(&mut self, sent: Sent, now: Instant) -> Option<Duration> {
        // What was heard before there was anything to acknowledge says nothing.
        let heard = now.checked_sub(sent.heard);
        let since = self.since.unwrap_or(now);
        let since = heard.map_or(since, |heard| heard.max(since));
        self.since = sent.is_owed.then_some(since);
        Some(now.saturating_duration_since(self.since?))
    }
}

#[allow(unsafe_code, reason = "TCP_INFO exists in libc only")]
fn sent(socket: BorrowedFd<'_>) -> io::Result<Sent> {
    // SAFETY: all of `tcp_info` is numbers, for which zeros are valid, and the kernel writes at most `length` bytes.
    let info = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let got = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        if got != 0 {
            return Err(io::Error::last_os_error());
        }
        info
    };
    let heard = info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv);
    Ok(Sent {
        is_owed: info.tcpi_unacked > 0 || info.tcpi_probes > 0,
        tries: info.tcpi_retransmits.max(info.tcpi_probes),
        heard: Duration::from_millis(heard.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Stream;
    use std::io::Write;

    const SECOND: Duration = Duration::from_secs(1);

    fn sent(is_owed: bool, heard: u32) -> Sent {
        Sent {
            is_owed,
            tries: 0,
            heard: heard * SECOND,
        }
    }

    #[test]
    fn a_silence_begins_when_something_is_owed_and_ends_with_a_word() {
        let begin = Instant::now() + 3_600 * SECOND;
        let mut silence = Silence::default();
        let mut at = |second: u32, sent| silence.goes_on(sent, begin + second * SECOND);
        // Idle for ten minutes, which nobody minds.
        assert_eq!(at(0, sent(false, 600)), None);
        assert_eq!(at(1, sent(true, 601)), Some(Duration::ZERO));
        assert_eq!(at(9, sent(true, 609)), Some(8 * SECOND));
        // It acknowledges, and is sent more.
        assert_eq!(at(10, sent(true, 1)), Some(SECOND));
        assert_eq!(at(20, sent(true, 11)), Some(11 * SECOND));
        assert_eq!(at(21, sent(false, 0)), None);
        assert_eq!(at(22, sent(true, 1)), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn a_peer_that_is_there_and_does_not_read_is_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (_peer, _) = listener.accept().unwrap();
        let ours = Stream::tcp(stream);
        let socket = Arc::new(ours.closer().unwrap());
        let Stream::Tcp(tcp) = ours else { return };
        // Until its kernel takes no more either.
        let mut std = tcp.into_std().unwrap();
        while std.write(&[0; 65_536]).is_ok() {}
        let vigil = Vigil::default();
        vigil.watch(&socket);
        for minute in 0..60 {
            let now = Instant::now() + minute * 60 * SECOND;
            assert_eq!(vigil.look(now, Some(10 * SECOND)), 0);
        }
        drop(socket);
        vigil.look(Instant::now(), None);
        assert!(vigil.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_tcp_is_not_watched() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let socket = Arc::new(Stream::Unix(ours).closer().unwrap());
        let vigil = Vigil::default();
        vigil.watch(&socket);
        assert_eq!(vigil.look(Instant::now(), Some(SECOND)), 0);
        assert!(vigil.0.lock().unwrap().is_empty());
    }
}
