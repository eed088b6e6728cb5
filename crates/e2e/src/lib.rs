//! End-to-end stories: whole clusters of real processes, faults, and a client that counts every
//! acknowledged row. This crate knows how a story is set up, judged and cleared away; the stories
//! themselves are in `tests/stories/`, a file a family.
//!
//! **Invariant:** a story passes only if the ledger found every acknowledged row, no two nodes
//! acknowledged at once, no agent panicked, no planted secret was logged, and every WARN and ERROR
//! was announced.

mod binary;
mod certificates;
mod hooks;
mod logs;
mod majors;
mod patroni;
mod patroni_file;
mod proxies;
mod slot;
mod terminal;
mod world;

pub use hooks::Hooks;
pub use logs::Announced;
pub use majors::programs_of;
pub use patroni::{PatroniNode, Patronictl, patroni_programs};
pub use patroni_file::{lab_server, patroni_file};
pub use proxies::{PoolMode, Proxies, value};
pub use terminal::{Said, Terminal};
pub use world::{
    World, in_a_lab, is_long, say, settle_deadline, spell, story, story_alone, story_on,
};

/// How the cluster of a story is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Three nodes with co-located voters, from configuration files.
    Three,
    /// The same with a small disk of its own under every data directory.
    ThreeOnSmallDisks,
    /// The same with a file system of its own that can be frozen.
    ThreeOnOwnDisks,
    /// The same as the first, with a certificate for each store member.
    ThreeWithTls,
    /// The same as the first, with a proxy in each node's process: at 6432 to the primary, at 6433
    /// to read. `postgres` may connect.
    ThreeWithProxies,
    /// The same with a small disk of its own for the store.
    ThreeOnSmallStores,
    /// The same where a slot keeps little WAL for a standby that is away.
    ThreeOnLittleWal,
    /// The same as the first, with the programs of [`Hooks`] on each node.
    ThreeWithHooks,
    /// Three nodes whose store is an etcd cluster, on three more hosts.
    ThreeWithEtcd,
    /// The same where members ask each other by HTTPS, and only with certificates of their own; Postgres too shows one.
    ThreeWithEtcdByHttps,
    /// The same as the one before, by HTTP, where each member of etcd has a file system of its own that can be frozen.
    ThreeWithEtcdOnOwnDisks,
    /// A monitor and two nodes, by `standfast create`.
    Pair,
}
