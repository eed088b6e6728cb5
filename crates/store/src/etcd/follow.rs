//! A view: read once, then changed by what etcd's watch tells.
//!
//! **Invariant:** what a follower sees never goes back in revision, and every snapshot is what the keys were at its
//! revision.
//!
//! Every new beginning is a linearizable read, so neither a member that lags behind nor a compaction can show a past.
//! A stream that says nothing is asked for a sign of life: a member that is frozen or cut off from us ends no stream.

use super::channel::{Messages, Method, Orders};
use super::failure::Failure;
use super::members::{Line, Members, Repeat};
use super::proto::{
    EventKind, RangeResponse, WatchCreateRequest, WatchOrder, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use super::{store::RANGE, translate};
use crate::kv::Snapshot;
use crate::views::advance;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

const WATCH: Method = Method("/etcdserverpb.Watch/Watch");

/// A stream that was silent for so long is asked for a sign of life, which may take as long again.
const SILENCE: Duration = Duration::from_millis(500);
/// Between two beginnings.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps a view up to date for as long as somebody looks at it.
pub(super) async fn follow(
    members: Arc<Members>,
    prefix: String,
    view: watch::Sender<Arc<Snapshot>>,
) {
    let following = async {
        let mut pause = PAUSE;
        loop {
            let why = match follow_once(&members, &prefix, &view).await {
                Ended::After(why) => {
                    pause = PAUSE;
                    why
                }
                Ended::BeforeItBegan(why) => why,
            };
            tracing::debug!(prefix, why, "the view of etcd begins anew");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    tokio::select! {
        () = following => {}
        () = view.closed() => {}
    }
}

/// Why a view is not followed any more, and whether it ever was.
enum Ended {
    BeforeItBegan(String),
    After(String),
}

async fn follow_once(
    members: &Arc<Members>,
    prefix: &str,
    view: &watch::Sender<Arc<Snapshot>>,
) -> Ended {
    let until = members.deadline();
    let question = translate::range(prefix);
    let (read, _) = members
        .ask::<RangeResponse>(RANGE, &question, Repeat::Harmless, until)
        .await;
    let snapshot = match read {
        Ok(answer) => translate::snapshot(answer),
        Err(failure) => return Ended::BeforeItBegan(failure.of_read().to_string()),
    };
    let first = create(prefix, &snapshot);
    advance(view, snapshot.clone());
    let (orders, messages, line) = match members.stream(WATCH, &first).await {
        Ok(opened) => opened,
        Err(failure) => return Ended::BeforeItBegan(failure.of_read().to_string()),
    };
    let mut stream = Stream {
        orders,
        messages,
        line,
        snapshot,
    };
    let why = loop {
        match stream.next().await {
            Ok(true) => advance(view, stream.snapshot.clone()),
            Ok(false) => {}
            Err(why) => break why,
        }
    };
    stream.line.give_up().await;
    Ended::After(why)
}

/// Everything after `snapshot`.
fn create(prefix: &str, snapshot: &Snapshot) -> WatchRequest {
    let (key, range_end) = translate::bounds(prefix);
    WatchRequest {
        order: Some(WatchOrder::Create(WatchCreateRequest {
            key,
            range_end,
            start_revision: translate::signed(snapshot.revision.saturating_add(1)),
        })),
    }
}

/// A stream of changes, and what they have led to.
struct Stream {
    orders: Orders,
    messages: Messages,
    line: Line,
    snapshot: Snapshot,
}

impl Stream {
    /// Waits for the next message. Whether it changed anything, or why the stream is over.
    async fn next(&mut self) -> Result<bool, String> {
        let message = match timeout(SILENCE, self.messages.next::<WatchResponse>()).await {
            Ok(message) => message,
            Err(_) => {
                let order = WatchOrder::Progress(WatchProgressRequest {});
                self.orders.give(&WatchRequest { order: Some(order) });
                let message = timeout(SILENCE, self.messages.next::<WatchResponse>()).await;
                message.map_err(|_| format!("etcd at {} is silent", self.line.address()))?
            }
        };
        let text = |failure: Failure| failure.of_read().to_string();
        let Some(message) = message.map_err(text)? else {
            return Err(format!("etcd at {} ended the watch", self.line.address()));
        };
        self.line.check(&message).map_err(text)?;
        if message.canceled {
            return Err(match message.compact_revision {
                0 => format!("etcd cancelled the watch: {}", message.cancel_reason),
                compacted => format!("compacted up to revision {compacted}"),
            });
        }
        Ok(self.apply(message))
    }

    /// One message holds whole revisions.
    fn apply(&mut self, message: WatchResponse) -> bool {
        let mut changed = false;
        for event in message.events {
            let kind = event.kind();
            let Some(kv) = event.kv else { continue };
            let revision = translate::unsigned(kv.mod_revision);
            self.snapshot.revision = self.snapshot.revision.max(revision);
            let (key, entry) = translate::entry(kv);
            match kind {
                EventKind::Put => self.snapshot.entries.insert(key, entry),
                EventKind::Delete => self.snapshot.entries.remove(&key),
            };
            changed = true;
        }
        changed
    }
}
