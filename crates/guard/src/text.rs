//! Text on the stack, because the guard allocates nothing once it watches.
//!
//! **Invariant:** what doesn't fit is cut off, never a panic. It knows nothing of what it holds.

use std::fmt;

/// Up to `N` bytes of text.
#[derive(Debug)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self {
            bytes: [0; N],
            len: 0,
        };
        let _cut_off = fmt::write(&mut text, args);
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.as_bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(cut) => std::str::from_utf8(&bytes[..cut.valid_up_to()]).unwrap_or(""),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = N - self.len;
        let taken = more.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&more.as_bytes()[..taken]);
        self.len += taken;
        if taken < more.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}
