//! Peers whose machine is gone say no goodbye: the kernel asks after them.
//!
//! **Invariant:** no connection waits for ever for a peer that is not there: one that is silent is asked whether it is,
//! one that does not acknowledge what it was sent is given up.
//!
//! A peer that is there and does not read is none of this module's business.

use super::Stream;
use rustix::net::sockopt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How the kernel finds out that a peer by TCP is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Whether a silent peer is asked at all.
    pub on: bool,
    /// The silence before it is asked first.
    pub idle: Duration,
    /// Between two questions that it has not answered.
    pub interval: Duration,
    /// So many unanswered questions end the connection.
    pub count: u32,
    /// How long what was sent may stay unacknowledged, or unsent because the peer takes nothing; `None`: as long as
    /// the kernel tries, some 15 minutes, and as long as the peer likes.
    pub unacknowledged: Option<Duration>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            on: true,
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 3,
            unacknowledged: None,
        }
    }
}

impl Keepalive {
    /// So long a peer that does not answer is waited for; `None`: for as long as the kernel likes.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.on.then(|| self.idle + self.interval * self.count)
    }

    /// Tells the kernel. Where it can't be told, the connection is as good as one without, and works.
    pub(crate) fn watch(&self, stream: &Stream) {
        if let Some(tcp) = stream.tcp_socket()
            && let Err(error) = self.tell(tcp)
        {
            tracing::debug!(%error, "a peer can't be watched");
        }
    }

    fn tell(&self, tcp: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(limit) = self.unacknowledged {
            let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(tcp, millis)?;
        }
        if self.on {
            sockopt::set_tcp_keepidle(tcp, self.idle)?;
            sockopt::set_tcp_keepintvl(tcp, self.interval)?;
            sockopt::set_tcp_keepcnt(tcp, self.count)?;
            sockopt::set_socket_keepalive(tcp, true)?;
        }
        Ok(())
    }
}
