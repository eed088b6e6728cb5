//! A session against a model of the server: whatever is asked, in whatever order the messages of
//! both sides pass each other, the session knows what the server is in the middle of.

mod ask;
mod server;

use ask::{Ask, asks};
use proptest::prelude::*;
use server::Server;
use std::collections::{BTreeSet, VecDeque};
use wire::backend::{Backend, TransactionStatus};
use wire::frontend::Frontend;
use wire::{
    Busy, Copying, Direction, Frame, Framer, Limits, Origin, Session, Stage, Step, Violation,
};

/// Who moves next: the client sends, the server works, or an answer arrives.
#[derive(Debug, Clone, Copy)]
enum Move {
    Send,
    Work,
    Deliver,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![Just(Move::Send), Just(Move::Work), Just(Move::Deliver)];
    prop::collection::vec(one, 0..150)
}

struct World {
    session: Session,
    server: Server,
    /// What the client has not sent yet.
    asks: VecDeque<Ask>,
}

impl World {
    fn step(&mut self, turn: Move) -> Result<(), Violation> {
        match turn {
            Move::Send => self.send(),
            Move::Work => {
                self.server.work();
                Ok(())
            }
            Move::Deliver => self.deliver(),
        }
    }

    /// What the session refuses is not sent, as with a client that is told so.
    fn send(&mut self) -> Result<(), Violation> {
        let Some(ask) = self.asks.pop_front() else {
            return Ok(());
        };
        let bytes = ask.bytes();
        let sent = frame::<Frontend, _>(&bytes, |it| self.session.sent(it, Origin::Client));
        match sent {
            Ok(()) => self.server.inbox.push_back(ask),
            Err(Violation::OutOfTurn { .. } | Violation::AfterEnd { .. }) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), Violation> {
        let Some(bytes) = self.server.outbox.pop_front() else {
            return Ok(());
        };
        frame::<Backend, _>(&bytes, |it| self.session.received(it)).map(|_| ())
    }

    /// What must be true at every moment: a session that is said to be idle is.
    fn check_always(&self) {
        if self.session.idle().is_ok() {
            let server = &self.server;
            // What is thrown away without an answer may still be on its way.
            let asked = |ask: &Ask| {
                !matches!(
                    ask,
                    Ask::Flush | Ask::CopyData | Ask::CopyDone | Ask::CopyFail
                )
            };
            assert!(!server.inbox.iter().any(asked), "requests are on their way");
            assert!(server.outbox.is_empty(), "answers are on their way");
            assert_eq!(server.truth(), Ok(()));
        }
    }

    /// What must be true when everything has arrived: the session knows it all.
    fn check_at_rest(&self) {
        let truth = self.server.truth();
        let (session, server) = (&self.session, &self.server);
        assert_eq!(session.has_ended(), truth == Err(Busy::Ended));
        if session.has_ended() {
            return;
        }
        if matches!(session.idle(), Err(Busy::Doubtful | Busy::Lost)) {
            assert!(server.copy_failed, "there was no reason to doubt");
            return;
        }
        if matches!(truth, Err(Busy::Copying(_))) {
            assert_eq!(session.copying(), Some(Copying::In));
            assert_eq!(session.unanswered().count(), 1);
        } else {
            assert_eq!(session.idle(), truth);
        }
        let known = session.statements().map(<[u8]>::to_vec);
        assert_eq!(known.collect::<BTreeSet<_>>(), server.statements);
        let known: BTreeSet<_> = session.portals().map(|it| it.name.to_vec()).collect();
        assert!(known.is_superset(&server.portals), "{known:?}");
        if session.idle().is_ok() {
            assert!(known.is_empty(), "{known:?}");
        }
        let owed = session.unanswered().count();
        assert!(owed == 0 || session.copying().is_some(), "{owed} are owed");
        assert_eq!(session.transaction_status(), server.said);
    }
}

fn frame<D: Direction, T>(bytes: &[u8], look: impl FnOnce(&Frame<'_, D>) -> T) -> T {
    match Framer::<D>::new(Stage::Conversation, Limits::default()).next(bytes) {
        Ok(Step::Message(frame)) => look(&frame),
        other => panic!("{other:?}"),
    }
}

/// Plays until everything has arrived everywhere.
fn play(asks: Vec<Ask>, moves: &[Move], lenient: bool) -> World {
    let mut world = World {
        session: Session::ready(Limits::default()),
        server: Server::new(lenient),
        asks: asks.into(),
    };
    let mut turns = moves.to_vec();
    turns.extend([Move::Send, Move::Work, Move::Deliver].repeat(400));
    for turn in turns {
        if let Err(why) = world.step(turn) {
            // Two answers that look alike could not be told apart; it is seen in the end.
            assert!(world.server.copy_failed, "{why}: {:?}", world.session);
            return world;
        }
        world.check_always();
    }
    while !world.server.inbox.is_empty() || !world.server.outbox.is_empty() {
        world.server.work();
        if let Err(why) = world.deliver() {
            assert!(world.server.copy_failed, "{why}: {:?}", world.session);
            return world;
        }
        world.check_always();
    }
    world.check_at_rest();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_session_knows_what_the_server_is_in_the_middle_of(
        asks in asks(),
        moves in moves(),
        lenient in any::<bool>(),
    ) {
        play(asks, &moves, lenient);
    }
}

/// The model must not be so hostile that nothing is ever checked.
#[test]
fn most_worlds_come_to_rest_with_something_to_check() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut idle, mut busy, mut ended, mut doubtful, mut portals) = (0, 0, 0, 0, 0);
    for _ in 0..1_000 {
        let asks = asks().new_tree(&mut runner).expect("asks").current();
        let moves = moves().new_tree(&mut runner).expect("moves").current();
        let world = play(asks, &moves, false);
        ended += u32::from(world.session.has_ended());
        idle += u32::from(world.session.idle().is_ok());
        busy += u32::from(world.session.transaction_status() != TransactionStatus::Idle);
        let doubts = [Err(Busy::Doubtful), Err(Busy::Lost)];
        doubtful += u32::from(doubts.contains(&world.session.idle()));
        portals += u32::from(world.session.portals().count() > 0);
    }
    let counts = (idle, busy, ended, doubtful, portals);
    assert!(idle > 200 && busy > 100 && portals > 50, "{counts:?}");
    assert!(ended > 20 && ended < 500 && doubtful < 200, "{counts:?}");
}
