//! A small world in which agents of Patroni and ours share one store, as in a cluster that changes over node by node.
//!
//! Ours run the real [`ha::decide`] on views that may be old; Patroni's are played by its rules: one key with a time to
//! live, positions that are asked for, `sync`. An event is one turn of one agent, one write, one stream, one fault; what
//! takes time in the larger worlds (messages, clocks, disks) takes none here.
//!
//! **Invariant:** the same seed gives the same walk.

mod node;
mod ours;
mod patroni;
mod store;
mod walk;

pub use self::walk::{Outcome, walk};

/// A rule between the kinds that is broken on purpose, in front of the decision or in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Ours race for the key of a leader of Patroni's that is silent.
    KeyRaced,
    /// What Patroni has written into `sync` is not read as a setting.
    SyncUnread,
    /// Of a leader of Patroni's the numbers of its timelines are believed.
    NumbersBelieved,
    /// While our record changes, Patroni's agents read the names of all of its settings.
    UnionNamed,
    /// Who may not lead after a leader of Patroni's does not say so to Patroni's agents.
    WayKept,
}

impl Break {
    pub const ALL: [Self; 5] = [
        Self::KeyRaced,
        Self::SyncUnread,
        Self::NumbersBelieved,
        Self::UnionNamed,
        Self::WayKept,
    ];
}
