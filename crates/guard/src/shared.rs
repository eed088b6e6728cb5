//! The page that agent and guard share: orders one way, facts the other.
//!
//! **Invariant:** every field is an atomic and has one writer (agent or guard), so a process that dies at any
//! point leaves the page readable. An order (epoch and deadline) is two words; the agent fills the slot that
//! is not in force and then switches, so the guard always reads a whole one.
//! It outlives an agent upgrade: fields are only ever added at the end, and `VERSION` counts that.
//! It does not know what the agent or the guard make of it.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// "standfst" in ASCII.
pub(crate) const MAGIC: u64 = 0x7374_616e_6466_7374;
pub(crate) const VERSION: u32 = 2;
/// Size of the file behind the mapping; room for later fields.
pub(crate) const FILE_SIZE: u64 = 4096;

/// What the agent wants: kill when CLOCK_BOOTTIME passes `deadline_ns`; 0 is no deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) epoch: u64,
    pub(crate) deadline_ns: u64,
}

impl Order {
    pub(crate) fn has_passed(self, now_ns: u64) -> bool {
        self.deadline_ns != 0 && now_ns >= self.deadline_ns
    }
}

#[derive(Debug, Default)]
struct Slot {
    epoch: AtomicU64,
    deadline_ns: AtomicU64,
}

/// The page. All zeroes is a valid one: starting, no deadline.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Shared {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    // The agent writes.
    pub(crate) fence: AtomicU32,
    switches: AtomicU64,
    slots: [Slot; 2],
    // The guard writes.
    pub(crate) phase: AtomicU32,
    pub(crate) cause: AtomicU32,
    pub(crate) guard_pid: AtomicI32,
    pub(crate) postmaster_pid: AtomicI32,
    pub(crate) postmaster_start: AtomicU64,
    pub(crate) exit: AtomicU64,
    pub(crate) left: AtomicU32,
    pub(crate) traits: AtomicU32,
    pub(crate) timer_ns: AtomicU64,
    pub(crate) ended_ns: AtomicU64,
    pub(crate) empty_ns: AtomicU64,
    // The agent writes: how many seconds the watchdog device is to count; 0: it is not wanted.
    pub(crate) dog_seconds: AtomicU32,
    // The guard writes: what has become of it.
    pub(crate) dog: AtomicU64,
}

/// Bits of `traits`.
pub(crate) const HAS_CGROUP: u32 = 1;
pub(crate) const HAS_LOCKED_MEMORY: u32 = 2;

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guard is being set up; there is no postmaster yet.
    Starting,
    /// The postmaster is alive.
    Running,
    /// A stop was asked for, or the postmaster has exited by itself; processes may still be ending.
    Stopping,
    /// The guard is killing every process of the instance.
    Killing,
    /// Proven: no process of the instance is left.
    Empty,
    /// The guard is gone without having proven anything: use [`crate::kill_leftovers`].
    Lost,
}

impl Phase {
    const CODES: [(u32, Self); 5] = [
        (0, Self::Starting),
        (1, Self::Running),
        (2, Self::Stopping),
        (3, Self::Killing),
        (4, Self::Empty),
    ];

    pub(crate) fn code(self) -> u32 {
        Self::CODES
            .iter()
            .find(|(_, phase)| *phase == self)
            .map_or(3, |(code, _)| *code)
    }

    /// A code of a later version is read as `Killing`: something is going on and nothing is proven.
    pub(crate) fn of(code: u32) -> Self {
        Self::CODES
            .iter()
            .find(|(known, _)| *known == code)
            .map_or(Self::Killing, |(_, p)| *p)
    }
}

impl Shared {
    /// The order in force. Retries while the agent switches; it switches a few times a second.
    pub(crate) fn order(&self) -> Order {
        loop {
            let switches = self.switches.load(SeqCst);
            let slot = &self.slots[slot_of(switches)];
            let order = Order {
                epoch: slot.epoch.load(SeqCst),
                deadline_ns: slot.deadline_ns.load(SeqCst),
            };
            if self.switches.load(SeqCst) == switches {
                return order;
            }
        }
    }

    /// Puts `order` in force. Callers make sure that there is one writer at a time.
    pub(crate) fn put(&self, order: Order) {
        let next = self.switches.load(SeqCst).wrapping_add(1);
        let slot = &self.slots[slot_of(next)];
        slot.epoch.store(order.epoch, SeqCst);
        slot.deadline_ns.store(order.deadline_ns, SeqCst);
        self.switches.store(next, SeqCst);
    }
}

fn slot_of(switches: u64) -> usize {
    usize::from(switches % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_whole_while_it_changes() {
        let shared = Shared::default();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..200_000 {
                    shared.put(Order {
                        epoch: n,
                        deadline_ns: n * 3,
                    });
                }
            });
            let mut last = 0;
            while !writer.is_finished() {
                let order = shared.order();
                assert_eq!(order.deadline_ns, order.epoch * 3);
                assert!(order.epoch >= last);
                last = order.epoch;
            }
        });
    }

    #[test]
    fn a_writer_that_dies_between_the_words_leaves_the_old_order() {
        let shared = Shared::default();
        shared.put(Order {
            epoch: 1,
            deadline_ns: 10,
        });
        let idle = &shared.slots[slot_of(shared.switches.load(SeqCst) + 1)];
        idle.epoch.store(2, SeqCst);
        assert_eq!(
            shared.order(),
            Order {
                epoch: 1,
                deadline_ns: 10
            }
        );
    }

    #[test]
    fn every_phase_that_is_written_is_read_back() {
        for (code, phase) in Phase::CODES {
            assert_eq!((phase.code(), Phase::of(code)), (code, phase));
        }
        assert_eq!(Phase::of(99), Phase::Killing);
    }
}
