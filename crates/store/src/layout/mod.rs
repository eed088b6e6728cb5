//! Where things stand in the store, and in which form: Patroni's keys and values, and ours under `standfast/`.
//!
//! **Invariant:** what is written here is a promise to other programs and to older versions of ourselves: fields are
//! added, never renamed; unknown fields are ignored; a record that can't be read is an error with its key, or it is
//! done without where that permits nothing, never a default that would permit something.

mod cluster;
mod config;
mod foreign;
mod history;
mod postgres;
mod proxies;
mod records;
mod remote;
mod slots;

pub use cluster::{Reader, Reading, Unreadable, read_cluster};
pub use config::ConfigRecord;
pub use foreign::guests;
pub use history::{EndedTimeline, with_history};
pub use postgres::SharedPostgres;
pub use proxies::{ProxyRecord, is_nobodys, kept_from_readers, neighbours, proxies};
pub use records::{
    EpochRecord, EventRecord, FailoverRecord, LastConfig, LineageRecord, MemberExtra, MemberRecord,
    NodeEntry, PATRONI_CONTRACT, PromiseRecord, StatusRecord, SyncValue,
};
pub use slots::PermanentSlots;

use ha::NodeName;

/// How many events are kept.
pub const EVENTS_KEPT: u64 = 1000;

/// The keys of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(namespace: &str, scope: &str) -> Self {
        Self {
            prefix: format!("/{}/{scope}/", namespace.trim_matches('/')),
        }
    }

    /// All keys of this cluster begin with it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What it is called.
    pub fn scope(&self) -> &str {
        let (_, scope) = self.apart();
        scope
    }

    /// All keys of its namespace begin with it, those of other clusters too.
    pub fn around(&self) -> String {
        let (around, _) = self.apart();
        format!("{around}/")
    }

    fn apart(&self) -> (&str, &str) {
        let path = self.prefix.trim_end_matches('/');
        path.rsplit_once('/').unwrap_or(("", path))
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    pub fn initialize(&self) -> String {
        self.key("initialize")
    }
    pub fn leader(&self) -> String {
        self.key("leader")
    }
    pub fn members(&self) -> String {
        self.key("members/")
    }
    pub fn member(&self, name: &NodeName) -> String {
        self.key(&format!("members/{name}"))
    }
    pub fn config(&self) -> String {
        self.key("config")
    }
    pub fn status(&self) -> String {
        self.key("status")
    }
    pub fn sync(&self) -> String {
        self.key("sync")
    }
    pub fn failover(&self) -> String {
        self.key("failover")
    }
    pub fn history(&self) -> String {
        self.key("history")
    }
    pub fn failsafe(&self) -> String {
        self.key("failsafe")
    }
    pub fn epoch(&self) -> String {
        self.key("standfast/epoch")
    }
    pub fn lineage(&self) -> String {
        self.key("standfast/lineage")
    }
    pub fn nodes(&self) -> String {
        self.key("standfast/nodes/")
    }
    pub fn node(&self, name: &NodeName) -> String {
        self.key(&format!("standfast/nodes/{name}"))
    }
    pub fn promises(&self) -> String {
        self.key("standfast/promises/")
    }
    pub fn promise(&self, name: &NodeName) -> String {
        self.key(&format!("standfast/promises/{name}"))
    }
    /// Whom a node follows, written before it begins to: a promise that was on its way meanwhile is refused.
    pub fn stance(&self, name: &NodeName) -> String {
        self.key(&format!("standfast/stances/{name}"))
    }
    pub fn proxies(&self) -> String {
        self.key("standfast/proxies/")
    }
    /// That of the proxy whose clients' keys carry this number.
    pub fn proxy(&self, number: u32) -> String {
        self.key(&format!("standfast/proxies/{number}"))
    }
    pub fn events(&self) -> String {
        self.key("standfast/events/")
    }
    /// The ring's place for event number `n`.
    pub fn event(&self, n: u64) -> String {
        self.key(&format!("standfast/events/{:04}", n % EVENTS_KEPT))
    }
    /// The number of the last event.
    pub fn event_counter(&self) -> String {
        self.key("standfast/event_counter")
    }
}
