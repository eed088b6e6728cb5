//! What must be answered before it is known which statement a name stands for.
//!
//! **Invariant:** what runs is what the name stands for where the server comes to it. As long as that may depend on what is
//! not answered, a message with the name waits: whether a DEALLOCATE takes it away, or whether the statement without a
//! name was prepared or thrown away behind an error.

use super::Mind;
use super::request::text;
use crate::pool::Mirror;
use wire::Copying;
use wire::frontend::{Frame, Tag};

impl Mind {
    /// Whether the client's next message must wait until more is answered.
    pub(in crate::session) fn waits_for_answers(&self, frame: &Frame<'_>, mirror: &Mirror) -> bool {
        if self.ledger.is_empty() || !self.may_mistake(frame) {
            return false;
        }
        // Where nothing more comes by itself all is thrown away that is sent now, up to a Sync, or the server fails at it.
        let session = &mirror.session;
        let reads = matches!(session.copying(), Some(Copying::In | Copying::Both { .. }));
        !reads && session.unanswered().next().is_some()
    }

    /// Whether answers are to come that only a Flush brings; once.
    pub(in crate::session) fn is_to_flush(&mut self) -> bool {
        !self.ledger.is_whole() && !std::mem::replace(&mut self.has_flushed, true)
    }

    fn may_mistake(&self, frame: &Frame<'_>) -> bool {
        let body = frame.body();
        let name = match (frame.tag(), body) {
            (Tag::Query, _) | (Tag::Parse, [0, ..]) => {
                return self.renames() && self.ledger.may_deallocate(None) && deallocates(body);
            }
            (Tag::Bind, _) => text(body).and_then(|(_, rest)| text(rest)),
            (Tag::Parse, _) => text(body),
            (Tag::Describe | Tag::Close, [b'S', rest @ ..]) => text(rest),
            _ => return false,
        };
        match name.map(|(name, _)| name.to_bytes()) {
            // Closing it changes nothing that is to be known.
            Ok([]) => frame.tag() != Tag::Close && self.ledger.may_lack_unnamed(),
            Ok(name) => self.renames() && self.ledger.may_deallocate(Some(name)),
            Err(_) => false,
        }
    }
}

/// Whether the text may name a statement of the protocol's.
fn deallocates(text: &[u8]) -> bool {
    const WORD: &[u8] = b"deallocate";
    let mut words = text.windows(WORD.len());
    words.any(|word| word.eq_ignore_ascii_case(WORD))
}
