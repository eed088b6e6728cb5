//! The walk: one event after the other, each followed by a look at what must hold; then everything is mended, and the
//! cluster must be what its configuration says.

use super::Break;
use super::nodes::{Node, Pg, Source, Store};
use super::remote::{Remote, may_stream, write};
use crate::rng::Rng;
use crate::wal::{SYSTEM, lsn};
use ha::{
    Cluster, Epoch, Initialize, Instant, Leadership, Lineage, Member, NodeName, NodeRecord,
    NodeState, Published, Settings, SyncMode, Timeline,
};
use std::time::Duration;

/// How many events a walk has, and how many turns the end.
const EVENTS: usize = 500;
const MENDING: usize = 300;
/// Of the last events, so many are told.
const TOLD: usize = 60;

/// What came of a walk.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violation: Option<String>,
    /// The last events.
    pub told: Vec<String>,
    pub promotions: u32,
    pub epochs: u64,
}

pub(super) struct World {
    pub rng: Rng,
    pub now: Instant,
    pub store: Store,
    pub nodes: Vec<Node>,
    pub remote: Remote,
    pub broken: Option<Break>,
    pub promotions: u32,
    revision: u64,
    uid: u64,
    violation: Option<String>,
    told: Vec<String>,
}

/// Walks from a seed.
pub fn walk(seed: u64, broken: Option<Break>) -> Outcome {
    let mut world = World::new(seed, broken);
    for _ in 0..EVENTS {
        world.event();
        world.check();
        if world.violation.is_some() {
            return world.outcome();
        }
    }
    world.mend();
    world.outcome()
}

fn abroad() -> ha::Remote {
    ha::Remote {
        host: Some("far".to_owned()),
        ..ha::Remote::default()
    }
}

impl World {
    /// A standby cluster that n1 has just founded.
    fn new(seed: u64, broken: Option<Break>) -> Self {
        let mut remote = Remote {
            wal: Vec::new(),
            timeline: Timeline(1),
            generation: 0,
            up: true,
        };
        write(&mut remote.wal, 1, Timeline(1), Epoch::NONE);
        let names = ["n1", "n2", "n3"].map(|text| NodeName::new(text).ok());
        let names: Vec<NodeName> = names.into_iter().flatten().collect();
        let epoch = Epoch(1);
        let lineage = Lineage::founded(Timeline(1), epoch);
        let record = |name: &NodeName| (name.clone(), NodeRecord::default());
        let cluster = Cluster {
            initialize: Initialize::Done(SYSTEM),
            settings: Settings {
                sync_mode: SyncMode::Off,
                lag_bytes_max: 1 << 40,
                remote: Some(abroad()),
                ..Settings::default()
            },
            epoch: Some(Leadership {
                epoch,
                leader: names[0].clone(),
                standby: false,
            }),
            leader: Some(names[0].clone()),
            lineage: Some(Published {
                epoch,
                leader: Some(names[0].clone()),
                lineage: lineage.clone(),
            }),
            nodes: names.iter().map(record).collect(),
            ..Cluster::default()
        };
        let wal = remote.wal.clone();
        let node = |(n, name): (usize, NodeName)| Node {
            name,
            up: true,
            pg: Pg::Down,
            wal: wal.clone(),
            note: Some(lineage.clone()),
            lease: (n == 0).then_some(epoch),
            promised: None,
            applied: None,
            clean_stop: false,
            serves: None,
            claimed_abroad: false,
            seen: Store::default(),
        };
        let mut world = Self {
            rng: Rng::new(seed),
            now: Instant(1_000_000_000_000),
            store: Store {
                cluster,
                ..Store::default()
            },
            nodes: names.into_iter().enumerate().map(node).collect(),
            remote,
            broken,
            promotions: 0,
            revision: 0,
            uid: 1,
            violation: None,
            told: Vec::new(),
        };
        world.register();
        for id in 0..world.nodes.len() {
            world.nodes[id].seen = world.store.clone();
        }
        world
    }

    fn outcome(self) -> Outcome {
        Outcome {
            violation: self.violation,
            told: self.told,
            promotions: self.promotions,
            epochs: self.store.cluster.current_epoch().0,
        }
    }

    pub(super) fn id_of(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub(super) fn next_uid(&mut self) -> u64 {
        self.uid += 1;
        self.uid
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() >= TOLD {
            self.told.remove(0);
        }
        self.told.push(what());
    }

    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn event(&mut self) {
        let pause = self.rng.between(10, 400);
        self.now = self.now.plus(Duration::from_millis(pause));
        let id = self.rng.index(self.nodes.len());
        match self.rng.below(100) {
            0..50 => {
                if self.rng.chance(750) {
                    self.nodes[id].seen = self.store.clone();
                }
                self.turn(id);
            }
            50..70 => self.stream(id),
            70..82 => self.write_somewhere(id),
            82..85 => self.kill(id),
            85..90 => self.nodes[id].up = true,
            90..93 => self.end_key(),
            93..96 => {
                self.say(|| "the remote fails over".to_owned());
                self.remote.fail_over(&mut self.rng);
            }
            96 => self.remote.up = !self.remote.up,
            _ => self.configure(),
        }
        self.register();
    }

    fn configure(&mut self) {
        let remote = self.store.cluster.settings.remote.is_none();
        self.say(|| format!("the cluster is to be a standby cluster: {remote}"));
        self.store.config = self.next();
        self.store.cluster.settings.remote = remote.then(abroad);
    }

    fn kill(&mut self, id: usize) {
        let name = self.nodes[id].name.clone();
        self.say(|| format!("{name} is killed"));
        let node = &mut self.nodes[id];
        node.up = false;
        node.pg = Pg::Down;
        node.lease = None;
        node.serves = None;
        node.applied = None;
        node.clean_stop = false;
    }

    /// The lease of a leader that is gone runs out.
    fn end_key(&mut self) {
        let leader = self.store.cluster.leader.as_ref();
        let gone = leader.and_then(|it| self.id_of(it));
        if gone.is_some_and(|it| !self.nodes[it].up) {
            self.store.leader = self.next();
            self.store.cluster.leader = None;
        }
    }

    fn write_somewhere(&mut self, id: usize) {
        let uid = self.next_uid();
        if self.rng.chance(500) {
            if self.remote.up {
                let timeline = self.remote.timeline;
                write(&mut self.remote.wal, uid, timeline, Epoch::NONE);
            }
        } else if self.nodes[id].pg == (Pg::Primary { open: true }) {
            let timeline = self.nodes[id].timeline();
            let epoch = self.nodes[id].lease.unwrap_or_default();
            write(&mut self.nodes[id].wal, uid, timeline, epoch);
        }
    }

    /// One record comes over, as PostgreSQL sends it: whatever stands at that place.
    fn stream(&mut self, id: usize) {
        if self.broken == Some(Break::TimelineUnseen)
            && let Pg::Standby(Source::Remote(_)) = self.nodes[id].pg
            && self.remote.up
            && may_stream(&self.nodes[id].wal, &self.remote.wal, self.remote.timeline)
        {
            self.nodes[id].pg = Pg::Standby(Source::Remote(self.remote.generation));
        }
        if !self.streams(id) {
            return;
        }
        let place = self.nodes[id].wal.len();
        let next = match self.nodes[id].pg {
            Pg::Standby(Source::Node(up, _)) => self.nodes[up].wal.get(place),
            Pg::Standby(Source::Remote(_)) => self.remote.wal.get(place),
            Pg::Standby(Source::Nobody) | Pg::Down | Pg::Primary { .. } => None,
        };
        if let Some(next) = next.copied() {
            self.nodes[id].wal.push(next);
        }
    }

    /// What the members say of themselves.
    fn register(&mut self) {
        let lives = self.nodes.iter().filter(|node| node.up);
        let member = |node: &Node| Member {
            host: String::new(),
            port: 5432,
            api_url: String::new(),
            state: match node.pg {
                Pg::Primary { .. } => NodeState::Primary,
                Pg::Standby(_) => NodeState::Standby,
                Pg::Down => NodeState::Demoted,
            },
            position: lsn(node.wal.len()),
            timeline: node.timeline(),
            unfit: None,
            ties: ha::Ties::default(),
        };
        self.store.cluster.members = lives
            .map(|node| (node.name.clone(), member(node)))
            .collect();
    }

    fn check(&mut self) {
        let primaries = self.nodes.iter().filter(|node| node.is_primary());
        if primaries.count() > 1 {
            self.violated("there are two primaries".to_owned());
        }
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            let pairs = node.wal.windows(2);
            let spliced = pairs.filter(|it| it[1].after != it[0].record.uid).count();
            if spliced > 0 {
                let what = format!("the WAL of {} is of two histories", node.name);
                self.violated(what);
            }
            for other in id + 1..self.nodes.len() {
                self.check_names(id, other);
            }
        }
    }

    /// One branch is one history.
    fn check_names(&mut self, a: usize, b: usize) {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        let (Some(one), Some(two)) = (&a.note, &b.note) else {
            return;
        };
        let forked = a.wal.iter().zip(&b.wal).enumerate().find(|(at, (x, y))| {
            let end = lsn(at + 1);
            let (here, there) = (one.at(end), two.at(end));
            here == there && x.record.uid != y.record.uid
        });
        if let Some((at, _)) = forked {
            let position = one.at(lsn(at + 1));
            let what = format!("{} and {} have different WAL at {position}", a.name, b.name);
            self.violated(what);
        }
    }

    fn mend(&mut self) {
        self.remote.up = true;
        for _ in 0..MENDING {
            self.now = self.now.plus(Duration::from_millis(100));
            for id in 0..self.nodes.len() {
                self.nodes[id].up = true;
                self.nodes[id].seen = self.store.clone();
                self.turn(id);
                while self.streams(id) && self.has_more(id) {
                    self.stream(id);
                }
                self.register();
                self.check();
            }
            if self.violation.is_some() || self.unsettled().is_none() {
                return;
            }
        }
        if let Some(why) = self.unsettled() {
            self.violated(format!("the cluster does not settle: {why}"));
        }
    }

    fn has_more(&self, id: usize) -> bool {
        let length = match self.nodes[id].pg {
            Pg::Standby(Source::Node(up, _)) => self.nodes[up].wal.len(),
            Pg::Standby(Source::Remote(_)) => self.remote.wal.len(),
            Pg::Standby(Source::Nobody) | Pg::Down | Pg::Primary { .. } => 0,
        };
        self.nodes[id].wal.len() < length
    }

    /// What is not yet as the configuration says.
    fn unsettled(&self) -> Option<String> {
        let leader = self.store.cluster.leader.as_ref();
        let Some(leader) = leader.and_then(|it| self.id_of(it)) else {
            return Some("nobody leads".to_owned());
        };
        let head = &self.nodes[leader];
        let wanted = match self.store.cluster.settings.remote {
            Some(_) => Pg::Standby(Source::Remote(self.remote.generation)),
            None => Pg::Primary { open: true },
        };
        if head.pg != wanted {
            return Some(format!("{} leads and is {:?}", head.name, head.pg));
        }
        let wal = match self.store.cluster.settings.remote {
            Some(_) => &self.remote.wal,
            None => &head.wal,
        };
        let behind = self.nodes.iter().find(|node| node.wal != *wal);
        behind.map(|node| format!("{} has other WAL", node.name))
    }
}
