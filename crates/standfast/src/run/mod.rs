//! `standfast run`: turns a configuration into the running parts of a node.
//!
//! **Invariant:** whatever ends the process, Postgres is not primary longer than the lease allows: the guard sees to it.

mod agreed;
mod certificates;
mod instance;
mod life;
mod membership;
mod ports;
mod proxy;
mod store;
mod threads;

pub(crate) use life::{Ready, recover_store};
pub(crate) use store::etcd_options;
