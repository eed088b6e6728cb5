//! What the guard does next, decided from what it sees. Pure: no clock, no processes.
//!
//! **Invariant:** once killing, it kills until nothing is left; a deadline that has passed is never survived;
//! `Empty` follows only on a proof. The cause is that of the first step away from running.
//! It does not know how processes are killed or counted.

/// Why the guard stopped watching and began to end the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The armed deadline passed.
    Deadline,
    /// The agent asked for it.
    Asked,
    /// The postmaster ended: by itself, by a stop, or killed.
    PostmasterDied,
    /// The guard was told to terminate (machine shutdown) and stopped Postgres.
    GuardTold,
}

impl Cause {
    const CODES: [(u32, Self); 4] = [
        (1, Self::Deadline),
        (2, Self::Asked),
        (3, Self::PostmasterDied),
        (4, Self::GuardTold),
    ];

    pub(crate) fn code(self) -> u32 {
        Self::CODES
            .iter()
            .find(|(_, cause)| *cause == self)
            .map_or(0, |(code, _)| *code)
    }

    pub(crate) fn of(code: u32) -> Option<Self> {
        Self::CODES
            .iter()
            .find(|(known, _)| *known == code)
            .map(|(_, cause)| *cause)
    }

    /// For the log.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Deadline => "the deadline passed",
            Self::Asked => "the agent asked for it",
            Self::PostmasterDied => "the postmaster ended",
            Self::GuardTold => "the guard was told to terminate",
        }
    }
}

/// Where the guard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The postmaster lives; `told` when it was asked for a fast shutdown on our behalf.
    Running { told: bool },
    /// The postmaster has exited in order; its last helpers (the log collector) may finish, for a moment.
    Draining { cause: Cause, until_ns: u64 },
    /// Everything is being killed.
    Killing { cause: Cause },
    /// Nothing is left.
    Empty { cause: Cause },
}

/// The postmaster, as the guard saw it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Postmaster {
    Alive,
    Exited,
    Killed,
}

/// What is seen in one look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) now_ns: u64,
    pub(crate) deadline_passed: bool,
    pub(crate) fence_asked: bool,
    pub(crate) told: bool,
    pub(crate) postmaster: Postmaster,
    /// Proven in this look: no child, nothing in the cgroup, nothing in the data directory.
    pub(crate) nothing_left: bool,
}

/// How long the helpers of a postmaster that exited by itself may take to write their last lines.
/// Leadership is not released before they are gone, and a deadline cuts it short.
const DRAIN_NS: u64 = 100_000_000;

/// The next stage.
pub(crate) fn next(stage: Stage, seen: &Seen) -> Stage {
    match stage {
        Stage::Running { told } => {
            let told = told || seen.told;
            let ended = if told {
                Cause::GuardTold
            } else {
                Cause::PostmasterDied
            };
            match must_kill(seen) {
                Some(cause) => Stage::Killing { cause },
                None => match seen.postmaster {
                    Postmaster::Alive => Stage::Running { told },
                    Postmaster::Killed => Stage::Killing { cause: ended },
                    Postmaster::Exited => Stage::Draining {
                        cause: ended,
                        until_ns: seen.now_ns.saturating_add(DRAIN_NS),
                    },
                },
            }
        }
        Stage::Draining { cause, until_ns } => {
            if seen.nothing_left {
                Stage::Empty { cause }
            } else if must_kill(seen).is_some() || seen.now_ns >= until_ns {
                Stage::Killing { cause }
            } else {
                stage
            }
        }
        Stage::Killing { cause } if seen.nothing_left => Stage::Empty { cause },
        Stage::Killing { .. } | Stage::Empty { .. } => stage,
    }
}

fn must_kill(seen: &Seen) -> Option<Cause> {
    if seen.deadline_passed {
        Some(Cause::Deadline)
    } else if seen.fence_asked {
        Some(Cause::Asked)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Seen = Seen {
        now_ns: 1_000,
        deadline_passed: false,
        fence_asked: false,
        told: false,
        postmaster: Postmaster::Alive,
        nothing_left: false,
    };
    const RUNNING: Stage = Stage::Running { told: false };

    #[test]
    fn a_passed_deadline_kills_from_every_stage() {
        let late = Seen {
            deadline_passed: true,
            ..QUIET
        };
        let draining = Stage::Draining {
            cause: Cause::GuardTold,
            until_ns: u64::MAX,
        };
        for stage in [RUNNING, Stage::Running { told: true }, draining] {
            assert!(
                matches!(next(stage, &late), Stage::Killing { .. }),
                "{stage:?}"
            );
        }
    }

    #[test]
    fn killing_ends_only_on_proof() {
        let killing = Stage::Killing {
            cause: Cause::Asked,
        };
        let dead = Seen {
            postmaster: Postmaster::Killed,
            ..QUIET
        };
        assert_eq!(next(killing, &dead), killing);
        let proven = Seen {
            nothing_left: true,
            ..dead
        };
        assert_eq!(
            next(killing, &proven),
            Stage::Empty {
                cause: Cause::Asked
            }
        );
    }

    #[test]
    fn a_killed_postmaster_gets_no_grace_and_an_exited_one_a_short_one() {
        let killed = Seen {
            postmaster: Postmaster::Killed,
            ..QUIET
        };
        assert_eq!(
            next(RUNNING, &killed),
            Stage::Killing {
                cause: Cause::PostmasterDied
            }
        );
        let exited = Seen {
            postmaster: Postmaster::Exited,
            ..QUIET
        };
        let draining = next(RUNNING, &exited);
        assert_eq!(
            draining,
            Stage::Draining {
                cause: Cause::PostmasterDied,
                until_ns: 1_000 + DRAIN_NS
            }
        );
        assert_eq!(next(draining, &exited), draining);
        let later = Seen {
            now_ns: 1_000 + DRAIN_NS,
            ..exited
        };
        assert_eq!(
            next(draining, &later),
            Stage::Killing {
                cause: Cause::PostmasterDied
            }
        );
    }

    #[test]
    fn a_guard_that_is_told_waits_for_the_postmaster() {
        let told = next(
            RUNNING,
            &Seen {
                told: true,
                ..QUIET
            },
        );
        assert_eq!(told, Stage::Running { told: true });
        let exited = next(
            told,
            &Seen {
                postmaster: Postmaster::Exited,
                ..QUIET
            },
        );
        assert!(matches!(
            exited,
            Stage::Draining {
                cause: Cause::GuardTold,
                ..
            }
        ));
    }

    #[test]
    fn every_cause_that_is_written_is_read_back() {
        for (code, cause) in Cause::CODES {
            assert_eq!((cause.code(), Cause::of(code)), (code, Some(cause)));
        }
        assert_eq!(Cause::of(0), None);
    }
}
