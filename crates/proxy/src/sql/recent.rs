//! Texts that a thread has read at a glance, and that come again with other numbers.
//!
//! **Invariant:** what is said of a text here is what [`plain::read`] says of it.

use super::acts::Acts;
use super::plain;
use super::token::is_name;
use std::cell::RefCell;

/// So many a thread keeps, each in the place that its first bytes give it.
const PLACES: usize = 64;
/// None that is longer, in bytes.
const BYTES_MAX: usize = 256;

thread_local! {
    static RECENT: RefCell<Vec<Option<Seen>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Clone)]
struct Seen {
    text: Box<[u8]>,
    acts: Acts,
}

/// The acts of its one statement. `None`: look closer.
pub(super) fn read(text: &[u8]) -> Option<Acts> {
    let Some(at) = place(text).filter(|_| text.len() <= BYTES_MAX) else {
        return plain::read(text);
    };
    RECENT.with_borrow_mut(|recent| {
        if let Some(Some(seen)) = recent.get(at)
            && is_same(&seen.text, text)
        {
            return Some(seen.acts);
        }
        let acts = plain::read(text)?;
        recent.resize(PLACES, None);
        recent[at] = Some(Seen {
            text: text.into(),
            acts,
        });
        Some(acts)
    })
}

/// `None`: it is read as quickly as it is found.
fn place(text: &[u8]) -> Option<usize> {
    let (first, rest) = text.split_first_chunk()?;
    let (_, rest) = rest.split_first_chunk::<8>()?;
    let (third, _) = rest.split_first_chunk()?;
    let mixed = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*third).rotate_left(32);
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> 32) as usize % PLACES)
}

/// Whether they differ in numbers alone, which may have other signs. Of `known` it is known that a glance is enough.
fn is_same(known: &[u8], text: &[u8]) -> bool {
    let (mut known, mut text) = (known, text);
    loop {
        let same = common(known, text);
        if same == known.len() && same == text.len() {
            return true;
        }
        let before = &known[..same];
        let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit());
        let start = same - digits.count();
        // Digits of a word or of a parameter are no number, and two minus signs are a comment.
        let ahead = before[..start].last();
        if ahead.is_none_or(|byte| is_name(*byte) || *byte == b'-') {
            return false;
        }
        let (Some(one), Some(other)) = (behind(&known[start..]), behind(&text[start..])) else {
            return false;
        };
        (known, text) = (one, other);
    }
}

/// What is behind a number.
fn behind(number: &[u8]) -> Option<&[u8]> {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit());
    Some(&digits[length.count()..]).filter(|rest| rest.len() < digits.len())
}

/// How many bytes at the beginning are the same.
fn common(one: &[u8], other: &[u8]) -> usize {
    let (words, _) = one.as_chunks();
    let (others, _) = other.as_chunks();
    let mut same = 0;
    for (word, other) in words.iter().zip(others) {
        let differ = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let rest = one[same..].iter().zip(&other[same..]);
    same + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_numbers_make_no_other_text() {
        for (known, text) in [
            ("where aid = 123;", "where aid = 7;"),
            ("where aid = 123;", "where aid = 124;"),
            ("set a = a + -5 where b = 12", "set a = a + 71 where b = 1"),
            ("values (1, -20, 3)", "values (-1, 2, 333)"),
        ] {
            assert!(is_same(known.as_bytes(), text.as_bytes()), "{text}");
            assert!(is_same(text.as_bytes(), known.as_bytes()), "{known}");
        }
        for (known, text) in [
            ("where a1 = 1", "where a2 = 1"),
            ("where a = 1", "where a = 1e5"),
            ("where a = 1", "where a = "),
            ("where a = -1", "where a = - 1"),
            ("where a -1", "where a --1"),
            ("where a = $1", "where a = $2"),
            ("where a = 1", "where a = 1;"),
            ("where a = 1 or b", "where a = 2 or c"),
        ] {
            assert!(!is_same(known.as_bytes(), text.as_bytes()), "{text}");
            assert!(!is_same(text.as_bytes(), known.as_bytes()), "{known}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50_000))]

        #[test]
        fn what_is_the_same_reads_the_same(
            parts in proptest::collection::vec(part(), 0..12),
            others in proptest::collection::vec(number(), 12),
        ) {
            let text = |numbers: &mut dyn Iterator<Item = &String>| -> String {
                let filled = parts.iter().map(|part| match (part.contains('#'), numbers.next()) {
                    (true, Some(number)) => part.replace('#', number),
                    _ => part.clone(),
                });
                std::iter::once("select abalance from accounts where ".to_owned()).chain(filled).collect()
            };
            let known = text(&mut std::iter::repeat(&"1".to_owned()));
            let other = text(&mut others.iter());
            let (known, other) = (known.as_bytes(), other.as_bytes());
            if let Some(acts) = plain::read(known) && is_same(known, other) {
                prop_assert_eq!(plain::read(other), Some(acts));
            }
            // Whatever was read before.
            prop_assert_eq!(read(known), plain::read(known));
            prop_assert_eq!(read(other), plain::read(other));
        }
    }

    fn number() -> impl Strategy<Value = String> {
        let texts = [
            "1", "-1", "12", "-34", "", "-", "1e5", "--1", "0x1", "1_0", "a",
        ];
        prop::sample::select(texts.to_vec()).prop_map(str::to_owned)
    }

    fn part() -> impl Strategy<Value = String> {
        let texts = [
            "#", "#", "#", " #", " # ", "#;", ", ", "(", ")", " ", "a", "a#", "$#", "-", "+ ", "=",
            ".", "into ", "1#", "#1", "'#'", "e", ";", "--", "/*#*/", "_#", "é#",
        ];
        prop::sample::select(texts.to_vec()).prop_map(str::to_owned)
    }
}
