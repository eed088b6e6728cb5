//! Where messages begin and end.
//!
//! **Invariant:** a type that is unknown, or may not come at this stage, and a length that its type
//! cannot have are refused as soon as the five bytes of the header are there.
//!
//! **Invariant:** for one stream of bytes the frames are the same however it is cut; only the parts
//! behind the first one of a long message follow the cuts.
//!
//! It keeps no bytes: the caller's buffer does, and drops from its front what a [`Step`] took.

use crate::Limits;
use std::fmt;
use std::marker::PhantomData;

/// Type byte and length word.
pub(crate) const HEADER_BYTES: usize = 5;

/// How long the body of a type may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub body_bytes_min: usize,
    pub body_bytes_max: usize,
    /// Always in one piece, whatever [`Limits::held_bytes_max`] says.
    pub held: bool,
}

impl Bounds {
    /// A body of exactly this length.
    pub(crate) const fn exactly(bytes: usize) -> Self {
        Self {
            body_bytes_min: bytes,
            body_bytes_max: bytes,
            held: true,
        }
    }

    /// A body that always comes in one piece.
    pub(crate) const fn held(min: usize, max: usize) -> Self {
        Self {
            body_bytes_min: min,
            body_bytes_max: max,
            held: true,
        }
    }

    /// A body that may come in parts.
    pub(crate) const fn long(min: usize, max: usize) -> Self {
        Self {
            body_bytes_min: min,
            body_bytes_max: max,
            held: false,
        }
    }
}

/// Whether the connection still proves who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before AuthenticationOk: a client may send passwords and nothing else.
    Authentication,
    /// After it: everything but passwords.
    Conversation,
}

/// Who speaks: [`crate::frontend::Frontend`] or [`crate::backend::Backend`].
pub trait Direction: Copy + fmt::Debug {
    /// The types of messages of this direction.
    type Tag: Copy + fmt::Debug + PartialEq;
    /// For error texts.
    const SPEAKER: &'static str;
    /// The type that a byte stands for.
    fn tag(byte: u8) -> Option<Self::Tag>;
    /// How long such a message may be; `None` if it may not come at this stage.
    fn bounds(tag: Self::Tag, stage: Stage, limits: &Limits) -> Option<Bounds>;
}

/// Bytes that begin no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is no message of this type.
    #[error("the {speaker} sent a message of unknown type {byte:#04x}")]
    Unknown { speaker: &'static str, byte: u8 },
    /// There is, but not at this stage.
    #[error("the {speaker} sent a message of type {byte:#04x} out of turn")]
    OutOfTurn { speaker: &'static str, byte: u8 },
    /// The length word says what no message of this type can be, or more than is allowed.
    #[error("the {speaker} sent a message of type {byte:#04x} with length {length}")]
    Length {
        speaker: &'static str,
        byte: u8,
        /// As it stands on the wire, its own four bytes included.
        length: i32,
    },
}

/// A message as it stands in the buffer: all of it, or its beginning if it is long.
#[derive(Clone, Copy)]
pub struct Frame<'a, D: Direction> {
    tag: D::Tag,
    body_len: usize,
    bytes: &'a [u8],
}

impl<'a, D: Direction> Frame<'a, D> {
    pub fn tag(&self) -> D::Tag {
        self.tag
    }

    /// How long the whole body is, in bytes, also if only its beginning is here.
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// The body, or its beginning.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Header and body, or their beginning: what is forwarded.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the whole message is here.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() == HEADER_BYTES + self.body_len
    }
}

impl<D: Direction> fmt::Debug for Frame<'_, D> {
    /// Without the body: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("tag", &self.tag)
            .field("body_len", &self.body_len)
            .field("is_whole", &self.is_whole())
            .finish()
    }
}

/// What the front of a buffer is.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a, D: Direction> {
    /// A message begins. Its [`Frame::bytes`] are the front of the buffer.
    Message(Frame<'a, D>),
    /// These bytes at the front of the buffer belong to the message that began last.
    Part(&'a [u8]),
    /// Nothing can be said before the buffer holds this many bytes.
    More { buffer_bytes: usize },
}

impl<D: Direction> Step<'_, D> {
    /// How many bytes at the front of the buffer it took.
    pub fn taken(&self) -> usize {
        match self {
            Self::Message(frame) => frame.bytes.len(),
            Self::Part(bytes) => bytes.len(),
            Self::More { .. } => 0,
        }
    }
}

/// Cuts one direction of a connection into messages.
#[derive(Debug, Clone)]
pub struct Framer<D> {
    stage: Stage,
    limits: Limits,
    /// Bytes that the message that began last is still owed.
    rest: usize,
    direction: PhantomData<D>,
}

impl<D: Direction> Framer<D> {
    pub fn new(stage: Stage, limits: Limits) -> Self {
        Self {
            stage,
            limits,
            rest: 0,
            direction: PhantomData,
        }
    }

    /// The stage changes between two messages: what was framed before keeps its meaning.
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Whether a message has begun whose end has not been seen.
    pub fn within_message(&self) -> bool {
        self.rest > 0
    }

    /// Looks at the front of the buffer. Before the next call the caller removes
    /// [`Step::taken`] bytes; after [`Step::More`] it adds some.
    ///
    /// # Errors
    /// The bytes begin no message. Nothing behind them can be understood any more.
    #[inline]
    pub fn next<'a>(&mut self, buffer: &'a [u8]) -> Result<Step<'a, D>, FrameError> {
        if self.rest > 0 {
            return Ok(self.part(buffer));
        }
        match buffer.first_chunk() {
            Some(header) => self.begin(*header, buffer),
            None => self.beginning(buffer),
        }
    }

    #[inline]
    fn begin<'a>(
        &mut self,
        [byte, length @ ..]: [u8; HEADER_BYTES],
        buffer: &'a [u8],
    ) -> Result<Step<'a, D>, FrameError> {
        let (tag, bounds) = self.bounds(byte)?;
        let length = i32::from_be_bytes(length);
        let body_len = usize::try_from(length).ok();
        let body_len = body_len.and_then(|length| length.checked_sub(4));
        let within = |len: &usize| (bounds.body_bytes_min..=bounds.body_bytes_max).contains(len);
        let Some(body_len) = body_len.filter(within) else {
            return Err(FrameError::Length {
                speaker: D::SPEAKER,
                byte,
                length,
            });
        };
        let here = if bounds.held {
            body_len
        } else {
            body_len.min(self.limits.held_bytes_max)
        };
        let Some(bytes) = buffer.get(..HEADER_BYTES + here) else {
            return Ok(Step::More {
                buffer_bytes: HEADER_BYTES + here,
            });
        };
        self.rest = body_len - here;
        Ok(Step::Message(Frame {
            tag,
            body_len,
            bytes,
        }))
    }

    /// Of a header that is not here as a whole. A wrong type byte needs no length to be wrong.
    #[cold]
    fn beginning<'a>(&self, buffer: &[u8]) -> Result<Step<'a, D>, FrameError> {
        if let Some(&byte) = buffer.first() {
            self.bounds(byte)?;
        }
        Ok(Step::More {
            buffer_bytes: HEADER_BYTES,
        })
    }

    fn part<'a>(&mut self, buffer: &'a [u8]) -> Step<'a, D> {
        let taken = buffer.len().min(self.rest);
        if taken == 0 {
            return Step::More { buffer_bytes: 1 };
        }
        self.rest -= taken;
        Step::Part(&buffer[..taken])
    }

    #[inline(always)]
    fn bounds(&self, byte: u8) -> Result<(D::Tag, Bounds), FrameError> {
        let speaker = D::SPEAKER;
        let tag = D::tag(byte).ok_or(FrameError::Unknown { speaker, byte })?;
        let bounds = D::bounds(tag, self.stage, &self.limits);
        let bounds = bounds.ok_or(FrameError::OutOfTurn { speaker, byte })?;
        Ok((tag, bounds))
    }
}
