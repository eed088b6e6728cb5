//! When each lease was last seen alive, and which are over.
//!
//! **Invariant:** a lease is called over only when its whole time to live has passed since this member
//! applied its last renewal, and since this member became leader: a change of leader makes a lease
//! longer, never shorter.
//!
//! It proposes nothing itself: an expiry is a command that a renewal in the log still defeats.

use crate::kv::LeaseId;
use crate::state::{Command, Lease, State};
use ha::Instant;
use std::collections::BTreeMap;

/// The moment of each lease's last grant or renewal, as applied here.
#[derive(Debug, Default)]
pub(crate) struct LeaseTimes {
    seen: BTreeMap<LeaseId, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    renewals: u64,
    at: Instant,
}

impl LeaseTimes {
    /// After a snapshot nothing is known of the past, so every lease begins anew.
    pub(crate) fn restarted(state: &State, now: Instant) -> Self {
        let anew = |(id, lease): (&LeaseId, &Lease)| {
            (
                *id,
                Seen {
                    renewals: lease.renewals,
                    at: now,
                },
            )
        };
        Self {
            seen: state.leases().iter().map(anew).collect(),
        }
    }

    /// Takes note of a command that was just applied.
    pub(crate) fn note(&mut self, state: &State, command: &Command, now: Instant) {
        let lease = match command {
            Command::Commit(txn) => txn.renew,
            Command::Grant { lease, .. }
            | Command::Renew(lease)
            | Command::Revoke(lease)
            | Command::Expire { lease, .. } => Some(*lease),
        };
        let Some(id) = lease else { return };
        let Some(lease) = state.leases().get(&id) else {
            self.seen.remove(&id);
            return;
        };
        // The counter tells a renewal from a transaction that was refused.
        if self
            .seen
            .get(&id)
            .is_none_or(|seen| seen.renewals != lease.renewals)
        {
            self.seen.insert(
                id,
                Seen {
                    renewals: lease.renewals,
                    at: now,
                },
            );
        }
    }

    /// The moment at which each lease is over for a leader since `leader_since`, with its counter.
    pub(crate) fn ends(
        &self,
        state: &State,
        leader_since: Instant,
    ) -> impl Iterator<Item = (LeaseId, u64, Instant)> {
        state.leases().iter().map(move |(id, lease)| {
            let seen = self
                .seen
                .get(id)
                .map_or(leader_since, |seen| seen.at.max(leader_since));
            (*id, lease.renewals, seen.plus(lease.ttl))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Txn;
    use std::time::Duration;

    const LEASE: LeaseId = LeaseId(1);

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    struct World {
        state: State,
        times: LeaseTimes,
    }

    impl World {
        fn granted() -> Self {
            let mut world = Self {
                state: State::default(),
                times: LeaseTimes::default(),
            };
            world.apply(
                Command::Grant {
                    lease: LEASE,
                    ttl: Duration::from_secs(1),
                },
                at(0),
            );
            world
        }

        fn apply(&mut self, command: Command, now: Instant) {
            self.state.apply(&command);
            self.times.note(&self.state, &command, now);
        }

        fn end(&self, leader_since: Instant) -> Option<Instant> {
            self.times
                .ends(&self.state, leader_since)
                .next()
                .map(|(_, _, end)| end)
        }
    }

    #[test]
    fn a_lease_is_over_its_time_to_live_after_the_last_renewal() {
        let mut world = World::granted();
        assert_eq!(world.end(at(0)), Some(at(1000)));
        world.apply(Command::Renew(LEASE), at(700));
        assert_eq!(world.end(at(0)), Some(at(1700)));
        world.apply(Command::Commit(Txn::new().renew(LEASE)), at(800));
        assert_eq!(world.end(at(0)), Some(at(1800)));
    }

    #[test]
    fn a_refused_transaction_renews_nothing() {
        let mut world = World::granted();
        let refused = Txn::new()
            .when(crate::Guard::Present { key: "a".into() })
            .renew(LEASE);
        world.apply(Command::Commit(refused), at(500));
        assert_eq!(world.end(at(0)), Some(at(1000)));
    }

    #[test]
    fn a_new_leader_makes_a_lease_longer() {
        let world = World::granted();
        assert_eq!(world.end(at(900)), Some(at(1900)));
    }

    #[test]
    fn a_snapshot_starts_every_lease_anew() {
        let world = World::granted();
        let times = LeaseTimes::restarted(&world.state, at(5000));
        let world = World {
            state: world.state,
            times,
        };
        assert_eq!(world.end(at(0)), Some(at(6000)));
    }

    #[test]
    fn an_ended_lease_is_forgotten() {
        let mut world = World::granted();
        world.apply(Command::Revoke(LEASE), at(100));
        assert_eq!(world.end(at(0)), None);
        assert!(world.times.seen.is_empty());
    }
}
