//! Whole clusters of real processes on one machine, the faults that befall them, and the client
//! that counts every acknowledged row. Shared by `standfast demo`, `standfast bench` and `e2e`.
//!
//! **Invariant:** everything that a [`Lab`] starts, mounts or creates is gone when it is dropped,
//! also when the code that used it panicked, but for the copy of its program, which goes with the last
//! of the labs that share it; nothing outside its directory and its own network namespaces is touched.
//!
//! It does not know how Standfast decides: it starts the binary, breaks things, and asks from
//! outside (SQL and REST) what became of them.

mod cluster;
mod disk;
mod dns;
mod etcd;
mod fault;
mod host;
mod http;
mod identity;
pub mod ledger;
mod network;
mod node;
mod ports;
mod processes;
mod program;
mod scene;
mod service;
mod shared_copy;
mod sockets;
mod wait;

pub use cluster::{Brought, Cluster, Member, Shape};
pub use disk::Disk;
pub use dns::Dns;
pub use etcd::Etcd;
pub use fault::{Fault, Fired};
pub use host::Host;
pub use http::{Answer, request};
pub use identity::Identity;
pub use ledger::{Ledger, Verdict};
pub use network::Network;
pub use node::{Node, Passwords};
pub use ports::{free_ports, take_port};
pub use processes::{Process, Selection};
pub use program::{postgres_bin_dir, run_to_end};
pub use scene::{Lab, Place, why_no_namespaces};
pub use service::{Service, file_of};
pub use wait::{eventually, until};
