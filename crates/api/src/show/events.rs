//! Events: a list, and a stream that goes on.

use crate::error::Refusal;
use crate::event::{events_after, last_events, last_number};
use crate::office::Office;
use crate::router::Context;
use crate::v1::Code;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use store::layout::{EVENTS_KEPT, EventRecord, Keys};
use tokio::sync::OwnedSemaphorePermit;

/// Events unless said otherwise.
const COUNT: u64 = 10;

/// `GET /api/v1/events?count=N`: newest last.
pub(crate) fn list(
    keys: &Keys,
    office: &Office<'_>,
    count: Option<&str>,
) -> Result<Vec<EventRecord>, Refusal> {
    super::cluster(office)?;
    let count = match count {
        None => COUNT,
        Some(text) => text
            .parse()
            .map_err(|_| Refusal::bad_request(format!("count must be a number, not {text:?}")))?,
    };
    Ok(last_events(
        keys,
        &office.served.snapshot,
        count.min(EVENTS_KEPT),
    ))
}

struct Cursor {
    view: View,
    keys: Keys,
    /// The last event that was sent.
    seen: u64,
    waiting: VecDeque<EventRecord>,
    /// Counted as long as the stream lives.
    _room: OwnedSemaphorePermit,
}

/// `GET /api/v1/events/stream`: those after `after`, or from now on, as server-sent events that carry their number.
pub(crate) fn stream(context: &Context, after: Option<u64>) -> Result<Response, Refusal> {
    let Ok(room) = Arc::clone(&context.streams).try_acquire_owned() else {
        return Err(Refusal::new(
            Code::Unavailable,
            "too many event streams are open at this node",
        )
        .hint("ask another node, or GET /api/v1/events"));
    };
    let keys = context.keys().clone();
    let mut view = context.options.store.view(keys.prefix());
    let now = Arc::clone(&view.borrow_and_update());
    let last = last_number(&keys, &now);
    // A number from another life of the store would wait for ever.
    let seen = after.filter(|after| *after <= last).unwrap_or(last);
    let waiting = events_after(&keys, &now, seen).into();
    let cursor = Cursor {
        view,
        keys,
        seen,
        waiting,
        _room: room,
    };
    let events = stream::unfold(cursor, |cursor| async move {
        let (record, cursor) = next(cursor).await?;
        let event = Event::default()
            .event("event")
            .id(record.n.to_string())
            .data(crate::event::to_text(&record));
        Some((Ok::<Event, Infallible>(event), cursor))
    });
    let alive = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

async fn next(mut cursor: Cursor) -> Option<(EventRecord, Cursor)> {
    loop {
        if let Some(record) = cursor.waiting.pop_front() {
            cursor.seen = record.n;
            return Some((record, cursor));
        }
        cursor.view.changed().await.ok()?;
        let snapshot = Arc::clone(&cursor.view.borrow_and_update());
        if last_number(&cursor.keys, &snapshot) > cursor.seen {
            cursor.waiting = events_after(&cursor.keys, &snapshot, cursor.seen).into();
        }
    }
}
