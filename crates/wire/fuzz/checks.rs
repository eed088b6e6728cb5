//! What must be true of every sequence of bytes. Used by the fuzz targets, and by the tests, which
//! replay the corpus and add random bytes of their own.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use wire::backend::{self, Backend};
use wire::frontend::{self, Frontend};
use wire::scram::{Binding, Client, Keys, Offer, Server, Verifier};
use wire::startup::{First, Opening, Packet, Refused};
use wire::{Busy, Direction, FrameError, Framer, Hidden, Limits, Origin, Session, Stage, Step};

/// Small, so that long messages come in parts often.
pub(crate) const LIMITS: Limits = Limits {
    held_bytes_max: 48,
    query_bytes_max: 4_000,
    password_bytes_max: 1_024,
    unanswered_max: 32,
    remembered_bytes_max: 2_000,
};

/// What came out of a stream: each message, as the length of its first part and all its bytes,
/// and how it ended.
type Read = (Vec<(usize, Vec<u8>)>, Option<FrameError>);

/// A client's bytes, at both stages.
pub(crate) fn frontend(bytes: &[u8]) {
    for stage in [Stage::Authentication, Stage::Conversation] {
        same_however_cut::<Frontend>(bytes, stage);
        read_at_once::<Frontend>(bytes, stage, |frame| {
            let Ok(message) = frame.message() else { return };
            let mut again = Vec::new();
            let written = message.encode(&mut again);
            written.expect("what was read can be written");
            assert_eq!(again, frame.bytes(), "{message:?}");
        });
    }
    if let Ok(response) = frontend::SaslInitialResponse::parse(Hidden(bytes)) {
        let mut again = Vec::new();
        let written = response.encode(&mut again);
        written.expect("what was read can be written");
        assert_eq!(&again[5..], bytes);
    }
    let _ = frontend::Message::password(Hidden(bytes));
}

/// A server's bytes, at both stages.
pub(crate) fn backend(bytes: &[u8]) {
    for stage in [Stage::Authentication, Stage::Conversation] {
        same_however_cut::<Backend>(bytes, stage);
        read_at_once::<Backend>(bytes, stage, |frame| {
            let beginning = backend::Fields::beginning(frame.body());
            let Ok(message) = frame.message() else { return };
            if let backend::Message::ErrorResponse(fields) = &message {
                assert_eq!(*fields, beginning);
                let _ = (fields.severity(), fields.sqlstate(), fields.message());
            }
            let mut again = Vec::new();
            let written = message.encode(&mut again);
            written.expect("what was read can be written");
            assert_eq!(again, frame.bytes(), "{message:?}");
        });
    }
}

/// The first bytes of a connection.
pub(crate) fn opening(bytes: &[u8]) {
    let whole = Opening::new().next(bytes);
    for cut in 0..bytes.len() {
        match Opening::new().next(&bytes[..cut]) {
            Ok(First::More { buffer_bytes }) => {
                assert!(buffer_bytes > cut && buffer_bytes <= 10_004);
            }
            // A request for encryption stands for itself; what is behind it comes too early.
            Ok(First::SslRequest | First::GssEncRequest) => assert_eq!(cut, 8),
            Err(Refused::BytesBehindRequest(_)) => {
                assert!(matches!(whole, Err(Refused::BytesBehindRequest(_))));
            }
            decided => assert_eq!(decided, whole),
        }
    }
    let Some(body) = bytes.get(4..) else { return };
    let Ok(packet) = Packet::parse(body) else {
        return;
    };
    if let Packet::Startup(startup) = packet {
        let _ = (startup.user(), startup.database(), startup.replication());
        let _ = startup.settings().count();
        if startup.version.major() != 3 {
            return;
        }
    }
    let mut again = Vec::new();
    if packet.encode(&mut again).is_ok() {
        assert_eq!(&again[4..], body, "{packet:?}");
    }
}

/// Both directions of a connection, in turns: a byte says whose turn it is and how long.
pub(crate) fn session(bytes: &[u8]) {
    let mut session = match bytes.first() {
        Some(0) => Session::starting(LIMITS),
        _ => Session::ready(LIMITS),
    };
    let mut rest = bytes.get(1..).unwrap_or_default();
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    let mut lost = false;
    while let Some((turn, behind)) = rest.split_first() {
        let (taken, behind) = behind.split_at(behind.len().min(usize::from(turn >> 1)));
        rest = behind;
        if turn & 1 == 0 {
            asked.extend_from_slice(taken);
            drain::<Frontend>(&mut asked, |frame| {
                let before = format!("{session:?}");
                if session.sent(frame, Origin::Client).is_err() {
                    assert_eq!(before, format!("{session:?}"), "refused, but remembered");
                }
            });
        } else {
            said.extend_from_slice(taken);
            drain::<Backend>(&mut said, |frame| {
                lost |= session.received(frame).is_err();
            });
        }
        let unanswered = session.unanswered().count();
        assert!(unanswered <= LIMITS.unanswered_max + 1);
        match session.idle() {
            Ok(()) => assert!(unanswered == 0 && session.copying().is_none() && !lost),
            Err(why) => assert!(!lost || matches!(why, Busy::Lost | Busy::Ended)),
        }
        let names_max = LIMITS.remembered_bytes_max / 64 + 1;
        assert!(session.statements().count() <= names_max);
        assert!(session.portals().count() <= names_max);
        assert!(session.parameters().count() <= names_max);
    }
}

/// Texts of SCRAM, to either side.
pub(crate) fn scram(bytes: &[u8]) {
    let keys = || Keys {
        client_key: [1; 32],
        server_key: [2; 32],
    };
    if let Ok(client) = Client::begin(Binding::Impossible, "abc")
        && let Ok(challenge) = client.challenged(bytes, 1_000)
    {
        assert!(challenge.iterations() <= 1_000);
        assert!(challenge.answer(&keys()).check(bytes).is_err());
    }
    for offer in [Offer::Plain, Offer::Declined, Offer::Chosen(b"hash")] {
        let verifier = || Verifier::of(&keys(), b"salt".to_vec(), 7);
        let _ = Server::begin(bytes, offer, verifier(), "def");
        let first: &[u8] = match offer {
            Offer::Plain | Offer::Declined => b"n,,n=,r=abc",
            Offer::Chosen(_) => b"p=tls-server-end-point,,n=,r=abc",
        };
        let begun = Server::begin(first, offer, verifier(), "def");
        let (_, server) = begun.expect("it fits");
        assert!(server.finish(bytes).is_err());
    }
    let _ = std::str::from_utf8(bytes).map(Verifier::parse);
}

/// Cut at once, byte by byte, and as the bytes themselves say.
fn same_however_cut<D: Direction>(bytes: &[u8], stage: Stage) {
    let whole = read_at_once::<D>(bytes, stage, |_| {});
    let single = read::<D>(bytes, stage, &mut std::iter::repeat(1), |_| {});
    let by_itself = bytes.iter().map(|byte| usize::from(*byte % 61) + 1);
    let mut by_itself = by_itself.chain(std::iter::repeat(7));
    let odd = read::<D>(bytes, stage, &mut by_itself, |_| {});
    assert_eq!(whole, single);
    assert_eq!(whole, odd);
}

fn read_at_once<D: Direction>(
    bytes: &[u8],
    stage: Stage,
    look: impl FnMut(&wire::Frame<'_, D>),
) -> Read {
    read::<D>(bytes, stage, &mut [bytes.len()].into_iter(), look)
}

/// Reads a stream that arrives in pieces.
fn read<D: Direction>(
    bytes: &[u8],
    stage: Stage,
    pieces: &mut dyn Iterator<Item = usize>,
    mut look: impl FnMut(&wire::Frame<'_, D>),
) -> Read {
    let mut framer = Framer::<D>::new(stage, LIMITS);
    let (mut buffer, mut arrived) = (Vec::new(), 0);
    let mut messages: Vec<(usize, Vec<u8>)> = Vec::new();
    loop {
        let taken = match framer.next(&buffer) {
            Err(why) => return (messages, Some(why)),
            Ok(step) => {
                match &step {
                    Step::Message(frame) => {
                        look(frame);
                        messages.push((frame.bytes().len(), frame.bytes().to_vec()));
                    }
                    Step::Part(part) => {
                        let last = messages.last_mut();
                        let last = last.expect("a part follows a beginning");
                        last.1.extend_from_slice(part);
                    }
                    Step::More { buffer_bytes } => {
                        assert!(*buffer_bytes > buffer.len());
                        assert!(*buffer_bytes <= LIMITS.buffer_bytes_max());
                    }
                }
                step.taken()
            }
        };
        buffer.drain(..taken);
        if taken == 0 {
            if arrived == bytes.len() {
                return (messages, None);
            }
            let piece = pieces.next().unwrap_or(1).max(1);
            let end = bytes.len().min(arrived + piece);
            buffer.extend_from_slice(&bytes[arrived..end]);
            arrived = end;
        }
    }
}

/// Takes all whole messages from the front of a buffer; what makes no sense is dropped.
fn drain<D: Direction>(buffer: &mut Vec<u8>, mut look: impl FnMut(&wire::Frame<'_, D>)) {
    let mut framer = Framer::<D>::new(Stage::Conversation, LIMITS);
    let mut at = 0;
    loop {
        match framer.next(&buffer[at..]) {
            Ok(Step::More { .. }) => break,
            Ok(step) => {
                if let Step::Message(frame) = &step {
                    look(frame);
                }
                at += step.taken();
            }
            Err(_) => {
                at = buffer.len();
                break;
            }
        }
    }
    buffer.drain(..at);
}
