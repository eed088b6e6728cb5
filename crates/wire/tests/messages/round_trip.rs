//! What is written is read as it was meant.

use crate::samples::{Sample, asked, said};
use proptest::prelude::*;
use std::ffi::CString;
use wire::startup::{CancelRequest, Packet, StartupMessage, Version};
use wire::{Framer, Hidden, Limits, List, Stage, Step, Unwritable, backend, frontend};

fn check(sample: &Sample) {
    let mut stream = b"before".to_vec();
    sample.encode(&mut stream);
    let stream = &stream[6..];
    let (stage, limits) = (sample.stage(), Limits::default());
    match sample {
        Sample::Asked(parts) => parts.with(|meant| {
            let mut framer = Framer::<frontend::Frontend>::new(stage, limits);
            let Ok(Step::Message(frame)) = framer.next(stream) else {
                panic!("{meant:?} is no frame");
            };
            assert_eq!(frame.message(), Ok(meant));
            assert_eq!(frame.bytes(), stream);
        }),
        Sample::Said(parts) => parts.with(|meant| {
            let mut framer = Framer::<backend::Backend>::new(stage, limits);
            let Ok(Step::Message(frame)) = framer.next(stream) else {
                panic!("{meant:?} is no frame");
            };
            assert_eq!(frame.message(), Ok(meant));
            assert_eq!(frame.bytes(), stream);
        }),
    }
}

fn text() -> impl Strategy<Value = CString> {
    "[^\0]{0,12}".prop_map(|text| CString::new(text).expect("no NUL"))
}

fn name() -> impl Strategy<Value = CString> {
    "[^\0]{1,12}".prop_map(|text| CString::new(text).expect("no NUL"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_client_says_is_read_as_it_was_meant(sample in asked()) {
        check(&sample);
    }

    #[test]
    fn what_a_server_says_is_read_as_it_was_meant(sample in said()) {
        check(&sample);
    }

    #[test]
    fn a_first_packet_is_read_as_it_was_meant(
        kind in 0..4,
        minor in any::<u16>(),
        parameters in prop::collection::vec((name(), text()), 0..20),
        process_id in any::<u32>(),
        secret in prop::collection::vec(any::<u8>(), 4..=256),
    ) {
        let borrowed = parameters.iter().map(|(name, value)| (name.as_c_str(), value.as_c_str()));
        let mut room = Vec::new();
        let secret = Hidden(&secret);
        let meant = match kind {
            0 => Packet::SslRequest,
            1 => Packet::GssEncRequest,
            2 => Packet::Cancel(CancelRequest(backend::CancelKey { process_id, secret })),
            _ => Packet::Startup(StartupMessage {
                version: Version::new(3, minor),
                parameters: List::write(borrowed, &mut room),
            }),
        };
        let mut out = Vec::new();
        meant.encode(&mut out).expect("a short packet");
        prop_assert_eq!(Packet::parse(&out[4..]), Ok(meant));
    }

    #[test]
    fn a_first_answer_of_sasl_is_read_as_it_was_meant(
        mechanism in text(),
        response in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) {
        let meant = frontend::SaslInitialResponse {
            mechanism: &mechanism,
            response: response.as_deref().map(Hidden),
        };
        let mut out = Vec::new();
        meant.encode(&mut out).expect("a short message");
        prop_assert_eq!(frontend::SaslInitialResponse::parse(Hidden(&out[5..])), Ok(meant));
    }
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let mut out = b"before".to_vec();
    let mut room = Vec::new();
    let row = backend::Message::DataRow(List::write(vec![None; 65_536], &mut room));
    assert_eq!(row.encode(&mut out), Err(Unwritable::TooMany(65_536)));
    let mut room = Vec::new();
    let offered = backend::Authentication::Sasl(List::write([c"A", c"", c"B"], &mut room));
    let offered = backend::Message::Authentication(offered);
    assert_eq!(offered.encode(&mut out), Err(Unwritable::EmptyName));
    let mut room = Vec::new();
    let long = CString::new(vec![b'x'; 10_000]).expect("no NUL");
    let packet = Packet::Startup(StartupMessage {
        version: Version::V3_0,
        parameters: List::write([(c"user", long.as_c_str())], &mut room),
    });
    let refused = packet.encode(&mut out);
    assert!(matches!(refused, Err(Unwritable::TooLong(_))));
    assert_eq!(out, b"before");
}

#[test]
fn a_report_is_made_as_postgres_makes_one() {
    let mut out = Vec::new();
    let sqlstate = backend::SqlState(*b"57P01");
    let report = backend::Report::fatal(sqlstate, "terminating\0connection").hint("try again");
    report.encode(&mut out).expect("a short message");
    assert_eq!(
        out[5..],
        *b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0Htry again\0\0"
    );
    let mut framer = backend::Framer::new(Stage::Authentication, Limits::default());
    let Ok(Step::Message(frame)) = framer.next(&out) else {
        panic!("no frame");
    };
    let Ok(backend::Message::ErrorResponse(fields)) = frame.message() else {
        panic!("no error");
    };
    assert_eq!(fields.severity(), Some(backend::Severity::Fatal));
    assert_eq!(fields.sqlstate(), Some(sqlstate));
}
