//! One connection to a server, logged in.

use super::quota::Counted;
use super::{Loan, Startup, Welcome};
use crate::cancel::Target;
use crate::gate::Stamp;
use crate::journal::{Settings, to_restore};
use crate::net::{Inbox, Outbox, Stream};
use crate::prepared::Prepared;
use ha::Epoch;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;
use wire::backend::{Fields, Frame, Framer, Message, Tag};
use wire::frontend;
use wire::{Limits, List, Origin, Session, Step};

/// What a server has reported of itself and of the session's settings.
pub(crate) type Parameters = BTreeMap<Box<[u8]>, Box<[u8]>>;

const STANDARD_STRINGS: &[u8] = b"standard_conforming_strings";
/// What is ours on a server beside what is its client's.
const ASIDE: &CStr = c"standfast_aside";
const CLIENT_ENCODING: &[u8] = b"client_encoding";
/// Encodings of clients in which a byte that looks like a backslash may be the second half of a letter.
const SPLIT: [&[u8]; 7] = [
    b"SJIS",
    b"SHIFT_JIS_2004",
    b"BIG5",
    b"GBK",
    b"UHC",
    b"GB18030",
    b"JOHAB",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) stream: Stream,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) framer: Framer,
    pub(crate) mirror: Mirror,
    pub(crate) stamp: Stamp,
    pub(crate) epoch: Epoch,
    /// How often everybody had been told to connect anew.
    pub(crate) generation: u64,
    #[expect(dead_code, reason = "its place is free when it is dropped")]
    pub(super) counted: Arc<Counted>,
    pub(crate) startup: Arc<Startup>,
    /// What it said at its login.
    pub(crate) welcome: Arc<Welcome>,
    pub(crate) target: Arc<Target>,
    /// The settings that were made since its login.
    pub(crate) applied: Arc<Settings>,
    /// It takes nothing any more; it may still have something to say.
    pub(crate) is_deaf: bool,
    /// It has said its last.
    pub(crate) has_ended: bool,
}

/// What is known of a server's session, without its bytes.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) session: Session,
    /// What it has reported last.
    pub(crate) parameters: Arc<Parameters>,
    /// What it reported at its login, or what it would have in the place of one of the client's own.
    pub(crate) own: Arc<Parameters>,
    /// It was started with other settings than those of whom it is at work for.
    pub(crate) loan: Option<Arc<Loan>>,
    /// Whether backslashes in plain strings are plain, as it has reported.
    standard_strings: bool,
    /// Whether a backslash may be half of a letter.
    splits_letters: bool,
    /// Statements with names of ours, by number.
    pub(crate) known: HashMap<u64, Kept>,
    /// It may have others of them than those: nobody else can use it.
    pub(crate) is_mixed_up: bool,
    pub(crate) clock: u64,
}

/// A statement that a server has. While one has it, its name stays its own: the next client that
/// prepares the same text finds it there.
#[derive(Debug)]
pub(crate) struct Kept {
    prepared: Arc<Prepared>,
    /// By the server's clock, when it was used last.
    pub(crate) used: u64,
}

/// Why a server did not do what we asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the connection to the server is lost")]
    Lost,
    #[error("{0}")]
    Error(String),
}

impl Refusal {
    /// What an ErrorResponse says.
    pub(super) fn said(frame: &Frame<'_>) -> Self {
        let text = Fields::beginning(frame.body()).message();
        Self::Error(text.unwrap_or_default().to_string_lossy().into_owned())
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// The framing of what servers say. Only what is looked into must come in one piece.
pub(super) fn limits() -> Limits {
    Limits {
        held_bytes_max: 8 * 1024,
        ..Limits::default()
    }
}

impl Server {
    /// It is for somebody who came with the same settings as it was started with.
    pub(crate) fn lend_no_more(&mut self) {
        if self.mirror.loan.take().is_some() {
            self.mirror.own = Arc::clone(&self.welcome.parameters);
            self.mirror.share();
        }
    }

    /// It is for somebody who came with other ones.
    pub(crate) fn lend(&mut self, loan: Loan) {
        self.mirror.own = Arc::clone(&loan.own);
        self.mirror.loan = Some(Arc::new(loan));
        self.mirror.share();
    }

    /// What a session with these settings of its own is to find here.
    pub(crate) fn wanted(&self, settings: &Arc<Settings>) -> Arc<Settings> {
        match &self.mirror.loan {
            None => Arc::clone(settings),
            Some(loan) => loan.with(settings),
        }
    }

    /// Such a session leaves it.
    pub(crate) fn is_left_with(&mut self, settings: &Arc<Settings>) {
        match &self.mirror.loan {
            Some(loan) => self.applied = loan.left(settings, &self.mirror.parameters),
            None if Arc::ptr_eq(&self.applied, settings) => {}
            None => self.applied = Arc::clone(settings),
        }
    }

    /// Whether it can be given to somebody: it is of the current epoch and has nothing to say.
    pub(crate) fn is_fit(&mut self) -> bool {
        if !self.stamp.is_current()
            || self.is_deaf
            || self.has_ended
            || self.mirror.session.idle().is_err()
        {
            return false;
        }
        // What it says now might be a notice or a parameter and could be read. It is rare, and a
        // new connection is safe.
        self.inbox.is_empty() && self.stream.is_silent()
    }

    /// Writes a query of ours; its answer is not for the client.
    pub(crate) fn query(&mut self, sql: &[u8]) -> Result<(), Refusal> {
        let mut bytes = sql.to_vec();
        bytes.retain(|byte| *byte != 0);
        bytes.push(0);
        let text = CStr::from_bytes_with_nul(&bytes);
        let text = text.map_err(|_| Refusal::Error("a text with a NUL".to_owned()))?;
        self.send(&frontend::Message::Query(text))
    }

    /// Asks a query of ours, and waits until it is done.
    pub(crate) async fn run(&mut self, sql: &[u8]) -> Result<(), Refusal> {
        self.query(sql)?;
        self.finish().await
    }

    /// The same for some statements, beside what the client has without a name, which a Query would take away: a
    /// statement, and within a transaction a portal that is not at its end.
    pub(crate) async fn run_aside(&mut self, statements: &[Vec<u8>]) -> Result<(), Refusal> {
        use frontend::Message as Ask;
        let close = [
            frontend::Target::Portal(ASIDE),
            frontend::Target::Statement(ASIDE),
        ]
        .map(Ask::Close);
        for sql in statements {
            let text = CString::new(&**sql);
            let text = text.map_err(|_| Refusal::Error("a text with a NUL".to_owned()))?;
            let parse = Ask::Parse(frontend::Parse {
                name: ASIDE,
                query: &text,
                types: List::empty(),
            });
            let bind = Ask::Bind(frontend::Bind {
                portal: ASIDE,
                statement: ASIDE,
                formats: List::empty(),
                parameters: List::empty(),
                result_formats: List::empty(),
            });
            let execute = Ask::Execute {
                portal: ASIDE,
                rows_max: 0,
            };
            // What was refused the last time may have left its own behind.
            for message in close.iter().chain(&[parse, bind, execute]).chain(&close) {
                self.send(message)?;
            }
            self.send(&Ask::Sync)?;
        }
        self.finish().await
    }

    /// Writes a message of ours.
    pub(crate) fn send(&mut self, message: &frontend::Message<'_>) -> Result<(), Refusal> {
        let unwritable = |error: wire::Unwritable| Refusal::Error(error.to_string());
        let mut bytes = Vec::new();
        message.encode(&mut bytes).map_err(unwritable)?;
        self.send_bytes(&bytes, Origin::Proxy)
    }

    /// Writes whole messages, and tells the session of them.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8], origin: Origin) -> Result<(), Refusal> {
        let whole = Limits {
            held_bytes_max: usize::MAX / 2,
            ..Limits::default()
        };
        let mut framer = frontend::Framer::new(wire::Stage::Conversation, whole);
        let mut rest = bytes;
        while !rest.is_empty() {
            let odd = || Refusal::Error("a message that is none".to_owned());
            let step = framer.next(rest).map_err(|_| odd())?;
            let Step::Message(frame) = step else {
                return Err(odd());
            };
            self.mirror
                .session
                .sent(&frame, origin)
                .map_err(|_| odd())?;
            rest = &rest[frame.bytes().len()..];
        }
        self.outbox.push(bytes);
        Ok(())
    }

    /// Sends what was written, and shows what comes until all of it is answered; `None` stands for
    /// a part of a message that is too long to be here as a whole.
    pub(crate) async fn answers(
        &mut self,
        mut hear: impl FnMut(&mut Mirror, Option<&Frame<'_>>),
    ) -> Result<(), Refusal> {
        self.outbox.flush(&mut self.stream).await?;
        while self.mirror.session.unanswered().next().is_some() {
            let step = self.framer.next(self.inbox.unread());
            let step = step.map_err(|_| Refusal::Lost)?;
            let taken = step.taken();
            match step {
                Step::More { buffer_bytes } => {
                    self.inbox.want(buffer_bytes);
                    if self.inbox.fill(&mut self.stream).await? == 0 {
                        return Err(Refusal::Lost);
                    }
                    continue;
                }
                Step::Part(_) => hear(&mut self.mirror, None),
                Step::Message(frame) => {
                    let session = &mut self.mirror.session;
                    session.received(&frame).map_err(|_| Refusal::Lost)?;
                    hear(&mut self.mirror, Some(&frame));
                }
            }
            self.inbox.drop_unread(taken);
        }
        Ok(())
    }

    /// Sends what was written, and waits until all of it is answered. The first error is the
    /// result; what the answers hold is dropped, except parameters.
    pub(crate) async fn finish(&mut self) -> Result<(), Refusal> {
        let mut failed = None;
        let hear = |mirror: &mut Mirror, frame: Option<&Frame<'_>>| {
            let Some(frame) = frame else { return };
            if frame.tag() == Tag::ErrorResponse && failed.is_none() {
                failed = Some(Refusal::said(frame));
            }
            if let Ok(Message::ParameterStatus { name, value }) = frame.message() {
                mirror.report(name.to_bytes(), value.to_bytes());
            }
        };
        self.answers(hear).await?;
        failed.map_or(Ok(()), Err)
    }

    /// Whether the session has these settings.
    pub(crate) fn has(&self, settings: &Arc<Settings>) -> bool {
        Arc::ptr_eq(&self.applied, settings) || self.applied == *settings
    }

    /// Gives the session these settings.
    pub(crate) async fn restore(&mut self, settings: &Arc<Settings>) -> Result<(), Refusal> {
        if self.has(settings) {
            return Ok(());
        }
        for query in to_restore(&self.applied, settings) {
            self.query(&query)?;
        }
        self.finish().await?;
        self.applied = Arc::clone(settings);
        Ok(())
    }

    /// Takes everything away that its last client may have left.
    pub(crate) async fn wipe(&mut self) -> Result<(), Refusal> {
        self.run(b"DISCARD ALL").await?;
        self.applied = Arc::default();
        self.mirror.known.clear();
        self.mirror.is_mixed_up = false;
        Ok(())
    }
}

impl Mirror {
    pub(crate) fn new(session: Session, parameters: Parameters) -> Self {
        let parameters = Arc::new(parameters);
        Self {
            session,
            own: Arc::clone(&parameters),
            standard_strings: parameters.get(STANDARD_STRINGS).is_none_or(is_on),
            splits_letters: parameters.get(CLIENT_ENCODING).is_some_and(is_split),
            parameters,
            loan: None,
            known: HashMap::new(),
            is_mixed_up: false,
            clock: 0,
        }
    }

    /// It begins with what others began with, too: one copy for all.
    pub(super) fn begin_with(&mut self, parameters: &Arc<Parameters>) {
        self.parameters = Arc::clone(parameters);
        self.own = Arc::clone(parameters);
    }

    fn share(&mut self) {
        if !Arc::ptr_eq(&self.parameters, &self.own) && self.parameters == self.own {
            self.parameters = Arc::clone(&self.own);
        }
    }

    /// The server is about to have this statement.
    pub(crate) fn keep(&mut self, prepared: &Arc<Prepared>) {
        let kept = Kept {
            prepared: Arc::clone(prepared),
            used: self.clock,
        };
        self.put_back(kept);
    }

    /// The server has it still.
    pub(crate) fn put_back(&mut self, kept: Kept) {
        self.known.insert(kept.prepared.id, kept);
    }

    /// Those that it was asked for since the clock stood there.
    pub(crate) fn used_since(&self, clock: u64) -> impl Iterator<Item = &Arc<Prepared>> {
        let used = self.known.values().filter(move |kept| kept.used > clock);
        used.map(|kept| &kept.prepared)
    }

    /// A parameter was reported.
    pub(crate) fn report(&mut self, name: &[u8], value: &[u8]) {
        let known = self.parameters.get(name);
        if known.is_some_and(|known| **known == *value) {
            return;
        }
        if name == STANDARD_STRINGS {
            self.standard_strings = is_on(value);
        }
        if name == CLIENT_ENCODING {
            self.splits_letters = is_split(value);
        }
        Arc::make_mut(&mut self.parameters).insert(name.into(), value.into());
        // Back to what everybody begins with: one copy for all again.
        self.share();
    }

    /// Whether transactions begin read-only. Before PostgreSQL 14 it does not say so.
    pub(crate) fn begins_read_only(&self) -> bool {
        let said = self.parameters.get(&b"default_transaction_read_only"[..]);
        said.is_some_and(|value| **value == *b"on")
    }

    /// Whether backslashes in plain strings are plain.
    pub(crate) fn has_standard_strings(&self) -> bool {
        self.standard_strings
    }

    /// Whether strings of a text may end elsewhere than they seem to, by the client's encoding.
    pub(crate) fn may_misread(&self, text: &[u8]) -> bool {
        self.splits_letters
            && text
                .windows(2)
                .any(|pair| pair[0] >= 0x80 && pair[1] == b'\\')
    }
}

fn is_split(encoding: impl AsRef<[u8]>) -> bool {
    SPLIT.contains(&encoding.as_ref())
}

fn is_on(value: impl AsRef<[u8]>) -> bool {
    value.as_ref() == b"on"
}
