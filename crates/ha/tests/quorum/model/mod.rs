//! A small world of leaders, walsenders and a store, explored to its last state.
//!
//! **Invariant:** the agent of this world does only what [`ha::quorum::next_step`] says, and a claim passes only if
//! [`ha::quorum::SyncRecord::accepts`] lets it; everything else here is Postgres, chance and bad luck.
//!
//! Knows nothing of time: what may happen, happens in every order.

mod agents;
mod claims;
mod postgres;
mod records;
mod rules;
mod search;
mod settings;
mod state;
mod table;
mod trace;
mod world;

pub use rules::{Agent, Bounds, Break, Counting, Op, Rules};
pub use search::{Sum, Verdict, explore};
pub use settings::{Compact, Pair, all_settings, pairs, triples};
pub use world::World;
