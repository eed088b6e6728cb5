//! The walk: one event after the other, each followed by a look at what must hold; then everything is mended, and the
//! cluster must become whole.

use super::Break;
use super::node::{Kind, Node, Pg, Stream, Waits};
use super::store::Store;
use crate::rng::Rng;
use crate::wal::{Record, SYSTEM, common};
use ha::{
    Cluster, Epoch, Initialize, Instant, Lsn, Member, NodeName, NodeRecord, NodeState, Settings,
    Switchover, SyncMode, Timeline,
};
use std::time::Duration;

/// How many events a walk has, and how many turns the end.
const EVENTS: usize = 600;
const MENDING: usize = 400;
/// Of the last events, so many are told.
const TOLD: usize = 60;

/// What came of a walk.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violation: Option<String>,
    /// The last events.
    pub told: Vec<String>,
    /// How often a node of Patroni's, and one of ours, was promoted.
    pub promotions: [u32; 2],
    pub acknowledged: usize,
}

pub(super) struct World {
    pub rng: Rng,
    pub now: Instant,
    pub store: Store,
    pub nodes: Vec<Node>,
    pub synchronous: bool,
    pub broken: Option<Break>,
    acknowledged: Vec<u64>,
    /// The newest promotion that has acknowledged a commit.
    newest: u64,
    next_uid: u64,
    outcome: Outcome,
}

/// Walks from a seed.
pub fn walk(seed: u64, broken: Option<Break>) -> Outcome {
    let mut world = World::new(seed, broken);
    for _ in 0..EVENTS {
        world.event();
        if world.outcome.violation.is_some() {
            return world.outcome;
        }
    }
    world.mend();
    world.outcome.acknowledged = world.acknowledged.len();
    world.outcome
}

impl World {
    fn new(seed: u64, broken: Option<Break>) -> Self {
        let mut rng = Rng::new(seed);
        let synchronous = rng.chance(600);
        let names = ["n1", "n2", "n3"].map(|text| NodeName::new(text).ok());
        let nodes: Vec<Node> = names.into_iter().flatten().map(Node::new).collect();
        let mode = if synchronous {
            SyncMode::On
        } else {
            SyncMode::Off
        };
        let cluster = Cluster {
            initialize: Initialize::Done(SYSTEM),
            settings: Settings {
                sync_mode: mode,
                lag_bytes_max: 1 << 40,
                ..Settings::default()
            },
            ..Cluster::default()
        };
        let store = Store {
            cluster,
            ..Store::default()
        };
        let mut world = Self {
            rng,
            now: Instant(1_000_000_000_000),
            store,
            nodes,
            synchronous,
            broken,
            acknowledged: Vec::new(),
            newest: 0,
            next_uid: 0,
            outcome: Outcome::default(),
        };
        // Patroni's cluster, with n1 in the lead.
        let first = world.nodes[0].name.clone();
        world.store.put_leader(&first);
        world.patroni(0);
        world.patroni(0);
        world.register();
        world
    }

    pub(super) fn id_of(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        if self.outcome.told.len() >= TOLD {
            self.outcome.told.remove(0);
        }
        self.outcome.told.push(what());
    }

    fn violated(&mut self, what: String) {
        self.outcome.violation.get_or_insert(what);
    }

    fn event(&mut self) {
        self.now = self
            .now
            .plus(Duration::from_millis(self.rng.between(10, 500)));
        let id = self.rng.index(self.nodes.len());
        match self.rng.below(100) {
            0..45 => self.turn(id),
            45..62 => self.stream(id),
            62..85 => self.write(id),
            85..88 => self.swap(id),
            88..90 => self.kill(id),
            90..94 => self.revive(id),
            94..96 => self.end_key(),
            96 => self.freeze(id),
            _ => self.order(id),
        }
        self.register();
    }

    /// The agent of a node takes its turn; ours on a view that may be old.
    fn turn(&mut self, id: usize) {
        if !self.nodes[id].up || self.nodes[id].frozen {
            return;
        }
        match self.nodes[id].kind {
            Kind::Patroni => self.patroni(id),
            Kind::Ours => {
                if self.rng.chance(800) {
                    self.nodes[id].seen = self.store.clone();
                }
                self.ours(id);
            }
        }
    }

    /// Whether `id` is connected to `up` and gets its WAL.
    pub(super) fn streams_from(&self, id: usize, up: usize) -> bool {
        let connected = self.nodes[id].upstream().is_some_and(|(to, _)| to == up);
        connected && self.nodes[up].is_primary()
    }

    pub(super) fn streams_plainly(&self, id: usize, up: usize) -> bool {
        self.streams_from(id, up) && self.nodes[id].upstream() == Some((up, Stream::Plain))
    }

    fn stream(&mut self, id: usize) {
        let Some((up, _)) = self.nodes[id].upstream() else {
            return;
        };
        if !self.nodes[up].is_primary() {
            return;
        }
        let (mine, theirs) = (&self.nodes[id].wal, &self.nodes[up].wal);
        let same = common(mine, theirs);
        if same < mine.len() {
            // By numbers it would be refused or, worse, not: nobody of ours may have got here.
            if self.nodes[id].kind == Kind::Ours && self.nodes[id].note.is_some() {
                let name = self.nodes[id].name.clone();
                self.violated(format!("{name} streams across a fork"));
            }
            return;
        }
        let more = 1 + self.rng.index(4);
        let next = theirs.iter().skip(same).take(more).copied();
        let next: Vec<Record> = next.collect();
        self.nodes[id].wal.extend(next);
        self.acknowledge(up);
    }

    fn write(&mut self, id: usize) {
        let open = matches!(self.nodes[id].pg, Pg::Primary { open: true });
        if !self.nodes[id].is_primary() || !open {
            return;
        }
        let place = self.nodes[id].wal.len();
        let timeline = self.nodes[id].timeline();
        self.append(id, timeline, true);
        self.nodes[id].pending.push(place);
        self.acknowledge(id);
    }

    fn append(&mut self, id: usize, timeline: Timeline, commit: bool) {
        self.next_uid += 1;
        let record = Record {
            uid: self.next_uid,
            timeline,
            epoch: Epoch::NONE,
            commit,
        };
        self.nodes[id].wal.push(record);
    }

    /// Tells clients of what enough standbys have.
    pub(super) fn acknowledge(&mut self, id: usize) {
        if !self.nodes[id].is_primary() {
            return;
        }
        let waits = self.nodes[id].waits.clone();
        let pending = std::mem::take(&mut self.nodes[id].pending);
        let mut left = Vec::new();
        for place in pending {
            let has = |node: &&Node| {
                let stream = node.upstream().filter(|(up, _)| *up == id);
                let named = stream.map(|(_, stream)| (node.name.clone(), stream));
                named.is_some_and(|named| waits.names.contains(&named)) && node.wal.len() > place
            };
            if self.nodes.iter().filter(has).count() < waits.needed {
                left.push(place);
                continue;
            }
            self.acknowledged.push(self.nodes[id].wal[place].uid);
            let promotion = self.nodes[id].promotion;
            if promotion < self.newest {
                let name = self.nodes[id].name.clone();
                self.violated(format!("{name} acknowledges after its successor"));
            }
            self.newest = self.newest.max(promotion);
        }
        self.nodes[id].pending = left;
    }

    pub(super) fn promote(&mut self, id: usize, waits: Waits, open: bool) {
        let name = self.nodes[id].name.clone();
        if self.synchronous {
            let held: std::collections::BTreeSet<u64> =
                self.nodes[id].wal.iter().map(|record| record.uid).collect();
            let lost = self.acknowledged.iter().filter(|uid| !held.contains(*uid));
            let lost = lost.count();
            if lost > 0 {
                self.violated(format!(
                    "{name} is promoted without {lost} acknowledged commits"
                ));
            }
        }
        let kind = self.nodes[id].kind;
        self.outcome.promotions[usize::from(kind == Kind::Ours)] += 1;
        self.say(|| format!("{name} is promoted by {kind:?}"));
        let timeline = match self.nodes[id].wal.is_empty() {
            true => Timeline(1),
            false => Timeline(self.nodes[id].timeline().0 + 1),
        };
        self.append(id, timeline, false);
        let serial = u64::from(self.outcome.promotions[0] + self.outcome.promotions[1]);
        let node = &mut self.nodes[id];
        node.pg = Pg::Primary { open };
        node.waits = waits;
        node.pending.clear();
        node.promotion = serial;
    }

    /// Standbys that are connected get everything, then it stops.
    pub(super) fn clean_stop(&mut self, id: usize) {
        for other in 0..self.nodes.len() {
            let fits =
                common(&self.nodes[other].wal, &self.nodes[id].wal) == self.nodes[other].wal.len();
            if self.streams_from(other, id) && fits {
                self.nodes[other].wal = self.nodes[id].wal.clone();
            }
        }
        self.acknowledge(id);
        self.nodes[id].stop();
        self.nodes[id].clean_stop = true;
    }

    /// A person stops one program and starts the other: on a standby, and with somebody in the lead.
    fn swap(&mut self, id: usize) {
        let name = self.nodes[id].name.clone();
        let leader = self.store.cluster.leader.clone();
        let led = leader.as_ref().and_then(|it| self.id_of(it));
        let led = led.is_some_and(|it| self.nodes[it].is_primary());
        let node = &self.nodes[id];
        if !node.up || node.frozen || node.is_primary() || leader.as_ref() == Some(&name) || !led {
            return;
        }
        let to = match node.kind {
            Kind::Patroni => Kind::Ours,
            Kind::Ours => Kind::Patroni,
        };
        self.say(|| format!("{name} is run by {to:?} from now on"));
        let node = &mut self.nodes[id];
        node.stop();
        node.kind = to;
        node.lease = None;
        node.promised = None;
        node.clean_stop = false;
        node.seen = self.store.clone();
    }

    fn kill(&mut self, id: usize) {
        let up = self.nodes.iter().filter(|node| node.up).count();
        if up < self.nodes.len() {
            return;
        }
        let name = self.nodes[id].name.clone();
        self.say(|| format!("{name} is killed"));
        let node = &mut self.nodes[id];
        node.stop();
        node.up = false;
        node.frozen = false;
        node.lease = None;
        node.clean_stop = false;
    }

    fn revive(&mut self, id: usize) {
        let name = self.nodes[id].name.clone();
        let node = &mut self.nodes[id];
        if node.up && !node.frozen {
            return;
        }
        node.up = true;
        node.frozen = false;
        self.say(|| format!("{name} is back"));
    }

    /// The time to live of a leader that is dead, or whose agent hangs, is over.
    fn end_key(&mut self) {
        let leader = self.store.cluster.leader.clone();
        let Some(leader) = leader.and_then(|it| self.id_of(&it)) else {
            return;
        };
        let node = &self.nodes[leader];
        if !node.up || node.frozen {
            self.say(|| "the leader key ends".to_owned());
            self.store.delete_leader();
        }
    }

    /// An agent of Patroni's hangs, and nothing guards its Postgres: only synchronous commits are safe then.
    fn freeze(&mut self, id: usize) {
        let all_up = self.nodes.iter().all(|node| node.up && !node.frozen);
        if self.synchronous && all_up && self.nodes[id].kind == Kind::Patroni {
            let name = self.nodes[id].name.clone();
            self.say(|| format!("the agent of {name} hangs"));
            self.nodes[id].frozen = true;
        }
    }

    fn order(&mut self, id: usize) {
        let Some(from) = self.store.cluster.leader.clone() else {
            return;
        };
        let to = self.nodes[id].name.clone();
        if from != to && self.nodes[id].up && !self.nodes[id].frozen {
            self.say(|| format!("a person orders a switchover from {from} to {to}"));
            self.store.cluster.switchover = Some(Switchover {
                from: Some(from),
                to: Some(to),
                accept_loss: false,
            });
        }
    }

    /// The member records of those that live.
    fn register(&mut self) {
        self.store.guests.clear();
        self.store.cluster.members.clear();
        for id in 0..self.nodes.len() {
            let streams = self.nodes[id]
                .upstream()
                .is_some_and(|(up, _)| self.nodes[up].is_primary());
            let node = &self.nodes[id];
            if node.kind == Kind::Ours {
                let record = NodeRecord::default();
                self.store
                    .cluster
                    .nodes
                    .entry(node.name.clone())
                    .or_insert(record);
            }
            if !node.up {
                continue;
            }
            let guest = node.kind == Kind::Patroni;
            let state = match (node.is_primary(), streams) {
                (true, _) => NodeState::Primary,
                (false, true) => NodeState::Standby,
                (false, false) => NodeState::CatchingUp,
            };
            let member = Member {
                host: String::new(),
                port: 1,
                api_url: String::new(),
                state,
                position: if node.pg == Pg::Down {
                    Lsn::ZERO
                } else {
                    node.position()
                },
                timeline: node.timeline(),
                unfit: guest.then(|| "its agent is not Standfast".to_owned()),
                ties: ha::Ties::default(),
            };
            self.store.cluster.members.insert(node.name.clone(), member);
            if guest {
                self.store.guests.insert(node.name.clone());
            }
        }
    }

    /// Everybody is back, sees the store as it is, and no person wants anything: one leads, and the others follow it.
    fn mend(&mut self) {
        self.store.cluster.switchover = None;
        for id in 0..self.nodes.len() {
            self.revive(id);
        }
        for turn in 0..MENDING {
            self.now = self.now.plus(Duration::from_millis(250));
            self.register();
            for id in 0..self.nodes.len() {
                self.nodes[id].seen = self.store.clone();
                self.turn(id);
                self.register();
                self.stream(id);
            }
            if turn % 20 == 0 {
                (0..self.nodes.len()).for_each(|id| self.write(id));
            }
            if self.outcome.violation.is_some() || self.is_whole() {
                return;
            }
        }
        self.violated("the cluster does not become whole".to_owned());
    }

    fn is_whole(&self) -> bool {
        let primaries = (0..self.nodes.len()).filter(|id| self.nodes[*id].is_primary());
        let primaries: Vec<usize> = primaries.collect();
        let &[leader] = primaries.as_slice() else {
            return false;
        };
        let named = self.store.cluster.leader.as_ref() == Some(&self.nodes[leader].name);
        let follows = |id: usize| id == leader || self.streams_from(id, leader);
        named && (0..self.nodes.len()).all(follows)
    }
}
