//! An instance: how it starts, dies, is promoted, and what is left of it.
//!
//! **Invariant:** a postmaster starts only where no process of an earlier start lives.

use crate::config::Break;
use crate::node::{Health, Life, Names, NodeId, PrimarySide, Role, StandbySide};
use crate::time::ms;
use crate::wal::{Record, SYSTEM};
use crate::world::{Event, World};
use ha::{DataDir, Epoch, Lineage, Timeline};
use std::collections::BTreeMap;

impl World {
    pub(crate) fn on_machine(&mut self, id: NodeId, event: Event) {
        match event {
            Event::GuardFire => self.guard_fires(id),
            Event::Mute { run } if self.nodes[id].pg.run == run => self.mute(id),
            Event::Gone { run } if self.nodes[id].pg.run == run => self.gone(id),
            _ => {}
        }
    }

    /// The guard's own timer: whatever the agent does, a primary is dead at the deadline.
    fn guard_fires(&mut self, id: NodeId) {
        let local = self.local(id);
        let node = &self.nodes[id];
        if node.guard.is_none_or(|deadline| local < deadline) {
            return;
        }
        let primary = matches!(node.pg.role, Role::Primary(_)) || node.pg.promoting;
        if primary && !matches!(node.pg.life, Life::Down | Life::Dying) {
            self.note_of(id, || "guard: the deadline is over".to_owned());
            self.kill(id);
        }
    }

    pub(crate) fn on_pg(&mut self, id: NodeId, event: Event) {
        match event {
            Event::Started => self.started(id),
            Event::StartFailed => self.start_failed(id),
            Event::Flushed { upto } => self.flushed(id, upto),
            Event::Connect => self.connect(id),
            Event::Pump {
                standby,
                connection,
            } => self.pump(id, standby, connection),
            Event::WalArrive {
                connection,
                from,
                records,
                half,
            } => {
                self.wal_arrives(id, connection, from, &records, half);
            }
            Event::Reply {
                standby,
                connection,
                flushed,
            } => {
                self.replied(id, standby, connection, flushed);
            }
            Event::Replay => self.replay(id),
            Event::SeenWaiting { at, times } => self.seen_waiting(id, at, times),
            Event::Reread { sender } => self.reread(id, sender),
            Event::Promoted { epoch, predicted } => self.promoted(id, epoch, predicted),
            Event::SendersGone => self.close_connections(id),
            Event::SenderTimeout {
                standby,
                connection,
            } => {
                self.sender_ends(id, standby, connection);
            }
            Event::ReceiverTimeout { connection } => self.receiver_ends(id, connection),
            Event::BackendsLeave => self.kill(id),
            Event::ShutDown => self.shut_down(id),
            Event::DrainLimit => self.kill(id),
            _ => {}
        }
    }

    pub(crate) fn start_postgres(&mut self, id: NodeId) {
        let run = self.new_run();
        let back = self.rng.index(12);
        let node = &mut self.nodes[id];
        if node.pg.life != Life::Down {
            node.agent.start_failures += 1;
            return;
        }
        let len = node.disk.wal.len();
        node.disk.clean_stop = false;
        node.disk.half = false;
        node.pg.run = run;
        node.pg.life = Life::Starting;
        node.pg.stopped = None;
        node.pg.deferred.clear();
        node.pg.flushing = false;
        node.pg.promoting = false;
        node.pg.role = Role::Standby(StandbySide {
            replayed: len.saturating_sub(back),
            ..StandbySide::default()
        });
        let target = self.pg(id);
        match self.nodes[id].disk.health {
            Health::Full => self.after(ms(100), target, Event::StartFailed),
            Health::Fine | Health::Slow | Health::Hung => {
                let delay = self.disk_delay(id) * 4 + self.rng.between(ms(60), ms(350));
                self.after(delay, target, Event::Started);
            }
        }
    }

    fn started(&mut self, id: NodeId) {
        let target = self.pg(id);
        let node = &mut self.nodes[id];
        if node.pg.life != Life::Starting {
            return;
        }
        if node.disk.health == Health::Hung {
            self.after(ms(100), target, Event::Started);
            return;
        }
        node.pg.life = Life::Up;
        node.disk.flushed = node.disk.wal.len();
        let told = node.disk.upstream.is_some();
        self.after(ms(2), target, Event::Replay);
        if told {
            self.after(ms(3), target, Event::Connect);
        }
        self.note_of(id, || "postgres is up as a standby".to_owned());
        self.wake(id);
    }

    fn start_failed(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        node.pg.life = Life::Down;
        node.agent.start_failures += 1;
        self.note_of(id, || "postgres failed to start".to_owned());
        self.wake(id);
    }

    /// SIGKILL for all of it. What is on the network stays on the network.
    pub(crate) fn kill(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if matches!(node.pg.life, Life::Down | Life::Dying) {
            return;
        }
        node.pg.life = Life::Dying;
        let run = node.pg.run;
        let target = self.machine(id);
        let delay = self.rng.between(ms(1), ms(20));
        self.after(delay, target, Event::Mute { run });
        self.note_of(id, || "postgres is killed".to_owned());
    }

    /// Nothing runs any more; a process on a hung disk is not gone yet.
    fn mute(&mut self, id: NodeId) {
        self.close_connections(id);
        let run = self.new_run();
        let node = &mut self.nodes[id];
        node.pg.run = run;
        node.pg.life = Life::Dying;
        node.pg.stopped = None;
        node.pg.deferred.clear();
        node.pg.promoting = false;
        node.pg.promotion = None;
        if let Some(side) = node.primary_mut() {
            side.waiting.clear();
        }
        let target = self.machine(id);
        let delay = self.rng.between(500, ms(25));
        self.after(delay, target, Event::Gone { run });
    }

    fn gone(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let run = node.pg.run;
        if node.disk.health == Health::Hung {
            let target = self.machine(id);
            self.after(ms(50), target, Event::Gone { run });
            return;
        }
        node.pg.life = Life::Down;
        self.wake(id);
    }

    /// `kill -9` of the postmaster: the backends notice when they like.
    pub(crate) fn orphan(&mut self, id: NodeId, lingering: bool) {
        let node = &mut self.nodes[id];
        if node.pg.life != Life::Up {
            return;
        }
        self.note_of(id, || {
            format!("the postmaster dies, backends live on: {lingering}")
        });
        if !lingering {
            self.kill(id);
            self.wake(id);
            return;
        }
        let node = &mut self.nodes[id];
        node.pg.life = Life::Orphaned;
        // Who waits for an acknowledgement sees the postmaster's death and leaves without one.
        if let Some(side) = node.primary_mut() {
            side.waiting.clear();
        }
        let target = self.pg(id);
        let delay = self.rng.between(ms(1), ms(20));
        self.after(delay, target, Event::SendersGone);
        let last = self.rng.between(ms(300), ms(6000));
        self.after(last, target, Event::BackendsLeave);
        self.wake(id);
    }

    /// The machine is gone, with everything that was not flushed.
    pub(crate) fn lose_postgres(&mut self, id: NodeId) {
        self.close_connections(id);
        let run = self.new_run();
        let kept = {
            let disk = &self.nodes[id].disk;
            let unsure = disk.wal.len() - disk.flushed;
            disk.flushed + self.rng.index(unsure + 1)
        };
        let node = &mut self.nodes[id];
        node.disk.wal.truncate(kept);
        node.disk.half = false;
        node.pg.promoting = false;
        node.pg.promotion = None;
        node.pg.run = run;
        node.pg.life = Life::Down;
        node.pg.stopped = None;
        node.pg.deferred.clear();
        node.pg.role = Role::Standby(StandbySide::default());
    }

    pub(crate) fn create_cluster(&mut self, id: NodeId, epoch: Epoch, lineage: Lineage) {
        let uid = self.new_uid();
        let run = self.new_run();
        let node = &mut self.nodes[id];
        let record = Record {
            uid,
            timeline: Timeline(1),
            epoch,
            commit: false,
        };
        node.disk.wal = vec![record];
        node.disk.flushed = 1;
        node.disk.note = Some(lineage);
        node.disk.data = DataDir::Ready(SYSTEM);
        node.disk.histories = std::iter::once(Timeline(1)).collect();
        node.pg.run = run;
        node.pg.life = Life::Up;
        node.pg.flushing = false;
        node.pg.role = Role::Primary(Box::new(PrimarySide::new(
            Timeline(1),
            epoch,
            Names::default(),
        )));
        if let Some(side) = self.nodes[id].primary_mut() {
            side.recovered = 1;
        }
        self.note_promoted(id);
    }

    /// A data directory from before there was a cluster, whose commits were acknowledged.
    pub(crate) fn bring_data(&mut self) {
        let timeline = Timeline([1, 3][self.rng.index(2)]);
        for index in 0..self.config.adopted {
            let uid = self.new_uid();
            let record = Record {
                uid,
                timeline,
                epoch: Epoch::NONE,
                commit: true,
            };
            self.nodes[0].disk.wal.push(record);
            self.note_brought(index, uid);
        }
        let disk = &mut self.nodes[0].disk;
        disk.flushed = disk.wal.len();
        if disk.flushed > 0 {
            disk.data = DataDir::Ready(SYSTEM);
            disk.histories = (1..=timeline.0).map(Timeline).collect();
        }
    }

    /// Its WAL is the cluster's first from now on.
    pub(crate) fn adopt(&mut self, id: NodeId, epoch: Epoch) {
        let disk = &mut self.nodes[id].disk;
        let timeline = disk.wal.last().map_or(Timeline(1), |last| last.timeline);
        disk.note = Some(Lineage::founded(timeline, epoch));
        for record in &mut disk.wal {
            record.epoch = epoch;
        }
    }

    /// No receiver any more, and none can come back. What it has written, it flushes before it ends.
    pub(crate) fn detach(&mut self, id: NodeId) {
        let broken = self.config.is_broken(Break::PromiseWhileStreaming);
        let node = &mut self.nodes[id];
        let flushing = node.pg.flushing;
        let Some(standby) = node.standby_mut() else {
            return;
        };
        if broken {
            standby.ghost = standby.receiver.is_some();
            return;
        }
        // One whose primary has gone flushes what it has before it ends.
        let receives = standby.receiver.is_some() || flushing;
        match node.disk.health {
            // Its last flush does not end, and so it does not end either.
            Health::Hung if receives => return,
            Health::Hung => {}
            Health::Full => {
                node.disk.wal.truncate(node.disk.flushed);
                node.disk.half = false;
            }
            Health::Fine | Health::Slow => node.disk.flushed = node.disk.wal.len(),
        }
        if let Some(receiver) = node
            .standby_mut()
            .and_then(|standby| standby.receiver.take())
        {
            self.hang_up(receiver.from, id, receiver.connection);
        }
        let target = self.pg(id);
        self.after(ms(1), target, Event::Replay);
    }

    pub(crate) fn begin_promotion(
        &mut self,
        id: NodeId,
        epoch: Epoch,
        predicted: Timeline,
        names: Names,
    ) {
        // The history file comes in the midst of it: cut off before, the number is free again.
        let early = self.rng.chance(500);
        let node = &mut self.nodes[id];
        if early {
            node.disk.histories.insert(predicted);
        }
        node.disk.half = false;
        // Read by everybody before the promotion begins; kept aside until there is a primary to hold it.
        let mut side = PrimarySide::new(predicted, epoch, names);
        // Whom it has let in as a standby writes as soon as that can be done.
        side.open = node.standby().is_some_and(|standby| standby.open);
        // On a busy machine it takes as long as an agent takes to come back.
        let delay = match self.rng.chance(60) {
            true => self.rng.between(ms(150), ms(2500)),
            false => self.rng.between(ms(20), ms(150)),
        };
        let target = self.pg(id);
        self.nodes[id].pg.promotion = Some(Box::new(side));
        self.after(delay, target, Event::Promoted { epoch, predicted });
    }

    fn promoted(&mut self, id: NodeId, epoch: Epoch, predicted: Timeline) {
        let uid = self.new_uid();
        let node = &mut self.nodes[id];
        let Some(mut side) = node.pg.promotion.take() else {
            return;
        };
        node.pg.promoting = false;
        if node.pg.life != Life::Up {
            return;
        }
        node.disk.histories.insert(predicted);
        node.disk.wal.push(Record {
            uid,
            timeline: predicted,
            epoch,
            commit: false,
        });
        side.recovered = node.disk.wal.len();
        // PostgreSQL flushes it before it says that recovery is over (`CreateEndOfRecoveryRecord`).
        if matches!(node.disk.health, Health::Fine | Health::Slow) {
            node.disk.flushed = node.disk.wal.len();
        }
        let early = self.config.is_broken(Break::OpenEarly);
        side.open |= early;
        self.nodes[id].pg.role = Role::Primary(side);
        self.note_of(id, || {
            format!("postgres is promoted to timeline {predicted} in epoch {epoch}")
        });
        self.note_promoted(id);
        if early {
            self.note_opened(id);
        }
        self.flush_soon(id);
        self.wake(id);
        if self.rng.chance(self.config.double_fault) {
            self.strike_again(id);
        }
    }

    pub(crate) fn open(&mut self, id: NodeId) {
        let local = self.local(id);
        let node = &mut self.nodes[id];
        let lawful = node.agent.lease.is_some_and(|lease| local < lease.deadline);
        if node.pg.life != Life::Up {
            return;
        }
        match &mut node.pg.role {
            Role::Standby(side) => side.open = true,
            Role::Primary(side) if lawful => {
                side.open = true;
                self.note_opened(id);
            }
            Role::Primary(_) => {}
        }
        self.wake(id);
    }

    /// A clean stop: no new commits, the connected standbys get everything.
    pub(crate) fn drain(&mut self, id: NodeId) {
        let uid = self.new_uid();
        let node = &mut self.nodes[id];
        if let (Life::Up, Role::Primary(side)) = (node.pg.life, &mut node.pg.role) {
            side.draining = true;
            let (timeline, epoch) = (side.timeline, side.epoch);
            node.disk.wal.push(Record {
                uid,
                timeline,
                epoch,
                commit: false,
            });
            self.flush_soon(id);
            let target = self.pg(id);
            self.after(ms(20), target, Event::ShutDown);
            self.after(ms(2500), target, Event::DrainLimit);
        } else {
            self.kill(id);
        }
    }

    fn shut_down(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        let all = node.disk.wal.len();
        let Some(side) = node.primary() else { return };
        let drained =
            node.disk.flushed == all && side.senders.values().all(|sender| sender.flushed == all);
        if drained {
            self.note_of(id, || "postgres has stopped cleanly".to_owned());
            self.close_connections(id);
            let run = self.new_run();
            let node = &mut self.nodes[id];
            node.disk.clean_stop = true;
            node.pg.run = run;
            node.pg.life = Life::Down;
            self.wake(id);
        } else {
            let target = self.pg(id);
            self.after(ms(20), target, Event::ShutDown);
        }
    }

    /// One fsync. What a hung disk does, it does later.
    pub(crate) fn disk_delay(&mut self, id: NodeId) -> u64 {
        match self.nodes[id].disk.health {
            Health::Slow => self.rng.between(ms(50), ms(400)),
            Health::Fine | Health::Hung | Health::Full => {
                if self.rng.chance(self.config.slow_flush) {
                    self.rng.between(ms(5), ms(80))
                } else {
                    self.rng.between(500, 5000)
                }
            }
        }
    }

    /// At most one flush at a time; the next takes what has come in between.
    pub(crate) fn flush_soon(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        if node.pg.flushing || node.disk.flushed >= node.disk.wal.len() {
            return;
        }
        let upto = node.disk.wal.len();
        self.nodes[id].pg.flushing = true;
        let delay = self.disk_delay(id);
        let target = self.pg(id);
        self.after(delay, target, Event::Flushed { upto });
    }

    fn flushed(&mut self, id: NodeId, upto: usize) {
        let target = self.pg(id);
        let node = &mut self.nodes[id];
        match node.disk.health {
            Health::Hung => {
                self.after(ms(50), target, Event::Flushed { upto });
                return;
            }
            Health::Full => {
                // A primary panics; a standby's receiver gives up and tries again.
                node.pg.flushing = false;
                if matches!(node.pg.role, Role::Primary(_)) {
                    self.orphan(id, false);
                    return;
                }
                node.disk.wal.truncate(node.disk.flushed);
                node.disk.half = false;
                if let Some(receiver) = node.standby_mut().and_then(|side| side.receiver.take()) {
                    self.hang_up(receiver.from, id, receiver.connection);
                    self.after(ms(200), target, Event::Connect);
                }
                return;
            }
            Health::Fine | Health::Slow => {}
        }
        node.pg.flushing = false;
        node.disk.flushed = node.disk.flushed.max(upto.min(node.disk.wal.len()));
        match &node.pg.role {
            Role::Primary(_) => {
                self.acknowledge(id);
                self.pump_all(id);
            }
            Role::Standby(side) => {
                if let Some(receiver) = side.receiver {
                    self.reply(id, receiver);
                }
                self.after(ms(1), target, Event::Replay);
            }
        }
        self.flush_soon(id);
    }

    fn replay(&mut self, id: NodeId) {
        let chunk = self.rng.between(1, 20);
        let pause = if self.rng.chance(20) { ms(60) } else { ms(1) };
        let target = self.pg(id);
        let node = &mut self.nodes[id];
        let end = node.disk.flushed;
        let Some(standby) = node.standby_mut() else {
            return;
        };
        let behind = end.saturating_sub(standby.replayed);
        if behind == 0 {
            let at = standby.replayed;
            if standby.receiver.is_none() && !standby.waiting {
                self.after(ms(30), target, Event::SeenWaiting { at, times: 1 });
            }
            return;
        }
        standby.waiting = false;
        standby.replayed += behind.min(usize::try_from(chunk).unwrap_or(1));
        self.after(pause, target, Event::Replay);
    }

    fn seen_waiting(&mut self, id: NodeId, at: usize, times: u8) {
        let target = self.pg(id);
        let node = &mut self.nodes[id];
        let end = node.disk.wal.len();
        let Some(standby) = node.standby_mut() else {
            return;
        };
        if standby.receiver.is_some() || standby.replayed != at || end != at {
            return;
        }
        if times == 2 {
            standby.waiting = true;
            self.wake(id);
        } else {
            self.after(ms(110), target, Event::SeenWaiting { at, times: 2 });
        }
    }
}

impl PrimarySide {
    fn new(timeline: Timeline, epoch: Epoch, names: Names) -> Self {
        Self {
            timeline,
            epoch,
            open: false,
            draining: false,
            configured: names.clone(),
            defined: names,
            released: 0,
            senders: BTreeMap::new(),
            waiting: Vec::new(),
            recovered: 0,
        }
    }
}
