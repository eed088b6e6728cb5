//! The built program, run as people run it, against the real API over a store in memory.

#![allow(
    clippy::unwrap_used,
    reason = "a test that can't go on has failed; helpers outside of #[test] are not exempt by themselves"
)]

mod certificates;
mod checks;
mod cluster;
mod founding;
mod home;
mod lookout;
mod usage;
