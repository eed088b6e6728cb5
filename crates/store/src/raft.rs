//! The built-in store: a member of a Raft cluster in this process.

mod around;
mod calls;
mod caretaker;
mod directory;
mod disk;
mod expiry;
mod lease;
mod log;
mod machine;
mod member;
mod membership;
mod network;
mod options;
mod recover;
mod start;
mod store;
#[cfg(test)]
mod tests;
pub(crate) mod types;

pub(crate) use calls::refusal;
pub use options::{Options, Start, Timing};
pub use store::{MemberInfo, RaftStore, Role};
