//! Floods: whoever sends more than is answered or can be kept, costs no more than was allowed.

use crate::allocation::peak;
use std::ffi::CString;
use wire::backend::Message as Said;
use wire::frontend::{Message as Asked, Parse, Target};
use wire::{Framer, Limits, List, Origin, Session, Stage, Step, Violation};

const LIMITS: Limits = Limits {
    held_bytes_max: 1_000,
    query_bytes_max: 1 << 20,
    password_bytes_max: 1_024,
    unanswered_max: 1_000,
    remembered_bytes_max: 100_000,
};

/// Names, parameters, what the queue holds and the queue itself, and one message more.
const ALLOWED: usize = 3 * LIMITS.remembered_bytes_max + LIMITS.unanswered_max * 2 * 64 + 10_000;

fn ask(session: &mut Session, message: &Asked<'_>, room: &mut Vec<u8>) -> Result<(), Violation> {
    room.clear();
    message.encode(room).expect("a short message");
    let mut framer = Framer::new(Stage::Conversation, LIMITS);
    match framer.next(room) {
        Ok(Step::Message(frame)) => session.sent(&frame, Origin::Client),
        other => panic!("{other:?}"),
    }
}

fn say(session: &mut Session, message: &Said<'_>, room: &mut Vec<u8>) -> Result<(), Violation> {
    room.clear();
    message.encode(room).expect("a short message");
    let mut framer = Framer::new(Stage::Conversation, LIMITS);
    match framer.next(room) {
        Ok(Step::Message(frame)) => session.received(&frame).map(|_| ()),
        other => panic!("{other:?}"),
    }
}

/// How much a session of its own takes at most while `flood` is told to it 50,000 times.
fn check(flood: impl Fn(&mut Session, &mut Vec<u8>, usize)) {
    let taken = peak(|| {
        let mut session = Session::ready(LIMITS);
        let mut room = Vec::new();
        for turn in 0..50_000 {
            flood(&mut session, &mut room, turn);
        }
    });
    assert!(
        taken > 1_000 && taken < ALLOWED,
        "{taken} of {ALLOWED} bytes"
    );
}

fn prepare<'a>(name: &'a CString, query: &'a CString) -> Asked<'a> {
    Asked::Parse(Parse {
        name,
        query,
        types: List::empty(),
    })
}

#[test]
fn unanswered_requests_are_bounded() {
    check(|session, room, _| {
        let _ = ask(session, &Asked::Sync, room);
    });
}

#[test]
fn unanswered_texts_are_bounded() {
    let query = CString::new(vec![b'x'; 900]).expect("no NUL");
    check(|session, room, turn| {
        let name = CString::new(format!("s{turn}")).expect("no NUL");
        let _ = ask(session, &prepare(&name, &query), room);
    });
}

#[test]
fn prepared_statements_are_bounded() {
    let query = CString::new(vec![b'x'; 300]).expect("no NUL");
    check(|session, room, turn| {
        let name = CString::new(format!("s{turn}")).expect("no NUL");
        ask(session, &prepare(&name, &query), room).expect("there is room");
        say(session, &Said::ParseComplete, room).expect("it was asked for");
    });
}

#[test]
fn skipped_requests_take_nothing() {
    check(|session, room, turn| {
        let name = CString::new(format!("{turn:900}")).expect("no NUL");
        if turn == 0 {
            let describe = Asked::Describe(Target::Portal(&name));
            ask(session, &describe, room).expect("there is room");
            let error = Said::ErrorResponse(wire::backend::Fields(List::empty()));
            say(session, &error, room).expect("an error may always come");
        }
        let close = Asked::Close(Target::Statement(&name));
        ask(session, &close, room).expect("it is skipped");
    });
}

#[test]
fn reported_parameters_are_bounded() {
    check(|session, room, turn| {
        let name = CString::new(format!("p{turn}")).expect("no NUL");
        let status = Said::ParameterStatus {
            name: &name,
            value: c"value",
        };
        let _ = say(session, &status, room);
    });
}

#[test]
fn framing_and_reading_allocate_nothing() {
    let mut stream = Vec::new();
    let mut room = Vec::new();
    let values = [Some(&b"value"[..]), None, Some(b"")];
    for _ in 0..100 {
        let row = Said::DataRow(List::write(values, &mut room));
        for message in [row, Said::CommandComplete(c"SELECT 1")] {
            message.encode(&mut stream).expect("a short message");
        }
    }
    let mut read = 0;
    let taken = peak(|| {
        let mut framer = wire::backend::Framer::new(Stage::Conversation, LIMITS);
        let mut rest = &stream[..];
        while let Ok(step @ Step::Message(frame)) = framer.next(rest) {
            assert!(frame.message().is_ok());
            rest = &rest[step.taken()..];
            read += 1;
        }
    });
    assert_eq!((read, taken), (200, 0));
}
