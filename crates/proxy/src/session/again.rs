//! What a client has asked that does nothing: statements to be prepared or described, and no more.
//!
//! **Invariant:** what is here was not answered in any part, and leaves nothing behind but in the session of the server
//! that was asked. Where that is lost, it can be asked of another one, and nobody can tell.
//!
//! It does not know what becomes of it.

use wire::frontend::{Frame, Tag};

/// More than this is not remembered, in bytes.
const BYTES_MAX: usize = 16 * 1024;
/// A server that goes down may still let somebody in, for a moment. What takes one server after the other down with it must
/// have an end.
const TIMES_MAX: u8 = 2;
/// So much room is kept while nothing is asked.
const KEPT_BYTES: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Again {
    bytes: Vec<u8>,
    /// Something else was asked, too, or something has been answered.
    spoilt: bool,
    /// How often it has been asked again.
    times: u8,
}

impl Again {
    /// The client has sent this.
    pub(super) fn note(&mut self, frame: &Frame<'_>) {
        let does_nothing = matches!(
            frame.tag(),
            Tag::Parse | Tag::Describe | Tag::Close | Tag::Flush | Tag::Sync
        );
        if self.spoilt {
            return;
        }
        let bytes = frame.bytes();
        if does_nothing && frame.is_whole() && self.bytes.len() + bytes.len() <= BYTES_MAX {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.spoil();
        }
    }

    /// From now on it is too late.
    pub(super) fn spoil(&mut self) {
        self.spoilt = true;
        self.bytes.clear();
    }

    /// Everything is answered.
    pub(super) fn clear(&mut self) {
        (self.spoilt, self.times) = (false, 0);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }

    /// All of it, if it can be asked again.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let before = std::mem::take(self);
        if before.spoilt || before.bytes.is_empty() || before.times == TIMES_MAX {
            return None;
        }
        self.times = before.times + 1;
        Some(before.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use wire::frontend::{Framer, Message, Parse, Target};
    use wire::{Limits, List, Stage, Step};

    fn noted(messages: &[Message<'_>]) -> Again {
        let mut again = Again::default();
        for message in messages {
            let mut bytes = Vec::new();
            message.encode(&mut bytes).unwrap();
            let limits = Limits {
                held_bytes_max: 256 * 1024,
                ..Limits::default()
            };
            let mut framer = Framer::new(Stage::Conversation, limits);
            let Ok(Step::Message(frame)) = framer.next(&bytes) else {
                panic!("{message:?}");
            };
            again.note(&frame);
        }
        again
    }

    fn parse(query: &CStr) -> Message<'_> {
        Message::Parse(Parse {
            name: c"",
            query,
            types: List::empty(),
        })
    }

    #[test]
    fn what_only_prepares_is_remembered_until_something_else_comes() {
        let describe = Message::Describe(Target::Statement(c""));
        let prepared = [parse(c"select 1"), describe, Message::Sync];
        assert!(noted(&prepared).take().is_some());
        for other in [
            Message::Query(c"select 1"),
            Message::Execute {
                portal: c"",
                rows_max: 0,
            },
        ] {
            for order in [[prepared[0], other], [other, prepared[0]]] {
                assert_eq!(noted(&order).take(), None);
            }
        }
        let mut again = noted(&prepared);
        again.spoil();
        assert_eq!(again.take(), None);
        let mut again = noted(&[Message::Query(c"select 1")]);
        again.clear();
        assert_eq!(again.take(), None);
        let mut again = noted(&prepared);
        again.clear();
        assert_eq!(again.take(), None);
    }

    #[test]
    fn it_is_asked_again_twice() {
        let prepared = [parse(c"select 1"), Message::Sync];
        let mut again = noted(&prepared);
        let bytes = again.take().unwrap();
        again.bytes.extend(&bytes);
        assert!(again.take().is_some());
        again.bytes.extend(&bytes);
        assert_eq!(again.take(), None);
        again.bytes.extend(&bytes);
        assert!(again.take().is_some());
        again.clear();
        again.bytes.extend(&bytes);
        assert!(again.take().is_some());
    }

    #[test]
    fn what_is_long_is_not_remembered() {
        let long = std::ffi::CString::new("x".repeat(BYTES_MAX)).unwrap();
        assert_eq!(noted(&[parse(&long)]).take(), None);
    }
}
