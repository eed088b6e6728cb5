//! A small world in which a cluster follows a primary of somebody else's, whose timelines come, go, and use a number again.
//!
//! Ours run the real [`ha::decide`] on views that may be old. The remote writes, fails over, and loses WAL by it; a person
//! makes the cluster one of its own and a standby cluster again. As in [`crate::mixed`], what takes time takes none here.
//!
//! **Invariant:** the same seed gives the same walk.

mod nodes;
mod remote;
mod walk;

pub use self::walk::{Outcome, walk};

/// A rule that is broken on purpose, in front of the decision or in the model of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// A claim is not guarded by the configuration that it was decided on, nor is it read again before the promotion.
    ClaimUnguarded,
    /// The remote's numbers are believed, and no bytes are compared.
    RemoteUncompared,
    /// A stream that has ended begins again by itself, and the timeline that it brings is not looked at.
    TimelineUnseen,
    /// A primary of a cluster that has become a standby cluster goes on.
    PrimaryKept,
}

impl Break {
    pub const ALL: [Self; 4] = [
        Self::ClaimUnguarded,
        Self::RemoteUncompared,
        Self::TimelineUnseen,
        Self::PrimaryKept,
    ];
}
