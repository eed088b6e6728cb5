//! `ha::quorum` against a model of everything that can go on around it.
//!
//! What takes longer than a few seconds is ignored here and run by
//! `cargo test -p ha --test quorum -- --ignored`.

mod leaderships;
pub mod model;
mod naive_orders;
mod one_change;
mod rules;
mod superseded;
