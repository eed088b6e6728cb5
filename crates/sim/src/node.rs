//! One machine: its clock, its disk, its Postgres, its guard and its agent.

use crate::store::{LeaseId, Snapshot};
use crate::time::{Clock, Micros};
use crate::wal::Record;
use crate::world::{Event, Target};
use ha::quorum::{Applied, Setting};
use ha::{
    Action, Contact, DataDir, Epoch, Errand, Hold, Instant, Job, Lease, Lineage, NodeName,
    Postgres, StreamBroken, Timeline, Walsender,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A node's place in the world.
pub(crate) type NodeId = usize;

#[derive(Debug)]
pub(crate) struct Node {
    pub name: NodeName,
    pub up: bool,
    pub boot: u64,
    pub frozen: bool,
    pub thawed: Micros,
    pub deferred: Vec<(Target, Event)>,
    pub clock: Clock,
    pub disk: Disk,
    pub pg: Pg,
    pub agent: Agent,
    /// The guard's mapping: when it kills Postgres, by the local clock.
    pub guard: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    #[default]
    Fine,
    Slow,
    /// Writes neither succeed nor fail, and who waits for one can't be killed.
    Hung,
    Full,
}

/// What outlives the processes.
#[derive(Debug)]
pub(crate) struct Disk {
    pub health: Health,
    pub sick_since: Micros,
    pub data: DataDir,
    pub wal: Vec<Record>,
    /// After the last record, the first half of one more has come in. It will never be replayed.
    pub half: bool,
    /// How many records survive a power loss.
    pub flushed: usize,
    pub note: Option<Lineage>,
    /// The control file says that a primary was shut down here.
    pub clean_stop: bool,
    /// Numbers of the history files in `pg_wal`.
    pub histories: BTreeSet<Timeline>,
    /// It was rewound, and Postgres does not open before it has so many records.
    pub needs: Option<usize>,
    /// The epoch of whose leader this node holds still, or did.
    pub hold: Option<Epoch>,
    /// `primary_conninfo`: the node, and the epoch in the name of the slot.
    pub upstream: Option<(NodeId, Epoch)>,
}

/// The processes of the instance.
#[derive(Debug)]
pub(crate) struct Pg {
    /// Of this start; whatever belongs to an earlier one is gone.
    pub run: u64,
    pub life: Life,
    /// SIGSTOP on all of it, since then.
    pub stopped: Option<Micros>,
    pub deferred: Vec<(Target, Event)>,
    pub role: Role,
    pub flushing: bool,
    /// Whether a promotion is under way.
    pub promoting: bool,
    /// What it will be once it is promoted.
    pub promotion: Option<Box<PrimarySide>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Down,
    Starting,
    Up,
    /// The postmaster is dead, some backends are not.
    Orphaned,
    /// Killed, not all of it is gone.
    Dying,
}

#[derive(Debug)]
pub(crate) enum Role {
    Standby(StandbySide),
    Primary(Box<PrimarySide>),
}

#[derive(Debug, Default)]
pub(crate) struct StandbySide {
    pub receiver: Option<Receiver>,
    /// Whether a receiver ran in this start: then what it flushed is the end.
    pub streamed: bool,
    pub replayed: usize,
    /// The startup process was seen twice waiting for more.
    pub waiting: bool,
    pub open: bool,
    pub broken: Option<StreamBroken>,
    /// A broken detach: the receiver lives on unseen.
    pub ghost: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub connection: u64,
    pub from: NodeId,
}

/// `synchronous_standby_names`: `ANY needed (names)`; empty is asynchronous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub needed: usize,
    pub names: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub(crate) struct PrimarySide {
    pub timeline: Timeline,
    pub epoch: Epoch,
    pub open: bool,
    pub draining: bool,
    /// The configuration file's setting.
    pub configured: Names,
    /// What the checkpointer has read: decides whether backends wait at all.
    pub defined: Names,
    /// Records that synchronous replication has let go.
    pub released: usize,
    pub senders: BTreeMap<NodeId, Sender>,
    pub waiting: Vec<Waiter>,
    /// The number of records when it left recovery, its end-of-recovery record included.
    pub recovered: usize,
}

#[derive(Debug)]
pub(crate) struct Sender {
    pub connection: u64,
    /// What this walsender has read.
    pub read: Names,
    pub sent: usize,
    pub flushed: usize,
    pub busy: bool,
    /// A message was lost: the connection is dead, whoever has noticed.
    pub broken: bool,
}

/// A backend in its COMMIT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub index: usize,
    pub uid: u64,
    pub begun: Micros,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub alive: bool,
    pub run: u64,
    pub stopped: bool,
    pub deferred: Vec<(Target, Event)>,
    pub wake_pending: bool,
    pub snapshot: Rc<Snapshot>,
    pub started: Instant,
    /// When the store last answered anything.
    pub heard: Option<Instant>,
    /// The view has come as far as the store was when this agent began.
    pub met: bool,
    /// Nothing is decided before the view has come this far, or until then.
    pub must_see: (u64, Instant),
    /// What was last seen of the instance, and when.
    pub seen: Option<Seen>,
    /// What was seen before an action's end is out of date.
    pub fresh_from: Instant,
    /// Since when Postgres is seen to be a primary.
    pub primary_since: Option<Instant>,
    pub lease_id: Option<LeaseId>,
    pub lease: Option<Lease>,
    /// Until then the members hold still for this leader.
    pub by_members: Option<Instant>,
    /// The leader key was found gone, and is taken again.
    pub retaking: bool,
    /// This node's word to a leader that has lost the store.
    pub hold: Option<Hold>,
    /// The newest epoch of which a promise or a claim may be on its way.
    pub spoken: Option<Epoch>,
    /// Until then what an agent before this one has sent may still be on its way.
    pub unsettled: Option<Instant>,
    pub calls: BTreeMap<u64, Call>,
    pub doing: Option<Doing>,
    pub contact: Contact,
    /// It has seen its node's record.
    pub registered: bool,
    pub promised_at: Option<(Epoch, Instant)>,
    /// A broken withdrawal: the promise counts as gone before the view says so.
    pub forgot: bool,
    pub down_since: Option<Instant>,
    pub start_failures: u32,
    /// Until then it is not to be promoted: the user's program has refused it.
    pub barred: Option<Instant>,
    /// What a person asked of it, and when.
    pub errand: Option<(Errand, Instant)>,
    pub applied: Option<Applied>,
    pub standbys: BTreeMap<NodeName, Walsender>,
    pub last_rule: &'static str,
    pub decisions: u64,
}

/// One look at the instance.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub at: Instant,
    pub postgres: Postgres,
    pub clean_stop: bool,
}

/// A request that was sent and not answered.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub sent: Instant,
    pub purpose: Purpose,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Grant,
    Beat { epoch: Option<Epoch> },
    Retake { epoch: Epoch },
    Action { serial: u64 },
}

/// The one action in flight.
#[derive(Clone, Debug)]
pub(crate) struct Doing {
    pub serial: u64,
    pub job: Job,
    pub action: Action,
    pub phase: Phase,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Waits for the store.
    Asked,
    /// Waits for a moment.
    Timed,
    /// Waits for Postgres, of this start.
    Watching { run: u64 },
    /// Copies from this start of the leader's Postgres.
    Copying { from: NodeId, run: u64 },
}

impl Node {
    pub(crate) fn new(name: NodeName, clock: Clock, snapshot: Rc<Snapshot>) -> Self {
        Self {
            name,
            up: true,
            boot: 0,
            frozen: false,
            thawed: 0,
            deferred: Vec::new(),
            clock,
            disk: Disk::empty(),
            pg: Pg {
                run: 0,
                life: Life::Down,
                stopped: None,
                deferred: Vec::new(),
                role: Role::Standby(StandbySide::default()),
                flushing: false,
                promoting: false,
                promotion: None,
            },
            agent: Agent::dead(snapshot),
            guard: None,
        }
    }

    pub(crate) fn primary(&self) -> Option<&PrimarySide> {
        match (&self.pg.role, self.pg.life) {
            (Role::Primary(side), Life::Up) => Some(side),
            _ => None,
        }
    }

    pub(crate) fn standby(&self) -> Option<&StandbySide> {
        match (&self.pg.role, self.pg.life) {
            (Role::Standby(side), Life::Up) => Some(side),
            _ => None,
        }
    }

    pub(crate) fn primary_mut(&mut self) -> Option<&mut PrimarySide> {
        match &mut self.pg.role {
            Role::Primary(side) => Some(side),
            Role::Standby(_) => None,
        }
    }

    pub(crate) fn standby_mut(&mut self) -> Option<&mut StandbySide> {
        match &mut self.pg.role {
            Role::Standby(side) => Some(side),
            Role::Primary(_) => None,
        }
    }

    pub(crate) fn agent_runs(&self) -> bool {
        self.up && !self.frozen && self.agent.alive && !self.agent.stopped
    }
}

impl Disk {
    pub(crate) fn empty() -> Self {
        Self {
            health: Health::Fine,
            sick_since: 0,
            data: DataDir::Empty,
            wal: Vec::new(),
            half: false,
            flushed: 0,
            note: None,
            clean_stop: false,
            histories: BTreeSet::new(),
            needs: None,
            hold: None,
            upstream: None,
        }
    }
}

impl Agent {
    pub(crate) fn dead(snapshot: Rc<Snapshot>) -> Self {
        Self {
            alive: false,
            run: 0,
            stopped: false,
            deferred: Vec::new(),
            wake_pending: false,
            snapshot,
            started: Instant(0),
            heard: None,
            met: false,
            must_see: (0, Instant(0)),
            seen: None,
            fresh_from: Instant(0),
            primary_since: None,
            lease_id: None,
            lease: None,
            by_members: None,
            retaking: false,
            hold: None,
            spoken: None,
            unsettled: None,
            calls: BTreeMap::new(),
            doing: None,
            contact: Contact::default(),
            registered: false,
            promised_at: None,
            forgot: false,
            down_since: None,
            start_failures: 0,
            barred: None,
            errand: None,
            applied: None,
            standbys: BTreeMap::new(),
            last_rule: "",
            decisions: 0,
        }
    }
}

impl Names {
    /// What a setting reads like in Postgres.
    pub(crate) fn of(setting: Option<&Setting>) -> Self {
        let Some(setting) = setting.filter(|setting| !setting.is_alone()) else {
            return Self::default();
        };
        let names = setting.standbys.iter().map(id_of).collect();
        Self {
            needed: setting.needed,
            names,
        }
    }

    /// Commits wait, whoever is there.
    pub(crate) fn nobody() -> Self {
        Self {
            needed: 1,
            names: BTreeSet::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.needed == 0
    }
}

/// Nodes are called `a`, `b`, `c`, …
pub(crate) fn name_of(id: NodeId) -> NodeName {
    let letter = char::from(b'a' + u8::try_from(id).unwrap_or(25));
    NodeName::new(letter.to_string()).unwrap_or_else(|_| unreachable!("a letter is a name"))
}

pub(crate) fn id_of(name: &NodeName) -> NodeId {
    usize::from(name.as_str().as_bytes()[0] - b'a')
}
