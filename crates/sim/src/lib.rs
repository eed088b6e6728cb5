//! A seeded world of many nodes that runs the real [`ha::decide`], with faults, invariants and an oracle.
//!
//! **Invariant:** the same seed gives the same bytes: no clock, no file, no thread, no hash map, one generator.
//!
//! The world is what a person could not arrange by hand: messages that are lost or late, clocks of different rates,
//! machines that freeze and thaw, disks that hang, walsenders that read their configuration one after the other.
//! What decides is `ha` itself; what acts is a model of the shell, written from the words of [`ha::Action`].

pub mod abroad;
mod act;
mod agent;
mod client;
mod config;
mod failsafe;
mod fault;
mod invariants;
mod join;
pub mod mixed;
mod net;
mod node;
mod observe;
mod orders;
mod postgres;
mod rng;
mod store;
mod stream;
mod time;
mod transaction;
mod wal;
mod world;

pub use config::{Break, Options};
pub use invariants::Violation;
pub use world::{Report, run};
