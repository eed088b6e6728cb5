use super::*;
use crate::backend::CancelKey;
use crate::startup::{Agreed, Unsupported, Version};
use crate::{Hidden, List};

fn bytes(packet: Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(&mut out).unwrap();
    out
}

fn startup(version: Version) -> Vec<u8> {
    let mut room = Vec::new();
    bytes(Packet::Startup(StartupMessage {
        version,
        parameters: List::write([(c"user", c"u")], &mut room),
    }))
}

#[test]
fn a_startup_packet_is_read_and_what_is_behind_it_is_left() {
    let mut buffer = startup(Version::V3_0);
    let length = buffer.len();
    buffer.extend(b"p....");
    let first = Opening::new().next(&buffer).unwrap();
    let First::Startup(message, taken) = first else {
        panic!("{first:?}");
    };
    assert_eq!((message.user(), taken), (Some(c"u"), length));
}

#[test]
fn every_beginning_of_a_packet_asks_for_more_of_it() {
    let whole = startup(Version::V3_0);
    for cut in 0..whole.len() {
        let buffer_bytes = if cut < 4 { 4 } else { whole.len() };
        let first = Opening::new().next(&whole[..cut]);
        assert_eq!(first, Ok(First::More { buffer_bytes }), "{cut}");
    }
}

#[test]
fn lengths_are_bounded_as_in_postgres() {
    for length in [i32::MIN, -1, 0, 3, 4, 7, 10_005, i32::MAX] {
        let word = i32::to_be_bytes(length);
        let first = Opening::new().next(&word);
        assert_eq!(first, Err(Refused::Length(length)));
    }
    for length in [8, 10_004] {
        let word = i32::to_be_bytes(length);
        let first = Opening::new().next(&word);
        let buffer_bytes = usize::try_from(length).unwrap();
        assert_eq!(first, Ok(First::More { buffer_bytes }));
    }
    // Somebody who speaks HTTP says a length too.
    let first = Opening::new().next(b"GET / HTTP/1.1\r\n");
    assert_eq!(first, Err(Refused::Length(0x4745_5420)));
}

#[test]
fn a_packet_without_its_last_zero_is_refused() {
    let mut packet = startup(Version::V3_0);
    packet.pop();
    packet[3] -= 1;
    let first = Opening::new().next(&packet);
    assert!(matches!(first, Err(Refused::Malformed(_))), "{first:?}");
}

#[test]
fn each_encryption_is_asked_for_once() {
    let ssl = bytes(Packet::SslRequest);
    let gss = bytes(Packet::GssEncRequest);
    let mut opening = Opening::new();
    assert_eq!(opening.next(&gss), Ok(First::GssEncRequest));
    assert_eq!(opening.next(&ssl), Err(Refused::NotAnswered));
    opening.declined();
    assert_eq!(opening.next(&ssl), Ok(First::SslRequest));
    opening.declined();
    for again in [&ssl, &gss] {
        assert_eq!(opening.clone().next(again), Err(Refused::AskedAgain));
    }
    let first = opening.next(&startup(Version::V3_0)[..]).map(|_| ());
    assert_eq!(first, Ok(()));
}

#[test]
fn nothing_is_asked_for_within_encryption() {
    for asked in [Packet::SslRequest, Packet::GssEncRequest] {
        let mut opening = Opening::new();
        assert_eq!(opening.next(&[TLS_HANDSHAKE, 3, 1]), Ok(First::DirectTls));
        opening.encrypted();
        assert_eq!(opening.next(&bytes(asked)), Err(Refused::AskedAgain));
    }
}

#[test]
fn bytes_glued_to_a_request_for_encryption_are_refused() {
    let mut buffer = bytes(Packet::SslRequest);
    buffer.extend(startup(Version::V3_0));
    let behind = buffer.len() - 8;
    let first = Opening::new().next(&buffer);
    assert_eq!(first, Err(Refused::BytesBehindRequest(behind)));
}

#[test]
fn tls_begins_at_once_only_at_the_very_beginning() {
    let mut opening = Opening::new();
    opening.next(&bytes(Packet::SslRequest)).unwrap();
    opening.declined();
    let first = opening.next(&[TLS_HANDSHAKE, 3, 1, 0]);
    assert!(matches!(first, Err(Refused::Length(_))), "{first:?}");
}

#[test]
fn cancel_keys_have_4_to_256_bytes() {
    for (length, good) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
        let secret = vec![7; length];
        let packet = bytes(Packet::Cancel(CancelRequest(CancelKey {
            process_id: 42,
            secret: Hidden(&secret),
        })));
        let first = Opening::new().next(&packet).map(|_| ());
        assert_eq!(first.is_ok(), good, "{length}: {first:?}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let key = CancelKey {
        process_id: 42,
        secret: Hidden(b"4711"),
    };
    let shown = format!("{key:?}");
    assert!(
        shown.contains("4 bytes") && !shown.contains("4711"),
        "{shown}"
    );
}

/// What is agreed on and whether the client is told.
fn agree(version: Version, option: bool) -> Result<(Version, bool), Unsupported> {
    let mut room = Vec::new();
    let options = option.then_some((c"_pq_.later", c"1"));
    let startup = StartupMessage {
        version,
        parameters: List::write(options, &mut room),
    };
    let agreed = Agreed::on(&startup)?;
    let mut out = Vec::new();
    agreed.encode(&startup, &mut out).unwrap();
    Ok((agreed.version, !out.is_empty()))
}

#[test]
fn versions_are_negotiated_as_postgres_18_does() {
    let (later, v1) = (Version::new(3, 9999), Version::new(3, 1));
    assert_eq!(agree(Version::V3_0, false), Ok((Version::V3_0, false)));
    assert_eq!(agree(Version::V3_2, false), Ok((Version::V3_2, false)));
    assert_eq!(agree(v1, false), Ok((v1, false)));
    assert_eq!(agree(later, false), Ok((Version::V3_2, true)));
    assert_eq!(agree(Version::V3_0, true), Ok((Version::V3_0, true)));
    for other in [Version::new(2, 0), Version::new(4, 0), Version::new(0, 0)] {
        assert_eq!(agree(other, false), Err(Unsupported(other)));
    }
}
