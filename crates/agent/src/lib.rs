//! The agent of one node: it observes, lets `ha` decide, and does what was decided.
//!
//! **Invariant:** the loop never blocks; whatever hangs (a disk, Postgres, the store) is seen, not waited for.
//! It deliberately decides nothing itself: every choice is `ha::decide`'s, and the journal can make it again.

mod agent;
mod answers;
mod callbacks;
mod clock;
mod contact;
mod directory;
mod door;
mod events;
mod failsafe;
mod figures;
mod holds;
mod journal;
mod keeper;
mod known;
mod note;
mod observe;
mod pace;
mod promotion;
mod serve;
mod shell;
mod steps;
mod tenure;
mod witness;

pub use agent::{Agent, AgentError, Ended, Handle, Options, PHRASES, StopOrder, Tags, Watchdog};
pub use callbacks::Programs;
pub use clock::now;
pub use holds::Holds;
pub use journal::Line;
pub use note::NoteError;
pub use shell::Hooks;
pub use witness::{Witness, WitnessOptions};
