//! Reading the fields of one message body, and what can be wrong with them.
//!
//! **Invariant:** nothing is read beyond the end, and a message that is longer than its fields is
//! as wrong as one that is shorter.

use std::ffi::CStr;

/// A body that is not what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message}: {flaw}")]
pub struct Malformed {
    /// The name of the message in PostgreSQL's documentation.
    pub message: &'static str,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A field is cut off, or a string has no end.
    #[error("it ends within a field")]
    EndsEarly,
    /// Something stands behind the last field.
    #[error("it goes on after its last field")]
    GoesOn,
    /// A field has a value that means nothing.
    #[error("{0} has no meaning")]
    Value(&'static str),
    /// The message is in parts, see [`crate::Limits::held_bytes_max`].
    #[error("it is too long to be read in one piece")]
    InParts,
}

/// A place in a body.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self {
            rest: body,
            message,
        }
    }

    pub(crate) fn flaw(&self, flaw: Flaw) -> Malformed {
        Malformed {
            message: self.message,
            flaw,
        }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.flaw(Flaw::EndsEarly));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.flaw(Flaw::EndsEarly));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// A string with the NUL that ends it.
    pub(crate) fn text(&mut self) -> Result<&'a CStr, Malformed> {
        let Ok(text) = CStr::from_bytes_until_nul(self.rest) else {
            return Err(self.flaw(Flaw::EndsEarly));
        };
        self.rest = &self.rest[text.count_bytes() + 1..];
        Ok(text)
    }

    /// A length and as many bytes; −1 is NULL.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length);
                let length = length.map_err(|_| self.flaw(Flaw::Value("a length")))?;
                self.bytes(length).map(Some)
            }
        }
    }

    /// A list whose length was said before.
    pub(crate) fn list<T: crate::Element<'a>>(
        &mut self,
        count: usize,
    ) -> Result<crate::List<'a, T>, Malformed> {
        let before = self.rest;
        for _ in 0..count {
            self.element::<T>()?;
        }
        let read = before.len() - self.rest.len();
        Ok(crate::List::proven(count, &before[..read]))
    }

    /// A list that two bytes say the length of.
    pub(crate) fn counted<T: crate::Element<'a>>(
        &mut self,
    ) -> Result<crate::List<'a, T>, Malformed> {
        let count = self.u16()?;
        self.list(usize::from(count))
    }

    /// A list that ends with a zero byte.
    pub(crate) fn until_zero<T: crate::Element<'a>>(
        &mut self,
    ) -> Result<crate::List<'a, T>, Malformed> {
        let before = self.rest;
        let mut count = 0;
        loop {
            let read = before.len() - self.rest.len();
            if self.rest.first() == Some(&0) {
                self.rest = &self.rest[1..];
                return Ok(crate::List::proven(count, &before[..read]));
            }
            self.element::<T>()?;
            count += 1;
        }
    }

    fn element<T: crate::Element<'a>>(&mut self) -> Result<T, Malformed> {
        let Some((element, rest)) = T::split(self.rest) else {
            return Err(self.flaw(Flaw::EndsEarly));
        };
        self.rest = rest;
        Ok(element)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.flaw(Flaw::GoesOn))
        }
    }
}
