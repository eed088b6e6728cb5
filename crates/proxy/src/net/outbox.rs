//! Bytes of our own making on their way to a connection.

use super::Stream;
use std::io;
use std::task::{Context, Poll, ready};

/// Empty most of the time, and then without an allocation.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Where messages are written.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What is still to be sent.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.forget();
        }
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Sends all of it.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(stream.poll_write(cx, self.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(written);
        }
        stream.poll_flush(cx)
    }

    /// Sends all of it. What was sent when this is cancelled is no longer in it.
    pub(crate) async fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx, stream)).await
    }
}
