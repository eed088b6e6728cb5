//! The texts of an exchange: attributes with a letter each, in a fixed order.

use super::ScramError;

/// Reads attributes from the front.
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The value of the next attribute, which must be this one.
    pub(super) fn next(&mut self, letter: u8, what: &'static str) -> Result<&'a [u8], ScramError> {
        let value = match self.0 {
            [first, b'=', value @ ..] if *first == letter => value,
            _ => return Err(ScramError::Malformed(what)),
        };
        let comma = value.iter().position(|byte| *byte == b',');
        let (value, rest) = match comma {
            Some(at) => (&value[..at], &value[at + 1..]),
            None => (value, &[][..]),
        };
        self.0 = rest;
        Ok(value)
    }

    /// What was not read: extensions that nobody must understand.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// A nonce is printable, and neither empty nor with a comma.
pub(super) fn nonce(text: &[u8]) -> Result<&[u8], ScramError> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e) && *byte != b',';
    if text.is_empty() || !text.iter().all(printable) {
        return Err(ScramError::Malformed("the nonce"));
    }
    Ok(text)
}
