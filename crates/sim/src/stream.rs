//! Streaming and synchronous replication: receivers, walsenders that each read the setting for themselves, and who
//! lets a waiting COMMIT go.
//!
//! **Invariant:** a walsender releases by the setting that it last read; one node has one walsender (its slot is
//! taken by the old one until that has ended).

use crate::config::Break;
use crate::net::Network;
use crate::node::{Life, Names, NodeId, Receiver, Role, Sender, Waiter};
use crate::time::{Micros, ms};
use crate::wal::{Record, Refusal, may_stream};
use crate::world::{Event, World};
use ha::StreamBroken;

/// `wal_retrieve_retry_interval`.
const RETRY: Micros = ms(100);

impl World {
    /// The standby's receiver tries its upstream.
    pub(crate) fn connect(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        let Some((from, epoch)) = node.disk.upstream else {
            // Told to stream from nobody: from now on it waits for WAL in its own directory.
            let target = self.pg(id);
            self.after(ms(1), target, Event::Replay);
            return;
        };
        if node
            .standby()
            .is_none_or(|standby| standby.receiver.is_some())
        {
            return;
        }
        let target = self.pg(id);
        let retry = RETRY + self.rng.below(ms(20));
        let source = &self.nodes[from];
        let reached = source.up
            && !source.frozen
            && source.pg.stopped.is_none()
            && self.net.both_ways(id, from);
        let Some(side) = source.primary().filter(|side| reached && !side.draining) else {
            self.after(retry, target, Event::Connect);
            return;
        };
        // The slot's name tells the epoch: the next leadership of the same node has other slots.
        let slot = side.epoch == epoch || self.config.is_broken(Break::StreamAcrossEpochs);
        if !slot || side.senders.contains_key(&id) {
            self.after(retry, target, Event::Connect);
            return;
        }
        let start = node.disk.wal.len();
        let kept = source.disk.flushed.saturating_sub(self.config.retention);
        let answer = match start < kept {
            true => Err(Refusal::WalRemoved),
            false => may_stream(&node.disk.wal, &source.disk.wal, source.disk.flushed),
        };
        if let Err(refusal) = answer {
            self.refused(id, refusal);
            self.after(retry, target, Event::Connect);
            return;
        }
        self.connected(id, from, start);
    }

    fn refused(&mut self, id: NodeId, refusal: Refusal) {
        let broken = match refusal {
            Refusal::Diverged => StreamBroken::Diverged,
            Refusal::WalRemoved => StreamBroken::WalRemoved,
        };
        if let Some(standby) = self.nodes[id].standby_mut()
            && standby.broken != Some(broken)
        {
            standby.broken = Some(broken);
            self.note_of(id, || format!("streaming is refused: {broken:?}"));
            self.wake(id);
        }
    }

    fn connected(&mut self, id: NodeId, from: NodeId, start: usize) {
        self.note_connected(id, from, start);
        let connection = self.new_run();
        let histories = self.nodes[from].disk.histories.clone();
        self.nodes[id].disk.histories.extend(histories);
        self.nodes[id].disk.half = false;
        if let Some(standby) = self.nodes[id].standby_mut() {
            standby.receiver = Some(Receiver { connection, from });
            standby.streamed = true;
            standby.waiting = false;
            standby.broken = None;
        }
        if let Some(side) = self.nodes[from].primary_mut() {
            let read = side.configured.clone();
            let sender = Sender {
                connection,
                read,
                sent: start,
                flushed: 0,
                busy: false,
                broken: false,
            };
            side.senders.insert(id, sender);
        }
        let names = (self.nodes[id].name.clone(), self.nodes[from].name.clone());
        self.note(|| format!("{}  streams from {} at {start}", names.0, names.1));
        self.reply(id, Receiver { connection, from });
        self.pump_soon(from, id, connection);
        self.wake(from);
        self.wake(id);
    }

    fn pump_soon(&mut self, id: NodeId, standby: NodeId, connection: u64) {
        let delay = self.rng.between(100, 1500);
        let target = self.pg(id);
        let Some(sender) = self.sender(id, standby, connection) else {
            return;
        };
        if !sender.busy {
            sender.busy = true;
            self.after(
                delay,
                target,
                Event::Pump {
                    standby,
                    connection,
                },
            );
        }
    }

    pub(crate) fn pump_all(&mut self, id: NodeId) {
        let flushed = self.nodes[id].disk.flushed;
        let Some(side) = self.nodes[id].primary() else {
            return;
        };
        let behind: Vec<(NodeId, u64)> = side
            .senders
            .iter()
            .filter(|(_, sender)| sender.sent < flushed && !sender.busy)
            .map(|(standby, sender)| (*standby, sender.connection))
            .collect();
        for (standby, connection) in behind {
            self.pump_soon(id, standby, connection);
        }
    }

    fn sender(&mut self, id: NodeId, standby: NodeId, connection: u64) -> Option<&mut Sender> {
        let side = self.nodes[id].primary_mut()?;
        side.senders
            .get_mut(&standby)
            .filter(|sender| sender.connection == connection)
    }

    /// The walsender sends what is flushed here.
    pub(crate) fn pump(&mut self, id: NodeId, standby: NodeId, connection: u64) {
        let flushed = self.nodes[id].disk.flushed;
        let Some(sender) = self.sender(id, standby, connection) else {
            return;
        };
        sender.busy = false;
        let from = sender.sent;
        if sender.broken || from >= flushed {
            return;
        }
        sender.sent = flushed;
        let records = self.nodes[id].disk.wal[from..flushed].to_vec();
        // What is flushed may end at a page, in the middle of a record.
        let half = self.nodes[id].disk.wal.len() > flushed && self.rng.chance(self.config.halves);
        if self.carries(id, id, standby, connection) {
            let delay = Network::delay(&mut self.rng);
            let target = self.pg(standby);
            self.after(
                delay,
                target,
                Event::WalArrive {
                    connection,
                    from,
                    records,
                    half,
                },
            );
        }
    }

    /// Whether a message of this connection gets through; if not, the connection is dead and both find out later.
    fn carries(&mut self, from: NodeId, primary: NodeId, standby: NodeId, connection: u64) -> bool {
        let to = if from == primary { standby } else { primary };
        if self.net.is_open(from, to) {
            return true;
        }
        if let Some(sender) = self.sender(primary, standby, connection) {
            if sender.broken {
                return false;
            }
            sender.broken = true;
        }
        self.time_out(primary, standby, connection);
        false
    }

    fn time_out(&mut self, primary: NodeId, standby: NodeId, connection: u64) {
        let delay = self.rng.between(ms(900), ms(2000));
        let target = self.pg(primary);
        self.after(
            delay,
            target,
            Event::SenderTimeout {
                standby,
                connection,
            },
        );
        let delay = self.rng.between(ms(900), ms(2000));
        let target = self.pg(standby);
        self.after(delay, target, Event::ReceiverTimeout { connection });
    }

    pub(crate) fn wal_arrives(
        &mut self,
        id: NodeId,
        connection: u64,
        from: usize,
        records: &[Record],
        half: bool,
    ) {
        let local = self.local(id);
        let node = &mut self.nodes[id];
        let Some(receiver) = node.standby().and_then(|standby| standby.receiver) else {
            return;
        };
        if receiver.connection != connection {
            return;
        }
        if from > node.disk.wal.len() {
            // A connection keeps its order: what comes before is still on its way.
            let records = records.to_vec();
            let target = self.pg(id);
            self.after(
                ms(1),
                target,
                Event::WalArrive {
                    connection,
                    from,
                    records,
                    half,
                },
            );
            return;
        }
        node.disk.wal.extend_from_slice(records);
        node.disk.half = half;
        node.agent.contact.wal = Some(local);
        if !records.is_empty() {
            self.note_received(id);
        }
        self.flush_soon(id);
    }

    /// The standby says how far it has flushed.
    pub(crate) fn reply(&mut self, id: NodeId, receiver: Receiver) {
        let flushed = self.nodes[id].disk.flushed;
        let Receiver { connection, from } = receiver;
        if self.carries(id, from, id, connection) {
            let delay = Network::delay(&mut self.rng);
            let target = self.pg(from);
            self.after(
                delay,
                target,
                Event::Reply {
                    standby: id,
                    connection,
                    flushed,
                },
            );
        }
    }

    /// A walsender takes a reply in, and releases by its own reading of the setting.
    pub(crate) fn replied(&mut self, id: NodeId, standby: NodeId, connection: u64, flushed: usize) {
        let Some(sender) = self.sender(id, standby, connection) else {
            return;
        };
        sender.flushed = sender.flushed.max(flushed);
        let read = sender.read.clone();
        if let Some(side) = self.nodes[id].primary_mut()
            && read.names.contains(&standby)
        {
            let mut positions: Vec<usize> = side
                .senders
                .iter()
                // Each walsender holds itself for synchronous by what *it* has read.
                .filter(|(name, sender)| sender.read.names.contains(*name))
                .map(|(_, sender)| sender.flushed)
                .collect();
            positions.sort_unstable_by(|a, b| b.cmp(a));
            if read.needed > 0 && positions.len() >= read.needed {
                side.released = side.released.max(positions[read.needed - 1]);
            }
        }
        self.acknowledge(id);
        self.pump_soon(id, standby, connection);
    }

    /// Lets those go whose commit is flushed here and released (or not asked to wait).
    pub(crate) fn acknowledge(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let flushed = node.disk.flushed;
        let Role::Primary(side) = &mut node.pg.role else {
            return;
        };
        let waits = !side.defined.is_empty();
        if waits && node.pg.life == Life::Orphaned {
            side.waiting.retain(|waiter| waiter.index >= flushed);
            return;
        }
        let released = side.released;
        let free = |waiter: &Waiter| waiter.index < flushed && (!waits || waiter.index < released);
        let (done, still): (Vec<Waiter>, Vec<Waiter>) =
            side.waiting.iter().partition(|waiter| free(waiter));
        side.waiting = still;
        for waiter in done {
            self.note_acknowledged(id, waiter);
        }
    }

    /// A new `synchronous_standby_names` in the file, and a reload: each process reads it in its own time.
    pub(crate) fn configure(&mut self, id: NodeId, names: Names) {
        let target = self.pg(id);
        let Some(side) = self.nodes[id].primary_mut() else {
            return;
        };
        side.configured = names;
        let readers: Vec<Option<(NodeId, u64)>> = side
            .senders
            .iter()
            .map(|(standby, sender)| Some((*standby, sender.connection)))
            .chain([None])
            .collect();
        for sender in readers {
            let delay = match self.rng.chance(100) {
                true => self.rng.between(ms(20), ms(300)),
                false => self.rng.between(500, ms(20)),
            };
            self.after(delay, target, Event::Reread { sender });
        }
    }

    pub(crate) fn reread(&mut self, id: NodeId, sender: Option<(NodeId, u64)>) {
        let Some(side) = self.nodes[id].primary_mut() else {
            return;
        };
        let names = side.configured.clone();
        match sender {
            // The checkpointer: without names, nobody waits any longer.
            None => {
                side.defined = names;
                self.acknowledge(id);
            }
            Some((standby, connection)) => {
                if let Some(sender) = self.sender(id, standby, connection) {
                    sender.read = names;
                }
            }
        }
        self.wake(id);
    }

    // Ends.

    /// The receiver closes its connection; the walsender hears of it, if anything gets through.
    pub(crate) fn hang_up(&mut self, primary: NodeId, standby: NodeId, connection: u64) {
        let delay = match self.net.is_open(standby, primary) {
            true => Network::delay(&mut self.rng),
            false => self.rng.between(ms(900), ms(2000)),
        };
        let target = self.pg(primary);
        self.after(
            delay,
            target,
            Event::SenderTimeout {
                standby,
                connection,
            },
        );
    }

    pub(crate) fn sender_ends(&mut self, id: NodeId, standby: NodeId, connection: u64) {
        if self.sender(id, standby, connection).is_some() {
            if let Some(side) = self.nodes[id].primary_mut() {
                side.senders.remove(&standby);
            }
            self.wake(id);
        }
    }

    pub(crate) fn receiver_ends(&mut self, id: NodeId, connection: u64) {
        let target = self.pg(id);
        let Some(standby) = self.nodes[id].standby_mut() else {
            return;
        };
        if standby
            .receiver
            .is_none_or(|receiver| receiver.connection != connection)
        {
            return;
        }
        standby.receiver = None;
        standby.ghost = false;
        self.after(RETRY, target, Event::Connect);
        self.after(ms(1), target, Event::Replay);
        self.wake(id);
    }

    /// All connections of an instance that has died: its peers hear of it now, or by their timeouts.
    pub(crate) fn close_connections(&mut self, id: NodeId) {
        let alive = self.nodes[id].up && !self.nodes[id].frozen;
        let (senders, receiver) = match &mut self.nodes[id].pg.role {
            Role::Primary(side) => (std::mem::take(&mut side.senders), None),
            Role::Standby(side) => (Default::default(), side.receiver.take()),
        };
        for (standby, sender) in senders {
            let delay = match alive && self.net.is_open(id, standby) {
                true => Network::delay(&mut self.rng),
                false => self.rng.between(ms(900), ms(2000)),
            };
            let target = self.pg(standby);
            let connection = sender.connection;
            self.after(delay, target, Event::ReceiverTimeout { connection });
        }
        if let Some(Receiver { connection, from }) = receiver {
            if alive {
                self.hang_up(from, id, connection);
            } else {
                let delay = self.rng.between(ms(900), ms(2000));
                let target = self.pg(from);
                self.after(
                    delay,
                    target,
                    Event::SenderTimeout {
                        standby: id,
                        connection,
                    },
                );
            }
        }
    }
}
