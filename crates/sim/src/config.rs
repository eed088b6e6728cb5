//! What a world is like, drawn from its seed; and the deliberate breaks by which the harness is itself tested.

use crate::fault::Kind;
use crate::rng::Rng;
use crate::time::{Micros, ms};
use ha::{Settings, SyncMode};
use std::time::Duration;

/// A rule that is broken on purpose, in the shell or in front of the decision, never in `ha`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// A promise is written while WAL still streams in.
    PromiseWhileStreaming,
    /// A promise is taken back without checking the epoch.
    WithdrawUnchecked,
    /// The claimant is not the most advanced.
    ClaimBehind,
    /// A claim replaces the record instead of joining it.
    ClaimReplacesRecord,
    /// The record moves on before the barrier.
    RecordBeforeBarrier,
    /// The lease is counted from the answer instead of the request.
    LeaseFromAnswer,
    /// The leadership is released while a backend still lives.
    ReleaseWithBackends,
    /// The primary opens before a quorum has its end of recovery.
    OpenEarly,
    /// A standby follows without the linearizable read.
    FollowUnread,
    /// Timeline numbers are believed without their epochs.
    NumbersBelieved,
    /// A standby reconnects by itself to the same node's next leadership, before its note names it.
    StreamAcrossEpochs,
    /// A transaction that was given up may still arrive after the node has moved on.
    LateTransactions,
    /// A primary that died under a pending order counts as one that was stopped cleanly.
    CrashAsHandover,
    /// An agent does not see that the cluster is paused.
    PauseUnseen,
    /// Candidate priorities, maintenance and drops of the other nodes and of this one are not seen by a claimant.
    PriorityUnseen,
    /// A node claims without proof, though no person has accepted the loss.
    LossUnasked,
    /// A dropped node leaves while the sync record still names it.
    LeaveNamed,
    /// Half a record that came in counts as replayed.
    HalfBelieved,
    /// The founder takes a directory with data for an empty one.
    DataOverlooked,
    /// An agent that restarts no longer knows that it holds still.
    HoldLost,
    /// A node that holds still promises and claims nevertheless.
    HoldForgotten,
    /// A promoted node whose commits need nobody else acknowledges them before its lineage is published.
    AcknowledgeUnpublished,
    /// A node that starts streams at once, whatever WAL it has.
    RejoinUnproven,
}

impl Break {
    /// With the names that the command line knows them by.
    pub const ALL: [(Self, &'static str); 23] = [
        (Self::PromiseWhileStreaming, "promise-while-streaming"),
        (Self::WithdrawUnchecked, "withdraw-unchecked"),
        (Self::ClaimBehind, "claim-behind"),
        (Self::ClaimReplacesRecord, "claim-replaces-record"),
        (Self::RecordBeforeBarrier, "record-before-barrier"),
        (Self::LeaseFromAnswer, "lease-from-answer"),
        (Self::ReleaseWithBackends, "release-with-backends"),
        (Self::OpenEarly, "open-early"),
        (Self::FollowUnread, "follow-unread"),
        (Self::NumbersBelieved, "numbers-believed"),
        (Self::StreamAcrossEpochs, "stream-across-epochs"),
        (Self::LateTransactions, "late-transactions"),
        (Self::CrashAsHandover, "crash-as-handover"),
        (Self::PauseUnseen, "pause-unseen"),
        (Self::PriorityUnseen, "priority-unseen"),
        (Self::LossUnasked, "loss-unasked"),
        (Self::LeaveNamed, "leave-named"),
        (Self::HalfBelieved, "half-believed"),
        (Self::DataOverlooked, "data-overlooked"),
        (Self::HoldLost, "hold-lost"),
        (Self::HoldForgotten, "hold-forgotten"),
        (Self::AcknowledgeUnpublished, "acknowledge-unpublished"),
        (Self::RejoinUnproven, "rejoin-unproven"),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(found, _)| *found)
    }

    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == self)
            .map_or("", |(_, name)| name)
    }
}

/// Many worlds have only a few kinds of fault. A break gets those that are needed to see it, and no others.
fn weights(broken: Option<Break>, rng: &mut Rng) -> Vec<u64> {
    let kinds: &[Kind] = match broken {
        Some(Break::WithdrawUnchecked | Break::FollowUnread | Break::LateTransactions) => &[
            Kind::Freeze,
            Kind::StoreLossy,
            Kind::ViewLag,
            Kind::StopAgent,
            Kind::OneWay,
        ],
        Some(Break::LeaseFromAnswer) => &[
            Kind::StoreSlow,
            Kind::CutFromStore,
            Kind::Isolate,
            Kind::StoreLossy,
        ],
        Some(Break::HoldLost | Break::HoldForgotten) => {
            &[Kind::CutFromStore, Kind::OneWay, Kind::KillAgent]
        }
        Some(Break::ReleaseWithBackends | Break::StreamAcrossEpochs) => &[
            Kind::KillPostmaster,
            Kind::KillBoth,
            Kind::KillAgent,
            Kind::Switchover,
        ],
        Some(Break::CrashAsHandover) => &[Kind::KillPostmaster, Kind::Switchover],
        Some(Break::PauseUnseen) => &[Kind::Pause, Kind::LoseMachine, Kind::KillPostmaster],
        Some(Break::PriorityUnseen) => &[Kind::Priority, Kind::LoseMachine, Kind::KillPostmaster],
        Some(Break::HalfBelieved) => &[Kind::KillPostmaster, Kind::LoseMachine, Kind::Isolate],
        Some(Break::AcknowledgeUnpublished) => {
            &[Kind::LoseMachine, Kind::KillPostmaster, Kind::Isolate]
        }
        Some(Break::RejoinUnproven) => &[Kind::KillPostmaster, Kind::LoseMachine, Kind::Isolate],
        Some(Break::LeaveNamed) => &[Kind::Drop, Kind::LoseMachine, Kind::Isolate],
        _ => &[],
    };
    Kind::ALL
        .iter()
        .map(|(kind, weight)| match kinds {
            [] => weight * [0, 0, 1, 1, 3][rng.index(5)],
            kinds => u64::from(kinds.contains(kind)) * 5,
        })
        .collect()
}

/// Which world to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub seed: u64,
    pub broken: Option<Break>,
    pub trace: bool,
}

/// The world's fixed properties.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub nodes: usize,
    /// The store's voters are the nodes (and a witness where their number is even).
    pub colocated: bool,
    pub settings: Settings,
    pub broken: Option<Break>,
    /// How long faults are injected, after the cluster was founded.
    pub turmoil: Micros,
    /// How often each kind of fault comes; many kinds not at all, so that the others meet each other.
    pub weights: Vec<u64>,
    /// Time between faults, at most.
    pub fault_gap: Micros,
    /// Out of a thousand messages to or from the store, lost.
    pub loss: u64,
    /// After this a request is given up. It may still arrive.
    pub call_timeout: Micros,
    /// Of a thousand requests of a lossy store, how many arrive long after they were given up.
    pub late: u64,
    /// How far a lagging watch lags, at most.
    pub view_lag: Micros,
    /// How old what an agent knows of its Postgres may be.
    pub look_every: Duration,
    /// How many records a primary keeps for standbys that are away.
    pub retention: usize,
    pub clients: usize,
    /// The first node brings a data directory from before, with so many records.
    pub adopted: usize,
    /// Of a thousand promotions, how many are followed by a fault at once.
    pub double_fault: u64,
    /// Of a thousand promotions, how many the user's program refuses.
    pub refusals: u64,
    /// Of a thousand pieces of WAL, how many end in the middle of a record.
    pub halves: u64,
    /// Out of a thousand commits, the first flush is slow.
    pub slow_flush: u64,
}

impl Config {
    pub(crate) fn drawn(options: &Options, rng: &mut Rng) -> Self {
        let nodes = [2, 3, 3, 3, 3, 4, 5][rng.index(7)];
        let off = rng.chance(220)
            || matches!(
                options.broken,
                Some(
                    Break::LeaseFromAnswer
                        | Break::ReleaseWithBackends
                        | Break::CrashAsHandover
                        | Break::HoldLost
                        | Break::HoldForgotten
                )
            );
        let fast = rng.chance(500);
        let settings = Settings {
            ttl: Duration::from_millis(if fast { 1000 } else { 3000 }),
            beat: Duration::from_millis(if fast { 150 } else { 250 }),
            failure_timeout: Duration::from_millis(if fast { 500 } else { 1000 }),
            sync_mode: match off {
                true => SyncMode::Off,
                false if rng.chance(150) => SyncMode::On,
                false => SyncMode::Quorum,
            },
            sync_strict: !off && rng.chance(250),
            sync_node_count: if nodes > 2 && rng.chance(350) { 2 } else { 1 },
            sync_relax_after: Duration::from_millis(rng.between(300, 2000)),
            lag_bytes_max: if rng.chance(300) { 8 << 20 } else { 1 << 30 },
            primary_start_timeout: Duration::from_secs(5),
            ..Settings::default()
        };
        let mut config = Self {
            nodes,
            colocated: rng.chance(500),
            settings,
            broken: options.broken,
            turmoil: ms(rng.between(6_000, 16_000)),
            weights: weights(options.broken, rng),
            fault_gap: ms(rng.between(200, 2_500)),
            loss: if rng.chance(500) {
                rng.between(1, 40)
            } else {
                0
            },
            call_timeout: ms([200, 400, 1000][rng.index(3)]),
            late: 15,
            view_lag: ms(rng.between(300, 3000)),
            look_every: Duration::from_millis(rng.between(1, 1000)),
            retention: if rng.chance(300) { 40 } else { usize::MAX },
            clients: 2 + rng.index(2),
            adopted: [0, 0, 0, 1, 40][rng.index(5)],
            double_fault: if rng.chance(500) { 500 } else { 0 },
            refusals: if rng.chance(300) { 400 } else { 0 },
            halves: 400,
            slow_flush: rng.below(40),
        };
        config.settings.failsafe = rng.chance(350);
        config.focus();
        config
    }

    /// A break is looked for where it shows: hasty agents, views that lag, faults in quick succession.
    fn focus(&mut self) {
        match self.broken {
            Some(Break::WithdrawUnchecked | Break::FollowUnread | Break::LateTransactions) => {
                self.call_timeout = ms(200);
                self.view_lag = ms(3000);
                self.loss = 150;
                self.late = 100;
                self.fault_gap = ms(900);
                self.turmoil = ms(16_000);
            }
            Some(Break::HalfBelieved) => {
                self.halves = 1000;
                self.slow_flush = 300;
                self.double_fault = 1000;
                self.fault_gap = ms(900);
                self.turmoil = ms(16_000);
            }
            Some(Break::LeaseFromAnswer) => {
                self.call_timeout = ms(1000);
                self.fault_gap = ms(900);
                self.turmoil = ms(16_000);
            }
            Some(Break::HoldLost | Break::HoldForgotten) => {
                self.settings.failsafe = true;
                self.call_timeout = ms(400);
                self.loss = 150;
                self.fault_gap = ms(900);
                self.turmoil = ms(16_000);
            }
            Some(Break::AcknowledgeUnpublished) => {
                self.double_fault = 1000;
                self.fault_gap = ms(900);
                self.turmoil = ms(16_000);
            }
            Some(_) | None => {}
        }
    }

    pub(crate) fn is_broken(&self, by: Break) -> bool {
        self.broken == Some(by)
    }

    pub(crate) fn synchronous(&self) -> bool {
        self.settings.sync_mode != SyncMode::Off
    }
}
