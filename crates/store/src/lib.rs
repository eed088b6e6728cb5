//! The consensus store: a linearizable key-value store with leases, behind one small trait.
//!
//! Everything above this crate sees only [`Store`]; which adapter stands behind it makes no difference.
//! **Invariant:** a committed transaction was decided on a majority; a lease never ends earlier than its
//! time to live after the last renewal that was acknowledged.

mod kv;
pub mod layout;
mod memory;
mod secret;
mod state;
mod views;

pub use kv::{
    Entry, Guard, LeaseId, Op, Outcome, Result, Revision, Snapshot, Store, StoreError, Txn, View,
};
pub use memory::{Fault, MemoryStore};
pub use secret::{Secret, SecretError};
