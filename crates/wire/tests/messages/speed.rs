//! How long a message takes. Says it, and asks only for what no machine could miss by noise.
//!
//! `cargo test -p wire --release --test messages -- --ignored --nocapture speed`
#![allow(clippy::print_stdout, reason = "figures for whoever asks for them")]

use std::time::Instant;
use wire::backend::{self, Message as Said, TransactionStatus};
use wire::frontend::{self, Bind, Message as Asked};
use wire::{Direction, Framer, Limits, List, Origin, Session, Stage, Step};

const TURNS: u32 = 200_000;

/// Nanoseconds a message, the best of five rounds.
fn best(messages: u32, mut round: impl FnMut()) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        round();
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(messages)
    };
    (0..5).map(|_| once()).fold(f64::MAX, f64::min)
}

fn frames<D: Direction>(stream: &[u8], mut look: impl FnMut(&wire::Frame<'_, D>)) {
    let mut framer = Framer::<D>::new(Stage::Conversation, Limits::default());
    let mut rest = stream;
    while let Ok(step @ Step::Message(_)) = framer.next(rest) {
        if let Step::Message(frame) = &step {
            look(frame);
        }
        rest = &rest[step.taken()..];
    }
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut room = Vec::new();
    let values = [
        Some(&b"12345"[..]),
        Some(b"some text of a row"),
        None,
        Some(b"0.5"),
    ];
    let row = Said::DataRow(List::write(values, &mut room));
    let mut rows = Vec::new();
    for _ in 0..TURNS {
        row.encode(&mut rows).expect("a short message");
    }
    let mut seen = 0_usize;
    let framed = best(TURNS, || {
        frames::<backend::Backend>(&rows, |frame| seen += frame.body_len());
    });
    let read = best(TURNS, || {
        frames::<backend::Backend>(&rows, |frame| {
            seen += usize::from(frame.message().is_ok());
        });
    });
    let followed = best(TURNS, || {
        let mut session = busy();
        frames::<backend::Backend>(&rows, |frame| {
            seen += usize::from(session.received(frame).is_ok());
        });
    });
    let (asked, said) = transaction();
    let prepared = best(TURNS * 7, || {
        let mut session = Session::ready(Limits::default());
        for _ in 0..TURNS {
            frames::<frontend::Frontend>(&asked, |frame| {
                session.sent(frame, Origin::Client).expect("it is in turn");
            });
            frames::<backend::Backend>(&said, |frame| {
                session.received(frame).expect("it was asked for");
            });
        }
        session.idle().expect("everything is answered");
    });
    println!("nanoseconds a message ({seen} bytes and messages seen)");
    println!("  DataRow, framed:                            {framed:7.1}");
    println!("  DataRow, framed and read:                   {read:7.1}");
    println!("  DataRow, framed and told to a session:      {followed:7.1}");
    println!("  Bind Execute Sync and answers, likewise:    {prepared:7.1}");
    if !cfg!(debug_assertions) {
        assert!(framed < 100.0 && followed < 200.0 && prepared < 500.0);
    }
}

/// A session whose query is being answered.
fn busy() -> Session {
    let mut session = Session::ready(Limits::default());
    let mut query = Vec::new();
    let message = Asked::Query(c"select");
    message.encode(&mut query).expect("a short message");
    frames::<frontend::Frontend>(&query, |frame| {
        session.sent(frame, Origin::Client).expect("it is in turn");
    });
    session
}

/// What `pgbench -M prepared` sends and gets for one SELECT: seven messages.
fn transaction() -> (Vec<u8>, Vec<u8>) {
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    let mut room = Vec::new();
    let bind = Asked::Bind(Bind {
        portal: c"",
        statement: c"P0_1",
        formats: List::empty(),
        parameters: List::write([Some(&b"4711"[..])], &mut room),
        result_formats: List::empty(),
    });
    let execute = Asked::Execute {
        portal: c"",
        rows_max: 0,
    };
    for message in [bind, execute, Asked::Sync] {
        message.encode(&mut asked).expect("a short message");
    }
    let mut room = Vec::new();
    for message in [
        Said::BindComplete,
        Said::DataRow(List::write([Some(&b"-123"[..])], &mut room)),
        Said::CommandComplete(c"SELECT 1"),
        Said::ReadyForQuery(TransactionStatus::Idle),
    ] {
        message.encode(&mut said).expect("a short message");
    }
    (asked, said)
}

#[test]
fn a_transaction_is_seven_messages() {
    let (asked, said) = transaction();
    let mut count = 0;
    frames::<frontend::Frontend>(&asked, |_| count += 1);
    frames::<backend::Backend>(&said, |_| count += 1);
    assert_eq!(count, 7);
}
