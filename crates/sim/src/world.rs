//! The world: what is, what will happen next, and the loop that lets it happen.
//!
//! **Invariant:** an event reaches only the process, start or boot that it was meant for; what is frozen gets its
//! events when it thaws.

use crate::config::{Config, Options};
use crate::fault::{Fault, Undo};
use crate::invariants::{Ledger, Violation};
use crate::net::Network;
use crate::node::{Node, NodeId, id_of, name_of};
use crate::rng::Rng;
use crate::store::{Answer, Request, Snapshot, Store};
use crate::time::{Clock, Micros, ms};
use crate::wal::Record;
use ha::{Cluster, NodeName, NodeRecord};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

/// How long a healed world may take to become one healthy cluster.
const CONVERGES_WITHIN: Micros = ms(40_000);
/// How long founding may take.
const FOUNDED_WITHIN: Micros = ms(20_000);

/// Whom an event is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    World,
    Machine(NodeId, u64),
    Agent(NodeId, u64),
    Pg(NodeId, u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    // The world.
    StoreArrive {
        from: NodeId,
        agent: u64,
        call: u64,
        request: Request,
    },
    LeaseCheck,
    Fault(Fault),
    Undo(Undo),
    NextFault,
    Client(usize),
    Watch,
    // An agent.
    View(Rc<Snapshot>, bool),
    Answer {
        call: u64,
        answer: Answer,
    },
    CallTimeout(u64),
    Tick,
    Wake,
    Beat,
    Step(u64),
    // A machine.
    GuardFire,
    Mute {
        run: u64,
    },
    Gone {
        run: u64,
    },
    // An instance.
    Started,
    StartFailed,
    Flushed {
        upto: usize,
    },
    Connect,
    Pump {
        standby: NodeId,
        connection: u64,
    },
    WalArrive {
        connection: u64,
        from: usize,
        records: Vec<Record>,
        half: bool,
    },
    Reply {
        standby: NodeId,
        connection: u64,
        flushed: usize,
    },
    Replay,
    SeenWaiting {
        at: usize,
        times: u8,
    },
    Reread {
        sender: Option<(NodeId, u64)>,
    },
    Promoted {
        epoch: ha::Epoch,
        predicted: ha::Timeline,
    },
    SendersGone,
    BackendsLeave,
    SenderTimeout {
        standby: NodeId,
        connection: u64,
    },
    ReceiverTimeout {
        connection: u64,
    },
    ShutDown,
    DrainLimit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Founding,
    Turmoil,
    Healing,
    /// Clients are still, the last WAL goes round.
    Settling,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub config: Config,
    pub now: Micros,
    pub rng: Rng,
    queue: BTreeMap<(Micros, u64), (Target, Event)>,
    sequence: u64,
    pub nodes: Vec<Node>,
    pub net: Network,
    pub store: Store,
    pub outage: bool,
    pub ledger: Ledger,
    pub era: Era,
    era_since: Micros,
    pub violation: Option<Violation>,
    next_uid: u64,
    next_run: u64,
    digest: u64,
    events: u64,
    tracing: bool,
    trace: String,
}

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub violation: Option<Violation>,
    /// Commits that were acknowledged.
    pub acknowledged: usize,
    /// Acknowledged commits that are gone: asynchronous worlds only.
    pub lost: usize,
    pub promotions: usize,
    pub decisions: u64,
    pub events: u64,
    /// Simulated milliseconds.
    pub lasted_ms: u64,
    /// Two runs of one seed have the same.
    pub digest: u64,
    pub trace: String,
}

/// Runs the world of one seed to its end.
pub fn run(options: Options) -> Report {
    let mut world = World::new(&options);
    world.begin();
    while world.violation.is_none() {
        let Some(((at, _), (target, event))) = world.queue.pop_first() else {
            break;
        };
        world.now = at;
        world.events += 1;
        world.dispatch(target, event);
        if world.era == Era::Settling && world.settled() {
            break;
        }
    }
    world.report(options.seed)
}

impl World {
    fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let config = Config::drawn(options, &mut rng);
        let nodes: BTreeMap<NodeName, NodeRecord> = (0..config.nodes)
            .map(|id| {
                let record = NodeRecord {
                    id: id as u64 + 1,
                    ..NodeRecord::default()
                };
                (name_of(id), record)
            })
            .collect();
        let cluster = Cluster {
            nodes,
            settings: config.settings.clone(),
            ..Cluster::default()
        };
        let ttl = u64::try_from(config.settings.ttl.as_micros()).unwrap_or(u64::MAX);
        // The store's clock may be fast as well.
        let store = Store::new(cluster, ttl * 100 / rng.between(99, 101));
        let nodes = (0..config.nodes)
            .map(|id| {
                let clock = Self::fresh_clock(&mut rng, 0);
                Node::new(name_of(id), clock, Rc::clone(&store.current))
            })
            .collect();
        let net = Network::new(config.nodes, config.loss);
        Self {
            ledger: Ledger::default(),
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes,
            net,
            store,
            outage: false,
            era: Era::Founding,
            era_since: 0,
            violation: None,
            next_uid: 1,
            next_run: 1,
            digest: 0,
            events: 0,
            tracing: options.trace,
            trace: String::new(),
            config,
            rng,
        }
    }

    pub(crate) fn fresh_clock(rng: &mut Rng, now: Micros) -> Clock {
        Clock::new(
            1_000_000_000 * rng.between(10, 100_000),
            now,
            rng.between(990, 1010),
        )
    }

    fn begin(&mut self) {
        let about = format!("{:?}", self.config);
        self.note(|| about);
        self.bring_data();
        // Nobody else is told to begin before the one that has data.
        let first = if self.config.adopted > 0 {
            1
        } else {
            self.nodes.len()
        };
        for id in 0..first {
            let after = self.rng.below(ms(200));
            self.at(after, Target::World, Event::Undo(Undo::StartAgent(id)));
        }
        for client in 0..self.config.clients {
            self.after(ms(50), Target::World, Event::Client(client));
        }
        self.after(ms(100), Target::World, Event::Watch);
    }

    fn report(self, seed: u64) -> Report {
        Report {
            seed,
            violation: self.violation,
            acknowledged: self.ledger.acknowledged.len(),
            lost: self.ledger.lost.len(),
            promotions: self.ledger.promotions.len(),
            decisions: self.nodes.iter().map(|node| node.agent.decisions).sum(),
            events: self.events,
            lasted_ms: self.now / 1000,
            digest: self.digest,
            trace: self.trace,
        }
    }

    // What will happen.

    pub(crate) fn at(&mut self, at: Micros, target: Target, event: Event) {
        self.sequence += 1;
        self.queue
            .insert((at.max(self.now), self.sequence), (target, event));
    }

    pub(crate) fn after(&mut self, delay: Micros, target: Target, event: Event) {
        self.at(self.now + delay, target, event);
    }

    pub(crate) fn pg(&self, id: NodeId) -> Target {
        Target::Pg(id, self.nodes[id].pg.run)
    }

    pub(crate) fn agent(&self, id: NodeId) -> Target {
        Target::Agent(id, self.nodes[id].agent.run)
    }

    pub(crate) fn machine(&self, id: NodeId) -> Target {
        Target::Machine(id, self.nodes[id].boot)
    }

    pub(crate) fn new_uid(&mut self) -> u64 {
        self.next_uid += 1;
        self.next_uid
    }

    /// A number for a start, a connection or a call that no other has.
    pub(crate) fn new_run(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run
    }

    // What happened.

    /// A line of the trace.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing {
            let (whole, part) = (self.now / 1_000_000, self.now % 1_000_000);
            let _ = writeln!(self.trace, "{whole:>3}.{part:06} {}", text());
        }
    }

    pub(crate) fn note_of(&mut self, id: NodeId, text: impl FnOnce() -> String) {
        if self.tracing {
            let name = self.nodes[id].name.clone();
            self.note(|| format!("{name}  {}", text()));
        }
    }

    fn dispatch(&mut self, target: Target, event: Event) {
        if let Some((target, event)) = self.reaches(target, event) {
            self.digest =
                (self.digest ^ self.now).wrapping_mul(0x0000_0100_0000_01B3) ^ self.sequence;
            match target {
                Target::World => self.on_world(event),
                Target::Machine(id, _) => self.on_machine(id, event),
                Target::Agent(id, _) => self.on_agent(id, event),
                Target::Pg(id, _) => self.on_pg(id, event),
            }
        }
    }

    /// The event, if its target is there and awake; else it is dropped or kept.
    fn reaches(&mut self, target: Target, event: Event) -> Option<(Target, Event)> {
        let id = match target {
            Target::World => return Some((target, event)),
            Target::Machine(id, _) | Target::Agent(id, _) | Target::Pg(id, _) => id,
        };
        let node = &mut self.nodes[id];
        let there = node.up
            && match target {
                Target::World => true,
                Target::Machine(_, boot) => node.boot == boot,
                Target::Agent(_, run) => node.agent.alive && node.agent.run == run,
                Target::Pg(_, run) => node.pg.run == run,
            };
        if !there {
            return None;
        }
        if node.frozen {
            node.deferred.push((target, event));
            return None;
        }
        match target {
            Target::Agent(..) if node.agent.stopped => {
                node.agent.deferred.push((target, event));
                None
            }
            Target::Pg(..) if node.pg.stopped.is_some() => {
                node.pg.deferred.push((target, event));
                None
            }
            _ => Some((target, event)),
        }
    }

    /// What waited for a thaw happens soon, in an order that nobody chose.
    pub(crate) fn release_deferred(&mut self, deferred: Vec<(Target, Event)>) {
        for (target, event) in deferred {
            let late = self.rng.below(ms(25));
            self.after(late, target, event);
        }
    }

    fn on_world(&mut self, event: Event) {
        match event {
            Event::StoreArrive {
                from,
                agent,
                call,
                request,
            } => {
                self.on_store(from, agent, call, &request);
            }
            Event::LeaseCheck => self.expire_leases(),
            Event::Fault(fault) => self.inflict(fault),
            Event::Undo(undo) => self.undo(undo),
            Event::NextFault => self.next_fault(),
            Event::Client(client) => self.on_client(client),
            Event::Watch => self.watch(),
            _ => {}
        }
    }

    fn on_store(&mut self, from: NodeId, agent: u64, call: u64, request: &Request) {
        if !self.store.up {
            return;
        }
        let before = Rc::clone(&self.store.current);
        let answer = self.store.apply(request, self.now);
        if matches!(request, Request::Grant)
            || matches!(request, Request::Commit(txn) if txn.lease.is_some())
        {
            let ttl = u64::try_from(self.config.settings.ttl.as_micros()).unwrap_or(u64::MAX);
            self.after(ttl + ms(30), Target::World, Event::LeaseCheck);
        }
        if self.store.current.revision != before.revision {
            let quiet = matches!(request, Request::Commit(txn) if txn.is_quiet());
            self.check_store(&before);
            self.broadcast(quiet);
        }
        let store = self.net.store();
        if self.net.is_open(store, from)
            && let Some(delay) = self.net.store_delay(&mut self.rng, from, true)
        {
            self.after(
                delay,
                Target::Agent(from, agent),
                Event::Answer { call, answer },
            );
        }
    }

    /// Everybody's watch, each with a delay of its own.
    pub(crate) fn broadcast(&mut self, quiet: bool) {
        for id in 0..self.nodes.len() {
            self.push_view(id, quiet);
        }
    }

    pub(crate) fn push_view(&mut self, id: NodeId, quiet: bool) {
        let store = self.net.store();
        if self.store.up
            && self.nodes[id].agent.alive
            && self.net.is_open(store, id)
            && let Some(delay) = self.net.view_delay(&mut self.rng, id, self.config.view_lag)
        {
            let snapshot = Rc::clone(&self.store.current);
            let target = self.agent(id);
            self.after(delay, target, Event::View(snapshot, quiet));
        }
    }

    fn expire_leases(&mut self) {
        let before = Rc::clone(&self.store.current);
        if self.store.up && self.store.expire(self.now) {
            self.note(|| "store  a lease ended".to_owned());
            self.check_store(&before);
            self.broadcast(false);
        }
    }

    /// The store runs unless it is told not to, or too few of its voters do.
    pub(crate) fn settle_store(&mut self) {
        let running = self
            .nodes
            .iter()
            .filter(|node| node.up && !node.frozen)
            .count();
        let witness = usize::from(self.nodes.len().is_multiple_of(2));
        let voters = self.nodes.len() + witness;
        let up = !self.outage && (!self.config.colocated || running + witness > voters / 2);
        if up == self.store.up {
            return;
        }
        self.store.up = up;
        self.note(|| {
            format!(
                "store  {}",
                if up {
                    "answers again"
                } else {
                    "has no majority"
                }
            )
        });
        if up {
            self.store.refresh_leases(self.now);
            let ttl = u64::try_from(self.config.settings.ttl.as_micros()).unwrap_or(u64::MAX);
            self.after(ttl + ms(30), Target::World, Event::LeaseCheck);
            self.broadcast(false);
        }
    }

    // The eras.

    fn watch(&mut self) {
        self.after(ms(100), Target::World, Event::Watch);
        let spent = self.now - self.era_since;
        match self.era {
            Era::Founding
                if self.is_founded() && self.nodes.iter().any(|node| !node.agent.alive) =>
            {
                (0..self.nodes.len()).for_each(|id| self.start_agent(id));
            }
            Era::Founding if self.healthy().is_ok() => {
                self.enter(Era::Turmoil);
                let gap = self.rng.between(ms(50), self.config.fault_gap);
                self.after(gap, Target::World, Event::NextFault);
            }
            Era::Founding if spent > FOUNDED_WITHIN => self.stuck("the cluster was not founded"),
            Era::Turmoil if spent > self.config.turmoil => {
                self.enter(Era::Healing);
                self.heal();
            }
            Era::Healing if self.healthy().is_ok() => self.enter(Era::Settling),
            Era::Healing | Era::Settling if spent > CONVERGES_WITHIN => {
                self.stuck("the healed cluster does not converge");
            }
            Era::Healing => self.rejoin_all(),
            Era::Founding | Era::Turmoil | Era::Settling => {}
        }
    }

    fn enter(&mut self, era: Era) {
        self.era = era;
        self.era_since = self.now;
        self.note(|| format!("-----  {era:?}"));
    }

    fn stuck(&mut self, what: &str) {
        let why = self
            .healthy()
            .err()
            .unwrap_or_else(|| "a standby lacks the last WAL".to_owned());
        let mut text = format!("{what}: {why}");
        for id in 0..self.nodes.len() {
            let decision = self.judge(id);
            let _ = write!(
                text,
                "\n  {}: {}: {}",
                name_of(id),
                decision.rule,
                decision.reason
            );
        }
        self.violate("cluster_converges", text);
    }

    fn settled(&mut self) -> bool {
        let Some(leader) = self.store.current.cluster.leader.as_ref().map(id_of) else {
            return false;
        };
        let wal = &self.nodes[leader].disk.wal;
        let same = self
            .nodes
            .iter()
            .all(|node| node.disk.wal.len() == wal.len());
        if same {
            self.check_end();
        }
        same
    }

    pub(crate) fn violate(&mut self, invariant: &'static str, text: String) {
        self.note(|| format!("VIOLATED {invariant}: {text}"));
        if self.violation.is_none() {
            self.violation = Some(Violation {
                invariant,
                text,
                at_ms: self.now / 1000,
            });
        }
    }
}
