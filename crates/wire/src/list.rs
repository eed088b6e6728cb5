//! A list within a message, left where it is.
//!
//! **Invariant:** its bytes were read through once, or written by its elements, so that walking it
//! cannot fail.

use crate::Element;
use std::fmt;
use std::marker::PhantomData;

/// Several fields of one kind that stand one behind another in a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct List<'a, T> {
    count: usize,
    bytes: &'a [u8],
    element: PhantomData<T>,
}

impl<'a, T: Element<'a>> List<'a, T> {
    /// The caller has read `count` elements from exactly these bytes.
    pub(crate) fn proven(count: usize, bytes: &'a [u8]) -> Self {
        Self {
            count,
            bytes,
            element: PhantomData,
        }
    }

    /// The list of nothing.
    pub fn empty() -> Self {
        Self::proven(0, &[])
    }

    /// Writes the elements into `room`, whose former content is gone, and borrows them from there.
    pub fn write(elements: impl IntoIterator<Item = T>, room: &'a mut Vec<u8>) -> Self {
        room.clear();
        let mut count = 0;
        for element in elements {
            element.append(room);
            count += 1;
        }
        Self::proven(count, room)
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements as they stand on the wire, without a count before or an end behind them.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn iter(&self) -> Iter<'a, T> {
        Iter {
            rest: self.bytes,
            element: PhantomData,
        }
    }
}

impl<'a, T: Element<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Walks a [`List`].
#[derive(Debug, Clone)]
pub struct Iter<'a, T> {
    rest: &'a [u8],
    element: PhantomData<T>,
}

impl<'a, T: Element<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.rest.is_empty() {
            return None;
        }
        let (element, rest) = T::split(self.rest)?;
        self.rest = rest;
        Some(element)
    }
}
