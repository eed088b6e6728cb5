//! What was read from a connection and has not been passed on.
//!
//! The room is three stretches: *cleared* bytes that were looked at and may be passed on, *unread*
//! ones that were not looked at, and free ones.
//!
//! **Invariant:** bytes are passed on in the order in which they came, and only after they were
//! looked at.
//!
//! **Invariant:** an inbox without bytes has no room of its own: it takes one from its thread's
//! stock when the connection has something to say, and gives it back when all is passed on.

use super::{CHUNK_BYTES, Stream};
use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

/// How many rooms a thread keeps.
const STOCK: usize = 64;

thread_local! {
    static ROOMS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    room: Vec<u8>,
    cleared: usize,
    unread: usize,
    end: usize,
    /// Unread bytes that must be there together before any of them can be understood.
    wanted: usize,
}

impl Inbox {
    /// What was looked at and waits to be passed on.
    pub(crate) fn cleared(&self) -> &[u8] {
        &self.room[self.cleared..self.unread]
    }

    pub(crate) fn has_cleared(&self) -> bool {
        self.cleared < self.unread
    }

    /// What was not looked at.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.room[self.unread..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cleared == self.end
    }

    /// The next `count` unread bytes may be passed on.
    #[inline]
    pub(crate) fn clear(&mut self, count: usize) {
        self.wanted = 0;
        self.unread = (self.unread + count).min(self.end);
    }

    /// The next `count` unread bytes go no further. The caller has seen to it that nothing cleared
    /// is before them.
    pub(crate) fn drop_unread(&mut self, count: usize) {
        debug_assert!(self.cleared().is_empty(), "the order would be lost");
        self.clear(count);
        self.pass_cleared();
    }

    /// The first `count` cleared bytes were passed on.
    pub(crate) fn passed(&mut self, count: usize) {
        self.cleared = (self.cleared + count).min(self.unread);
        if self.is_empty() {
            self.give_back();
        }
    }

    /// Everything cleared was passed on, or is to be forgotten.
    pub(crate) fn pass_cleared(&mut self) {
        let count = self.unread - self.cleared;
        self.passed(count);
    }

    /// At least `count` unread bytes are needed together.
    pub(crate) fn want(&mut self, count: usize) {
        self.wanted = count;
    }

    /// Whether there may be something in the unread bytes that was not understood yet.
    pub(crate) fn is_worth_reading(&self) -> bool {
        let unread = self.end - self.unread;
        unread > 0 && unread >= self.wanted
    }

    /// Whether more would be read now: not before everything that can be passed on was.
    pub(crate) fn has_room(&self) -> bool {
        self.cleared == self.unread && !self.is_worth_reading()
    }

    /// These come before everything that was not looked at, as if they had just been read. Nothing may be cleared.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        debug_assert!(self.cleared().is_empty(), "the order would be lost");
        let room = [bytes, self.unread()].concat();
        self.forget();
        self.end = room.len();
        self.room = room;
    }

    /// Everything goes.
    pub(crate) fn forget(&mut self) {
        self.cleared = self.end;
        self.unread = self.end;
        self.wanted = 0;
        self.give_back();
    }

    /// Reads once. 0 is the end.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        if self.room.is_empty() && self.wanted <= CHUNK_BYTES {
            return self.poll_begin(cx, stream);
        }
        self.make_room();
        let read = stream.poll_read(cx, &mut self.room[self.end..]);
        if let Poll::Ready(Ok(count)) = &read {
            self.end += count;
        }
        if self.is_empty() {
            self.give_back();
        }
        read
    }

    /// Reads once into a room of the stock, and keeps it only if something came. Mostly nothing has come yet.
    fn poll_begin(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        loop {
            ready!(stream.poll_readable(cx))?;
            let mut room = room();
            let read = stream.poll_heard(cx, &mut room);
            if let Poll::Ready(Ok(Some(count @ 1..))) = read {
                self.room = room;
                (self.cleared, self.unread, self.end) = (0, 0, count);
                return Poll::Ready(Ok(count));
            }
            keep(room);
            if let Some(end) = ready!(read)? {
                return Poll::Ready(Ok(end));
            }
        }
    }

    /// Reads once.
    pub(crate) async fn fill(&mut self, stream: &mut Stream) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx, stream)).await
    }

    fn make_room(&mut self) {
        if self.room.is_empty() {
            self.room = room();
        }
        let held = self.end - self.cleared;
        let needed = (self.unread - self.cleared) + self.wanted.max(1);
        if self.cleared > 0
            && (self.end == self.room.len() || needed > self.room.len() - self.cleared)
        {
            self.room.copy_within(self.cleared..self.end, 0);
            self.unread -= self.cleared;
            self.end = held;
            self.cleared = 0;
        }
        if needed.max(held + 1) > self.room.len() {
            self.room
                .resize(needed.max(held + 1).next_multiple_of(CHUNK_BYTES), 0);
        }
    }

    fn give_back(&mut self) {
        (self.cleared, self.unread, self.end) = (0, 0, 0);
        keep(std::mem::take(&mut self.room));
    }
}

/// One of the thread's stock, or a new one.
fn room() -> Vec<u8> {
    let kept = ROOMS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| vec![0; CHUNK_BYTES])
}

/// Back into the stock.
fn keep(room: Vec<u8>) {
    if room.len() == CHUNK_BYTES {
        ROOMS.with_borrow_mut(|rooms| {
            if rooms.len() < STOCK {
                rooms.push(room);
            }
        });
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if !self.room.is_empty() {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn filled(inbox: &mut Inbox, text: &[u8]) {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
        theirs.write_all(text).unwrap();
        drop(theirs);
        while inbox.fill(&mut stream).await.unwrap() > 0 {}
    }

    #[tokio::test]
    async fn bytes_are_passed_on_only_after_they_were_cleared() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.room.len(), 0);
        filled(&mut inbox, b"abcdef").await;
        assert_eq!(
            (inbox.cleared(), inbox.unread()),
            (&b""[..], &b"abcdef"[..])
        );
        inbox.clear(2);
        assert_eq!(
            (inbox.cleared(), inbox.unread()),
            (&b"ab"[..], &b"cdef"[..])
        );
        inbox.passed(2);
        inbox.drop_unread(1);
        assert_eq!((inbox.cleared(), inbox.unread()), (&b""[..], &b"def"[..]));
        inbox.clear(3);
        inbox.passed(3);
        assert_eq!(inbox.room.len(), 0);
    }

    #[tokio::test]
    async fn what_is_put_back_comes_first() {
        let mut inbox = Inbox::default();
        filled(&mut inbox, b"cdef").await;
        inbox.put_back(b"ab");
        filled(&mut inbox, b"gh").await;
        assert_eq!(inbox.unread(), b"abcdefgh");
        inbox.clear(8);
        inbox.passed(8);
        inbox.put_back(b"x");
        assert_eq!(inbox.unread(), b"x");
    }

    #[tokio::test]
    async fn what_must_stand_together_gets_the_room() {
        let mut inbox = Inbox::default();
        inbox.want(40_000);
        filled(&mut inbox, &vec![b'x'; 39_999]).await;
        assert!(!inbox.is_worth_reading());
        filled(&mut inbox, b"y").await;
        assert!(inbox.is_worth_reading());
        assert_eq!(inbox.unread().len(), 40_000);
    }
}
