//! The consensus store: a linearizable key-value store with leases, behind one small trait.
//!
//! Everything above this crate sees only [`Store`]; which adapter stands behind it makes no difference.
//! **Invariant:** a committed transaction was decided on a majority; a lease never ends earlier than its
//! time to live after the last renewal that was acknowledged.

mod answers;
mod clock;
mod etcd;
mod kv;
pub mod layout;
mod memory;
mod peer;
mod raft;
mod remote;
mod secret;
mod state;
mod views;

pub use etcd::{EtcdLogin, EtcdOptions, EtcdSrv, EtcdStore, EtcdTls};
pub use kv::{
    Entry, Guard, LeaseId, Op, Outcome, Result, Revision, Snapshot, Store, StoreError, Txn, View,
};
pub use memory::{Fault, MemoryStore};
pub use peer::strangers::{Stranger, Strangers};
pub use peer::tls::{Tls, TlsOptions};
pub use raft::{MemberInfo, Options, RaftStore, Role, Start, Timing};
pub use remote::{RemoteOptions, RemoteStore};
pub use secret::{Secret, SecretError};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What a panic elsewhere left behind is whole: every change under our locks is a single step.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
