//! The codec: what is written is read, whatever is read does no harm, and it is fast.

#[path = "../../fuzz/checks.rs"]
mod checks;

mod allocation;
mod corpus;
mod floods;
mod hostile;
mod pure;
mod round_trip;
mod samples;
mod speed;
