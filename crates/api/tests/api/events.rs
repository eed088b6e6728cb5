//! The events: numbered, listed, streamed, written at the same time by many.

use crate::world::{World, name, until};
use api::{Event, event, record_event};
use ha::{Epoch, NodeState};
use std::collections::BTreeSet;
use store::layout::{EVENTS_KEPT, EventRecord};
use store::{Fault, Snapshot, Store, Txn};

fn event(reason: &str) -> Event {
    Event {
        node: name("a"),
        epoch: Epoch(7),
        state: NodeState::Primary,
        assigned: NodeState::Primary,
        rule: "test".to_owned(),
        reason: reason.to_owned(),
    }
}

async fn read(world: &World) -> Snapshot {
    world
        .store
        .read(world.keys.prefix())
        .await
        .expect("the store answers")
}

#[tokio::test]
async fn events_written_at_the_same_time_all_get_a_number_of_their_own() {
    let world = World::three().await;
    let old = read(&world).await;
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (world, old) = (world.clone(), old.clone());
            tokio::spawn(async move {
                record_event(&world.store, &world.keys, &old, &event(&format!("{n}"))).await
            })
        })
        .collect();
    let mut numbers = BTreeSet::new();
    for writer in writers {
        numbers.insert(writer.await.expect("no panic").expect("written"));
    }
    assert_eq!(numbers, (1..=8).collect());
    assert_eq!(
        event::last_events(&world.keys, &read(&world).await, 100).len(),
        8
    );
}

#[tokio::test]
async fn an_event_within_another_transaction_happens_with_it_or_not_at_all() {
    let world = World::three().await;
    let snapshot = read(&world).await;
    let txn = event("with it").within(
        Txn::new().put("/service/demo/x", "1"),
        &world.keys,
        &snapshot,
    );
    world.write(txn.clone()).await;
    assert!(
        !world
            .store
            .commit(txn)
            .await
            .expect("an answer")
            .is_committed()
    );
    assert_eq!(event::last_number(&world.keys, &read(&world).await), 1);
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_not_written_twice() {
    let world = World::three().await;
    let snapshot = read(&world).await;
    let store = world.store.handle();
    store.set_fault(Fault::AnswersLost);
    let healer = store.clone();
    let watched = world.clone();
    let heal = tokio::spawn(async move {
        until("the event is there", async || {
            watched
                .value("/service/demo/standfast/event_counter")
                .await
                .is_some()
        })
        .await;
        healer.set_fault(Fault::None);
    });
    // Reads fail too while answers are lost, so the first try may end with an error: the caller repeats it.
    let written = record_event(&store, &world.keys, &snapshot, &event("once")).await;
    heal.await.expect("no panic");
    assert!(written.is_err() || written == Ok(1));
    assert_eq!(
        event::last_events(&world.keys, &read(&world).await, 9).len(),
        1
    );
}

#[tokio::test]
async fn the_ring_keeps_the_newest() {
    let world = World::three().await;
    for n in 1..=EVENTS_KEPT + 5 {
        let record = EventRecord {
            n,
            time: "2026-11-22T00:00:00.000000Z".to_owned(),
            node: name("a"),
            epoch: Epoch(7),
            state: NodeState::Primary,
            assigned: NodeState::Primary,
            rule: "test".to_owned(),
            reason: format!("{n}"),
        };
        let txn = Txn::new()
            .put(world.keys.event_counter(), n.to_string())
            .put(world.keys.event(n), crate::world::text(&record));
        world.write(txn).await;
    }
    let server = world.serve("b").await;
    let events: Vec<EventRecord> = server.document("/api/v1/events").await;
    let numbers: Vec<u64> = events.iter().map(|event| event.n).collect();
    assert_eq!(
        numbers,
        (EVENTS_KEPT - 4..=EVENTS_KEPT + 5).collect::<Vec<_>>()
    );
    let all: Vec<EventRecord> = server.document("/api/v1/events?count=99999").await;
    assert_eq!((all.len() as u64, all[0].n), (EVENTS_KEPT, 6));
    assert_eq!(server.code("/api/v1/events?count=-1").await, 400);
    assert_eq!(server.code("/api/v1/events?count=x").await, 400);
}

#[tokio::test]
async fn the_stream_sends_what_happens_and_what_was_missed() {
    let world = World::three().await;
    let empty = Snapshot::default();
    record_event(&world.store, &world.keys, &empty, &event("one"))
        .await
        .expect("written");
    record_event(&world.store, &world.keys, &empty, &event("two"))
        .await
        .expect("written");
    let server = world.serve("b").await;
    let url = server.url("/api/v1/events/stream");
    let mut missed = server
        .client
        .get(&url)
        .header("last-event-id", "1")
        .send()
        .await
        .expect("a stream");
    let mut fresh = server.client.get(&url).send().await.expect("a stream");
    assert_eq!(fresh.headers()["content-type"], "text/event-stream");
    record_event(&world.store, &world.keys, &empty, &event("three"))
        .await
        .expect("written");
    let read = async |response: &mut reqwest::Response, last: &str| {
        let mut text = String::new();
        while !text.contains(last) {
            let chunk = tokio::time::timeout(std::time::Duration::from_secs(5), response.chunk());
            let chunk = chunk
                .await
                .expect("within 5 s")
                .expect("a chunk")
                .expect("not the end");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text
    };
    let text = read(&mut missed, "three").await;
    assert!(
        text.contains("id: 2") && text.contains("two") && text.contains("id: 3"),
        "{text}"
    );
    let text = read(&mut fresh, "three").await;
    assert!(
        !text.contains("two") && text.contains("event: event"),
        "{text}"
    );
}
