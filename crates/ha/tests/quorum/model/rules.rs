//! By which rules a world plays, and where it ends.

use super::state::REIGNS;

/// How a walsender that handles a reply decides what is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// By the setting that it last read, both S and k.
    AsRead,
    /// As `SyncRepReleaseWaiters` really does: k of the setting that it last read, but of all standbys whose own
    /// walsenders hold them for synchronous, each by the setting that *that one* last read.
    AsPostgres,
}

/// One operation of an agent that follows a fixed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    StoreJoint,
    StoreNew,
    Postgres,
    AwaitReaders,
    TakeBarrier,
    AwaitBarrier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Asks [`ha::quorum::next_step`].
    Steps,
    Naive(&'static [Op]),
}

/// A rule that this world breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The settings of a record are asked one by one, as if no commit were counted by two of them at once.
    EachSettingByItself,
    /// Any promised node may claim.
    ClaimantNotTheMostAdvanced,
    /// The record of a claim holds the new leader's setting only.
    ClaimReplacesTheRecord,
    /// The barrier is not awaited.
    BarrierNotAwaited,
    /// What was proven for a record is believed again although another one was being applied since.
    AppliedKeptWhileApplying,
    /// The walsenders have read the new setting; the checkpointer is not waited for.
    CheckpointerOverlooked,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub agent: Agent,
    pub counting: Counting,
    pub broken: Option<Break>,
}

impl Rules {
    pub const OURS: Self = Self {
        agent: Agent::Steps,
        counting: Counting::AsPostgres,
        broken: None,
    };

    pub fn but(broken: Break) -> Self {
        Self {
            broken: Some(broken),
            ..Self::OURS
        }
    }

    pub fn broken(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }
}

/// Where the world ends: it must, to be explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub nodes: usize,
    pub reigns: u8,
    /// How many commits each leader can write.
    pub commits: [u8; REIGNS],
    /// How often each leader changes its mind about the setting.
    pub changes: [u8; REIGNS],
}
