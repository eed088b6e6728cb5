//! Another installation has this node's name.
//!
//! **Invariant:** nothing is decided in a name that the cluster knows as another installation's: its leadership is not
//! taken up, nothing is promised, copied or written in it. Registration refuses such a node soon after; until then it
//! is not to be taken for the one whose name it has.

use super::Agent;
use ha::Instant;
use std::time::Duration;
use store::Snapshot;
use store::layout::NodeEntry;

impl Agent {
    /// Whose name it is, if it is not this node's.
    pub(super) fn namesake(&self, snapshot: &Snapshot) -> Option<NodeEntry> {
        let text = snapshot.value(&self.shell.keys.node(&self.name))?;
        let entry: NodeEntry = serde_json::from_str(text).ok()?;
        (!self.shown.is_identity(&entry.identity)).then_some(entry)
    }

    /// Returns how long to rest without an event.
    pub(super) fn stay_out(&mut self, other: &NodeEntry, at: Instant) -> Duration {
        let what = format!(
            "the name {} belongs to another node, at {}:{}",
            self.name, other.host, other.port
        );
        if self.is_news(what.clone()) {
            tracing::error!(
                hint = "choose another name; if that node is gone for good, or is this one without its state directory: \
                        standfast drop node --name NAME --force --config FILE, on another node",
                "{what}: nothing is decided"
            );
        }
        self.rest_undecided(at)
    }
}
