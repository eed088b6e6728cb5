//! Events on their way to the store: in order, never in the way of the loop.

use crate::agent::Options;
use api::Event;
use ha::{Decision, Epoch, NodeName};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::layout::Keys;
use tokio::sync::mpsc;

/// Events that wait for a store that is away; more than this are dropped, the oldest first to come first kept.
const WAITING_MAX: usize = 256;
const AGAIN: Duration = Duration::from_millis(200);

/// Hands events to a task that writes them.
#[derive(Debug)]
pub(crate) struct Events {
    node: NodeName,
    out: mpsc::Sender<Event>,
    last: Option<Event>,
}

impl Events {
    pub(crate) fn new(options: &Options) -> Self {
        let (out, queue) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write(
            Arc::clone(&options.store),
            options.keys.clone(),
            queue,
        ));
        Self {
            node: options.name.clone(),
            out,
            last: None,
        }
    }

    /// An event for a decision that changes the node's state or what is wanted of it, or that acts.
    pub(crate) fn decided(&mut self, epoch: Epoch, last: Option<&Decision>, decision: &Decision) {
        let changed = last
            .is_none_or(|last| last.state != decision.state || last.assigned != decision.assigned);
        if changed || !decision.actions.is_empty() {
            let event = Event::of(&self.node, epoch, decision);
            if self.last.as_ref() != Some(&event) {
                self.send(event);
            }
        }
    }

    /// More to the last event: what a rewind discarded.
    pub(crate) fn detail(&mut self, detail: String) {
        if let Some(last) = self.last.clone() {
            self.send(Event {
                reason: detail,
                ..last
            });
        }
    }

    fn send(&mut self, event: Event) {
        self.last = Some(event.clone());
        if self.out.try_send(event).is_err() {
            tracing::debug!("an event was dropped: the store takes none");
        }
    }
}

/// Ends when the agent has dropped its end and all is written.
async fn write(store: Arc<dyn Store>, keys: Keys, mut queue: mpsc::Receiver<Event>) {
    let view = store.view(keys.prefix());
    while let Some(event) = queue.recv().await {
        for _ in 0..50 {
            let snapshot = Arc::clone(&view.borrow());
            match api::record_event(store.as_ref(), &keys, &snapshot, &event).await {
                Ok(_) => break,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}
