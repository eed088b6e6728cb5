//! What goes wrong, drawn from the seed, and how each wrong is righted.

use crate::node::{Health, Life, NodeId};
use crate::time::{Micros, ms};
use crate::world::{Era, Event, Target, World};
use ha::Errand;

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    KillPostmaster(NodeId),
    KillAgent(NodeId),
    KillBoth(NodeId),
    LoseMachine(NodeId),
    PowerLoss,
    Freeze { id: NodeId, clock_stops: bool },
    StopAgent(NodeId),
    StopPostgres(NodeId),
    Isolate(NodeId),
    CutFromStore(NodeId),
    CutFromPeers(NodeId),
    OneWay(NodeId, usize),
    StoreOutage,
    StoreSlow(NodeId),
    StoreLossy,
    ViewLag(NodeId),
    Sick(NodeId, Health),
    Switchover,
    Maintenance(NodeId),
    Pause,
    Priority(NodeId),
    Drop(NodeId),
    AcceptLoss(NodeId),
    Errand(NodeId, Errand),
}

#[derive(Clone, Debug)]
pub(crate) enum Undo {
    StartAgent(NodeId),
    StartMachine(NodeId),
    Thaw(NodeId),
    ContinueAgent(NodeId),
    ContinuePostgres(NodeId),
    Reconnect(usize),
    Join(usize, usize),
    StoreBack,
    StoreFast(NodeId),
    StoreSound,
    ViewCurrent(NodeId),
    Recover(NodeId),
    EndMaintenance(NodeId),
    Resume,
    Rejoin(NodeId),
}

/// What kind of fault, before it is drawn whom it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    KillPostmaster,
    KillAgent,
    KillBoth,
    LoseMachine,
    PowerLoss,
    Freeze,
    StopAgent,
    StopPostgres,
    Isolate,
    CutFromStore,
    CutFromPeers,
    OneWay,
    StoreOutage,
    StoreSlow,
    StoreLossy,
    ViewLag,
    Sick,
    Switchover,
    Maintenance,
    Pause,
    Priority,
    Drop,
    AcceptLoss,
    Errand,
}

impl Kind {
    /// With how often each comes.
    pub(crate) const ALL: [(Self, u64); 24] = [
        (Self::KillPostmaster, 16),
        (Self::KillAgent, 5),
        (Self::KillBoth, 4),
        (Self::LoseMachine, 10),
        (Self::PowerLoss, 3),
        (Self::Freeze, 8),
        (Self::StopAgent, 4),
        (Self::StopPostgres, 4),
        (Self::Isolate, 8),
        (Self::CutFromStore, 5),
        (Self::CutFromPeers, 5),
        (Self::OneWay, 6),
        (Self::StoreOutage, 2),
        (Self::StoreSlow, 4),
        (Self::StoreLossy, 3),
        (Self::ViewLag, 5),
        (Self::Sick, 7),
        (Self::Switchover, 7),
        (Self::Maintenance, 3),
        (Self::Pause, 3),
        (Self::Priority, 4),
        (Self::Drop, 3),
        (Self::AcceptLoss, 4),
        (Self::Errand, 5),
    ];
}

impl World {
    pub(crate) fn next_fault(&mut self) {
        if self.era != Era::Turmoil {
            return;
        }
        let gap = self.rng.between(ms(20), self.config.fault_gap);
        self.after(gap, Target::World, Event::NextFault);
        let fault = self.draw_fault();
        self.inflict(fault);
    }

    /// The leader is hit more often than its share.
    fn victim(&mut self) -> NodeId {
        let leader = self
            .store
            .current
            .cluster
            .leader
            .as_ref()
            .map(crate::node::id_of);
        match leader {
            Some(leader) if self.rng.chance(450) => leader,
            _ => self.rng.index(self.nodes.len()),
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let id = self.victim();
        let total: u64 = self.config.weights.iter().sum();
        let mut drawn = self.rng.below(total);
        let mut found = Kind::KillPostmaster;
        for ((kind, _), weight) in Kind::ALL.iter().zip(&self.config.weights) {
            if drawn < *weight {
                found = *kind;
                break;
            }
            drawn -= weight;
        }
        match found {
            Kind::KillPostmaster => Fault::KillPostmaster(id),
            Kind::KillAgent => Fault::KillAgent(id),
            Kind::KillBoth => Fault::KillBoth(id),
            Kind::LoseMachine => Fault::LoseMachine(id),
            Kind::PowerLoss => Fault::PowerLoss,
            Kind::Freeze => {
                let clock_stops = self.config.synchronous() && self.rng.chance(400);
                Fault::Freeze { id, clock_stops }
            }
            Kind::StopAgent => Fault::StopAgent(id),
            Kind::StopPostgres => Fault::StopPostgres(id),
            Kind::Isolate => Fault::Isolate(id),
            Kind::CutFromStore => Fault::CutFromStore(id),
            Kind::CutFromPeers => Fault::CutFromPeers(id),
            Kind::OneWay => Fault::OneWay(id, self.rng.index(self.nodes.len() + 1)),
            Kind::StoreOutage => Fault::StoreOutage,
            Kind::StoreSlow => Fault::StoreSlow(id),
            Kind::StoreLossy => Fault::StoreLossy,
            Kind::ViewLag => Fault::ViewLag(self.rng.index(self.nodes.len())),
            Kind::Sick => {
                let health = [Health::Slow, Health::Hung, Health::Full][self.rng.index(3)];
                Fault::Sick(id, health)
            }
            Kind::Switchover => Fault::Switchover,
            Kind::Maintenance => Fault::Maintenance(id),
            Kind::Pause => Fault::Pause,
            Kind::Priority => Fault::Priority(id),
            Kind::Drop => Fault::Drop(id),
            Kind::AcceptLoss => Fault::AcceptLoss(self.rng.index(self.nodes.len())),
            Kind::Errand => {
                let again = self.rng.chance(700);
                let errand = [Errand::Reinitialize, Errand::Restart][usize::from(again)];
                Fault::Errand(id, errand)
            }
        }
    }

    fn undo_after(&mut self, low: Micros, high: Micros, undo: Undo) {
        let delay = self.rng.between(low, high);
        self.after(delay, Target::World, Event::Undo(undo));
    }

    pub(crate) fn inflict(&mut self, fault: Fault) {
        self.note(|| format!("FAULT  {fault:?}"));
        match fault {
            Fault::KillPostmaster(id) => {
                let lingering = self.rng.chance(500);
                self.orphan(id, lingering);
            }
            Fault::KillAgent(id) => {
                self.kill_agent(id);
                self.undo_after(ms(50), ms(3000), Undo::StartAgent(id));
            }
            Fault::KillBoth(id) => {
                self.kill_agent(id);
                let lingering = self.rng.chance(500);
                self.orphan(id, lingering);
                self.undo_after(ms(50), ms(3000), Undo::StartAgent(id));
            }
            Fault::LoseMachine(id) => {
                self.lose_machine(id);
                self.undo_after(ms(500), ms(6000), Undo::StartMachine(id));
            }
            Fault::PowerLoss => {
                for id in 0..self.nodes.len() {
                    self.lose_machine(id);
                    self.undo_after(ms(300), ms(5000), Undo::StartMachine(id));
                }
            }
            Fault::Freeze { id, clock_stops } => self.freeze(id, clock_stops),
            Fault::StopAgent(id) => {
                self.nodes[id].agent.stopped = true;
                self.undo_after(ms(200), ms(5000), Undo::ContinueAgent(id));
            }
            Fault::StopPostgres(id) => {
                let now = self.now;
                let pg = &mut self.nodes[id].pg;
                if pg.life == Life::Up && pg.stopped.is_none() {
                    pg.stopped = Some(now);
                    self.undo_after(ms(200), ms(5000), Undo::ContinuePostgres(id));
                }
            }
            Fault::Isolate(id) => {
                self.cut_off(id, true, true);
                self.undo_after(ms(300), ms(6000), Undo::Reconnect(id));
            }
            Fault::CutFromStore(id) => {
                self.cut_off(id, true, false);
                self.undo_after(ms(300), ms(5000), Undo::Reconnect(id));
            }
            Fault::CutFromPeers(id) => {
                self.cut_off(id, false, true);
                self.undo_after(ms(300), ms(5000), Undo::Reconnect(id));
            }
            Fault::OneWay(id, other) => {
                let (from, to) = if self.rng.chance(500) {
                    (id, other)
                } else {
                    (other, id)
                };
                if from != to {
                    self.net.set(from, to, true);
                    self.undo_after(ms(300), ms(5000), Undo::Join(from, to));
                }
            }
            Fault::StoreOutage => {
                self.outage = true;
                self.settle_store();
                self.undo_after(ms(300), ms(4000), Undo::StoreBack);
            }
            Fault::StoreSlow(id) => {
                self.net.set_slow(id, true);
                self.net.both_slow = self.rng.chance(400);
                self.undo_after(ms(500), ms(4000), Undo::StoreFast(id));
            }
            Fault::StoreLossy => {
                self.net.store_loss = 250;
                self.undo_after(ms(500), ms(4000), Undo::StoreSound);
            }
            Fault::ViewLag(id) => {
                self.net.set_lagging(id, true);
                self.undo_after(ms(500), ms(6000), Undo::ViewCurrent(id));
            }
            Fault::Sick(id, health) => self.sicken(id, health),
            Fault::Switchover => self.order_switchover(),
            Fault::Maintenance(id) => {
                self.set_maintenance(id, true);
                self.undo_after(ms(500), ms(4000), Undo::EndMaintenance(id));
            }
            Fault::Pause => {
                self.set_paused(true);
                self.undo_after(ms(500), ms(6000), Undo::Resume);
            }
            Fault::Priority(id) => self.set_priority(id),
            Fault::Drop(id) => {
                self.drop_node(id);
                self.undo_after(ms(2000), ms(6000), Undo::Rejoin(id));
            }
            Fault::AcceptLoss(id) => self.accept_loss(id),
            Fault::Errand(id, errand) => self.ask(id, errand),
        }
    }

    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::StartAgent(id) => self.start_agent(id),
            Undo::StartMachine(id) => self.start_machine(id),
            Undo::Thaw(id) => self.thaw(id),
            Undo::ContinueAgent(id) => {
                let agent = &mut self.nodes[id].agent;
                agent.stopped = false;
                let deferred = std::mem::take(&mut agent.deferred);
                self.release_deferred(deferred);
            }
            Undo::ContinuePostgres(id) => {
                let pg = &mut self.nodes[id].pg;
                pg.stopped = None;
                let deferred = std::mem::take(&mut pg.deferred);
                self.release_deferred(deferred);
            }
            Undo::Reconnect(id) => self.reconnect(id),
            Undo::Join(from, to) => self.net.set(from, to, false),
            Undo::StoreBack => {
                self.outage = false;
                self.settle_store();
            }
            Undo::StoreFast(id) => self.net.set_slow(id, false),
            Undo::StoreSound if self.era == Era::Turmoil => self.net.store_loss = self.config.loss,
            Undo::StoreSound => {}
            Undo::ViewCurrent(id) => self.net.set_lagging(id, false),
            Undo::Recover(id) => self.nodes[id].disk.health = Health::Fine,
            Undo::EndMaintenance(id) => self.set_maintenance(id, false),
            Undo::Resume => self.set_paused(false),
            Undo::Rejoin(id) => self.rejoin(id),
        }
    }

    /// A promotion has just ended: the next blow, before anybody has recovered from the last.
    pub(crate) fn strike_again(&mut self, id: NodeId) {
        if self.era != Era::Turmoil {
            return;
        }
        let delay = self.rng.below(ms(250));
        let fault = match self.rng.below(5) {
            0 => Fault::KillPostmaster(id),
            1 => Fault::KillBoth(id),
            2 => Fault::Isolate(id),
            3 => Fault::LoseMachine(id),
            _ => Fault::Freeze {
                id,
                clock_stops: false,
            },
        };
        self.after(delay, Target::World, Event::Fault(fault));
    }

    pub(crate) fn kill_agent(&mut self, id: NodeId) {
        let agent = &mut self.nodes[id].agent;
        agent.alive = false;
        agent.stopped = false;
        agent.deferred.clear();
        agent.calls.clear();
        agent.doing = None;
    }

    fn lose_machine(&mut self, id: NodeId) {
        if !self.nodes[id].up {
            return;
        }
        self.kill_agent(id);
        self.lose_postgres(id);
        let boot = self.new_run();
        let node = &mut self.nodes[id];
        node.up = false;
        node.frozen = false;
        node.deferred.clear();
        node.boot = boot;
        node.guard = None;
        self.settle_store();
    }

    fn start_machine(&mut self, id: NodeId) {
        if self.nodes[id].up {
            return;
        }
        let clock = Self::fresh_clock(&mut self.rng, self.now);
        let node = &mut self.nodes[id];
        node.up = true;
        node.clock = clock;
        self.settle_store();
        self.undo_after(ms(50), ms(400), Undo::StartAgent(id));
    }

    fn freeze(&mut self, id: NodeId, clock_stops: bool) {
        let now = self.now;
        let node = &mut self.nodes[id];
        if !node.up || node.frozen {
            return;
        }
        node.frozen = true;
        if clock_stops {
            node.clock.stop(now);
        }
        self.settle_store();
        let longest = if self.rng.chance(500) {
            ms(1500)
        } else {
            ms(6000)
        };
        self.undo_after(ms(200), longest, Undo::Thaw(id));
    }

    fn thaw(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id];
        if !node.frozen {
            return;
        }
        node.frozen = false;
        node.thawed = now;
        node.clock.go(now);
        let guard = node.guard;
        let deferred = std::mem::take(&mut node.deferred);
        self.release_deferred(deferred);
        if let Some(deadline) = guard {
            let at = self.nodes[id].clock.when(deadline);
            let target = self.machine(id);
            self.at(at, target, Event::GuardFire);
        }
        self.settle_store();
    }

    fn cut_off(&mut self, id: NodeId, store: bool, peers: bool) {
        let places = self.nodes.len();
        for other in 0..places {
            if peers && other != id {
                self.net.set(id, other, true);
                self.net.set(other, id, true);
            }
        }
        if store {
            self.net.set(id, places, true);
            self.net.set(places, id, true);
        }
    }

    fn reconnect(&mut self, id: NodeId) {
        for other in 0..=self.nodes.len() {
            if other != id {
                self.net.set(id, other, false);
                self.net.set(other, id, false);
            }
        }
    }

    fn sicken(&mut self, id: NodeId, health: Health) {
        let now = self.now;
        let replay = self.pg(id);
        let disk = &mut self.nodes[id].disk;
        // What a disk was told before it hung, it does when it hangs no more.
        let hung = std::mem::replace(&mut disk.health, health) == Health::Hung;
        if hung {
            disk.flushed = disk.wal.len();
        }
        disk.sick_since = now;
        if hung {
            self.after(ms(1), replay, Event::Replay);
        }
        self.undo_after(ms(300), ms(5000), Undo::Recover(id));
    }

    /// Everything is put right at once.
    pub(crate) fn heal(&mut self) {
        self.net.heal();
        self.outage = false;
        for id in 0..self.nodes.len() {
            self.start_machine(id);
            self.thaw(id);
            if self.nodes[id].agent.stopped {
                self.undo(Undo::ContinueAgent(id));
            }
            if self.nodes[id].pg.stopped.is_some() {
                self.undo(Undo::ContinuePostgres(id));
            }
            self.nodes[id].disk.health = Health::Fine;
        }
        self.settle_store();
        self.set_paused(false);
        for id in 0..self.nodes.len() {
            self.start_agent(id);
            self.set_maintenance(id, false);
        }
    }
}
