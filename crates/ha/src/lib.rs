//! What a node should do: views, quorum rules, decisions. Pure.
//!
//! **Invariant:** nothing in this crate reads a clock, a file, a socket or a random number.
//! It is told the time and what the world said, and answers with what to do and why.

mod lineage;
pub mod quorum;
mod types;

pub use lineage::{Branch, Lineage, Position, Relation};
pub use types::{
    BadLsn, BadNodeName, Epoch, Instant, Lsn, NodeName, SystemId, Timeline,
};
