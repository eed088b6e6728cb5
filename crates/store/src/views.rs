//! Pushes a changing [`State`] to those who follow a prefix.
//!
//! **Invariant:** what a follower sees never goes back in revision.
//! It does not know where the state comes from.

use crate::kv::{Snapshot, View};
use crate::lock;
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// One channel for each prefix that somebody follows.
#[derive(Debug, Default)]
pub(crate) struct Views {
    channels: Mutex<BTreeMap<String, watch::Sender<Arc<Snapshot>>>>,
}

impl Views {
    /// Follows `prefix`, beginning with what `current` says of it. The caller holds `current` still.
    pub(crate) fn follow(&self, prefix: &str, current: impl FnOnce() -> Snapshot) -> View {
        let mut channels = lock(&self.channels);
        channels.retain(|_, channel| channel.receiver_count() > 0);
        match channels.get(prefix) {
            Some(channel) => channel.subscribe(),
            None => {
                let (channel, view) = watch::channel(Arc::new(current()));
                channels.insert(prefix.to_owned(), channel);
                view
            }
        }
    }

    /// Tells those whose prefix has one of the touched keys.
    pub(crate) fn publish(&self, state: &State, touched: &BTreeSet<String>) {
        for (prefix, channel) in lock(&self.channels).iter() {
            let first = touched.range::<String, _>(prefix..).next();
            if first.is_some_and(|key| key.starts_with(prefix.as_str())) {
                advance(channel, state.snapshot(prefix));
            }
        }
    }

    /// Tells everybody, after a gap.
    pub(crate) fn refresh(&self, state: &State) {
        for (prefix, channel) in lock(&self.channels).iter() {
            advance(channel, state.snapshot(prefix));
        }
    }
}

/// Moves a channel forward, never back.
pub(crate) fn advance(channel: &watch::Sender<Arc<Snapshot>>, to: Snapshot) {
    channel.send_if_modified(|seen| {
        let newer = to.revision > seen.revision;
        if newer {
            *seen = Arc::new(to);
        }
        newer
    });
}
