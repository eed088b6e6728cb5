//! A hash table from keys of a few words to the order in which they were first seen.
//!
//! **Invariant:** equal keys have one index; indices are 0, 1, 2, … without a gap.
//!
//! The standard map is far slower where nothing is optimised, and tests are built that way.

#[derive(Debug)]
pub(super) struct Table<const WORDS: usize> {
    keys: Vec<[u64; WORDS]>,
    /// Index plus one; 0 is free. The length is a power of two.
    slots: Vec<u32>,
}

impl<const WORDS: usize> Table<WORDS> {
    pub(super) fn new() -> Self {
        Self {
            keys: Vec::new(),
            slots: vec![0; 64],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The index of `key`, and whether it is new.
    pub(super) fn index(&mut self, key: &[u64; WORDS]) -> (usize, bool) {
        if self.keys.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(key);
        if self.slots[slot] != 0 {
            return (self.slots[slot] as usize - 1, false);
        }
        self.keys.push(*key);
        self.slots[slot] = u32::try_from(self.keys.len()).expect("fewer than four billion keys");
        (self.keys.len() - 1, true)
    }

    fn slot(&self, key: &[u64; WORDS]) -> usize {
        let mut hash = 0x9E37_79B9_7F4A_7C15_u64;
        let mut word = 0;
        while word < WORDS {
            hash = (hash ^ key[word]).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            hash ^= hash >> 32;
            word += 1;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let index = self.slots[slot];
            if index == 0 || self.keys[index as usize - 1] == *key {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 4];
        for index in 0..self.keys.len() {
            let slot = self.slot(&self.keys[index]);
            self.slots[slot] = index as u32 + 1;
        }
    }
}
