//! Random bytes, and messages with a few bytes changed.

use crate::checks;
use crate::samples::{asked, said};
use proptest::prelude::*;

/// Bytes, or a stream of good messages in which some bytes were changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let good = prop::collection::vec(prop_oneof![asked(), said()], 1..8).prop_map(|all| {
        let mut stream = Vec::new();
        for one in &all {
            one.encode(&mut stream);
        }
        stream
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let changed = (good, changes).prop_map(|(mut stream, changes)| {
        for (place, byte) in changes {
            let place = place.index(stream.len());
            stream[place] = byte;
        }
        stream
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), changed]
}

/// The same in turns of both sides, as [`checks::session`] reads them.
fn turns() -> impl Strategy<Value = Vec<u8>> {
    let turn = prop_oneof![(Just(0_u8), asked()), (Just(1_u8), said())];
    prop::collection::vec(turn, 0..40).prop_map(|turns| {
        let mut all = vec![1];
        for (whose, message) in &turns {
            let mut stream = Vec::new();
            message.encode(&mut stream);
            for piece in stream.chunks(127) {
                let length = u8::try_from(piece.len()).expect("a short piece");
                all.push(length << 1 | whose);
                all.extend_from_slice(piece);
            }
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_may_send_anything(bytes in bytes()) {
        checks::frontend(&bytes);
    }

    #[test]
    fn a_server_may_send_anything(bytes in bytes()) {
        checks::backend(&bytes);
    }

    #[test]
    fn a_connection_may_begin_with_anything(bytes in bytes()) {
        checks::opening(&bytes);
    }

    #[test]
    fn both_sides_may_say_anything_at_any_time(bytes in prop_oneof![bytes(), turns()]) {
        checks::session(&bytes);
    }

    #[test]
    fn an_exchange_may_contain_anything(bytes in "[nrspcvie=,y]{0,3}[a-z=,A-Z0-9]{0,40}") {
        checks::scram(bytes.as_bytes());
    }
}
