//! One state, three vocabularies: ours, Patroni's `role` and `state`, and pg_auto_failover's state names.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node is, in our words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Known, nothing done yet.
    #[default]
    Init,
    /// Primary of a cluster of one.
    Single,
    /// Primary whose commits no standby protects at present.
    WaitingPrimary,
    /// Primary whose commits a quorum protects.
    Primary,
    /// Primary that hands over.
    Draining,
    /// Was primary or has no leader to follow; stopped or not yet rejoined.
    Demoted,
    /// Waits for, or makes, its first copy of the data.
    Joining,
    /// Streams, but is not a synchronous standby's equal yet.
    CatchingUp,
    Standby,
    /// Has the leadership, not yet writable.
    Promoting,
    /// Leads a standby cluster: follows another cluster's primary, and the members follow it.
    StandbyLeader,
    Maintenance,
    Dropped,
}

impl NodeState {
    pub const ALL: [Self; 13] = [
        Self::Init,
        Self::Single,
        Self::WaitingPrimary,
        Self::Primary,
        Self::Draining,
        Self::Demoted,
        Self::Joining,
        Self::CatchingUp,
        Self::Standby,
        Self::Promoting,
        Self::StandbyLeader,
        Self::Maintenance,
        Self::Dropped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Single => "single",
            Self::WaitingPrimary => "waiting primary",
            Self::Primary => "primary",
            Self::Draining => "draining",
            Self::Demoted => "demoted",
            Self::Joining => "joining",
            Self::CatchingUp => "catching up",
            Self::Standby => "standby",
            Self::Promoting => "promoting",
            Self::StandbyLeader => "standby leader",
            Self::Maintenance => "maintenance",
            Self::Dropped => "dropped",
        }
    }

    /// pg_auto_failover's name, as `show state` prints it.
    pub fn pg_auto_failover(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Single => "single",
            Self::WaitingPrimary => "wait_primary",
            Self::Primary => "primary",
            Self::Draining => "draining",
            Self::Demoted => "demoted",
            Self::Joining => "wait_standby",
            Self::CatchingUp => "catchingup",
            Self::Standby => "secondary",
            Self::Promoting => "prepare_promotion",
            // It has no standby clusters: a node that can't be written to.
            Self::StandbyLeader => "secondary",
            Self::Maintenance => "maintenance",
            Self::Dropped => "dropped",
        }
    }

    /// Patroni's `role` and `state`.
    pub fn patroni(self) -> (&'static str, &'static str) {
        match self {
            Self::Init => ("uninitialized", "stopped"),
            Self::Single | Self::WaitingPrimary | Self::Primary => ("primary", "running"),
            Self::Draining => ("primary", "stopping"),
            Self::Demoted => ("replica", "stopped"),
            Self::Joining => ("uninitialized", "creating replica"),
            Self::CatchingUp | Self::Standby | Self::Maintenance | Self::Promoting => {
                ("replica", "running")
            }
            Self::StandbyLeader => ("standby_leader", "running"),
            Self::Dropped => ("uninitialized", "stopped"),
        }
    }

    /// What a client can do there, as pg_auto_failover's `Connection` column says it.
    pub fn connection(self) -> &'static str {
        match self {
            Self::Single | Self::WaitingPrimary | Self::Primary => "read-write",
            Self::Standby | Self::CatchingUp | Self::Promoting | Self::StandbyLeader => "read-only",
            Self::Init
            | Self::Draining
            | Self::Demoted
            | Self::Joining
            | Self::Maintenance
            | Self::Dropped => "none",
        }
    }

    pub fn is_primary(self) -> bool {
        matches!(self, Self::Single | Self::WaitingPrimary | Self::Primary)
    }

    /// Whether a node that holds the leadership does what its office is: takes writes, or leads a standby cluster.
    pub fn is_in_office(self) -> bool {
        self.is_primary() || self == Self::StandbyLeader
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
