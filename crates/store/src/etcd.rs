//! etcd's v3 interface as a store, for those who run etcd already.
//!
//! It speaks gRPC itself, over hyper and with hand-written messages: what is certain of a call that failed (it never
//! left, or it may have happened) is what this crate promises to its callers, and a gRPC library keeps that to itself.

mod channel;
mod dial;
mod failure;
mod follow;
mod members;
mod options;
mod proto;
mod seek;
mod srv;
mod store;
mod translate;

pub use options::{EtcdLogin, EtcdOptions, EtcdSrv, EtcdTls};
pub use store::EtcdStore;
