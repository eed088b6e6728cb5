//! What lists within messages are made of.
//!
//! **Invariant:** no element is empty on the wire, so that a list of them ends.

use std::ffi::CStr;

/// One element of a [`crate::List`].
pub trait Element<'a>: Sized {
    /// The element that the bytes begin with, and what is behind it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])>;

    /// Writes the element behind what is there.
    fn append(&self, out: &mut Vec<u8>);
}

/// A format code.
impl<'a> Element<'a> for u16 {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (chunk, rest) = bytes.split_first_chunk()?;
        Some((Self::from_be_bytes(*chunk), rest))
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

/// An object identifier.
impl<'a> Element<'a> for u32 {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (chunk, rest) = bytes.split_first_chunk()?;
        Some((Self::from_be_bytes(*chunk), rest))
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

/// A name.
impl<'a> Element<'a> for &'a CStr {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let text = CStr::from_bytes_until_nul(bytes).ok()?;
        Some((text, &bytes[text.count_bytes() + 1..]))
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to_bytes_with_nul());
    }
}

/// A name and its value.
impl<'a> Element<'a> for (&'a CStr, &'a CStr) {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (name, rest) = <&CStr>::split(bytes)?;
        let (value, rest) = <&CStr>::split(rest)?;
        Some(((name, value), rest))
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.0.append(out);
        self.1.append(out);
    }
}

/// A value, or NULL.
impl<'a> Element<'a> for Option<&'a [u8]> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        match i32::from_be_bytes(*length) {
            -1 => Some((None, rest)),
            length => {
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                Some((Some(value), rest))
            }
        }
    }

    fn append(&self, out: &mut Vec<u8>) {
        crate::writer::value(out, *self);
    }
}
