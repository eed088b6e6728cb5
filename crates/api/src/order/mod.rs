//! What changes something in the store: each one a transaction guarded by what it was decided on.
//!
//! **Invariant:** an order is written only on a linearizable read made for it, guarded by the keys it rests on.

mod config;
mod node;
mod outcome;
mod perform;
mod register;
mod scheduled;

pub(crate) use config::{merge, replace};
pub(crate) use node::{maintain, remove, set};
pub(crate) use perform::{Order, cancel, perform};
pub(crate) use register::entries;
pub use register::register;
pub(crate) use scheduled::schedule;
pub use scheduled::{Due, due};

use crate::error::Refusal;
use store::{Outcome, Store, Txn};

/// How often an order is made anew after another one came in between.
pub(crate) const TRIES: u32 = 5;

/// Whether the transaction happened; `false`: something it rests on has changed.
pub(crate) async fn commit(store: &dyn Store, txn: Txn) -> Result<bool, Refusal> {
    match store.commit(txn).await? {
        Outcome::Committed { .. } => Ok(true),
        Outcome::Refused => Ok(false),
    }
}

/// Others were faster, again and again.
pub(crate) fn overtaken() -> Refusal {
    Refusal::conflict("others changed the same records at the same time")
        .hint("look at the state and try again")
}
