//! Writing messages behind what a buffer already holds.
//!
//! **Invariant:** what cannot be read back as it was meant is not written at all, not even in part.

use crate::{Element, List};

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// It would be longer than a length word can say.
    #[error("a message with a body of {0} bytes is too long for the protocol")]
    TooLong(usize),
    /// A list would be longer than its count can say.
    #[error("a list of {0} is too long for the protocol")]
    TooMany(usize),
    /// An element of a list would be read as the end of the list.
    #[error("an empty name within a list")]
    EmptyName,
}

/// Writes `tag`, the length word and what `body` writes.
pub(crate) fn message(
    out: &mut Vec<u8>,
    tag: Option<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), Unwritable>,
) -> Result<(), Unwritable> {
    let begin = out.len();
    out.extend(tag);
    let word = out.len();
    out.extend_from_slice(&[0; 4]);
    let written = body(out).and_then(|()| {
        let length = out.len() - word;
        // A field that is too long for its own length word makes the whole too long as well.
        let counted = i32::try_from(length).map_err(|_| Unwritable::TooLong(length - 4))?;
        out[word..word + 4].copy_from_slice(&counted.to_be_bytes());
        Ok(())
    });
    if written.is_err() {
        out.truncate(begin);
    }
    written
}

/// A list with its length of two bytes before it.
pub(crate) fn counted<'a, T: Element<'a>>(
    out: &mut Vec<u8>,
    list: List<'a, T>,
) -> Result<(), Unwritable> {
    let count = u16::try_from(list.len()).map_err(|_| Unwritable::TooMany(list.len()))?;
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(list.bytes());
    Ok(())
}

/// A list with a zero byte behind it.
pub(crate) fn until_zero<'a, T: Element<'a>>(
    out: &mut Vec<u8>,
    list: List<'a, T>,
) -> Result<(), Unwritable> {
    let mut rest = list.bytes();
    while let Some(first) = rest.first() {
        if *first == 0 {
            return Err(Unwritable::EmptyName);
        }
        rest = T::split(rest).map_or(&[], |(_, rest)| rest);
    }
    out.extend_from_slice(list.bytes());
    out.push(0);
    Ok(())
}

/// A length and the bytes, or −1 for NULL.
pub(crate) fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let length = value.map_or(Ok(-1), |bytes| i32::try_from(bytes.len()));
    out.extend_from_slice(&length.unwrap_or(-1).to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

/// A string and the NUL that ends it.
pub(crate) fn text(out: &mut Vec<u8>, text: &std::ffi::CStr) {
    out.extend_from_slice(text.to_bytes_with_nul());
}
