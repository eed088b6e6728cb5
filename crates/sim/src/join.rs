//! Coming into another node's history: follow it, rewind to it, or copy all of it.
//!
//! **Invariant:** the note is on disk before the first byte arrives; a copy that is cut off leaves a mark.

use crate::config::Break;
use crate::node::{Health, Life, NodeId, Phase, Role, id_of};
use crate::time::ms;
use crate::wal::{SYSTEM, lsn};
use crate::world::{Event, World};
use ha::{Action, DataDir, Epoch, Job, Lineage};

impl World {
    /// After the stance was taken.
    pub(crate) fn follow_on(&mut self, id: NodeId, serial: u64) {
        let Some(doing) = self.nodes[id].agent.doing.clone() else {
            return;
        };
        match doing.action {
            Action::Follow {
                leader,
                epoch,
                lineage,
                via: _,
            } => {
                let node = &mut self.nodes[id];
                if node.standby().is_some() {
                    node.disk.note = Some(lineage);
                    node.disk.upstream = Some((id_of(&leader), epoch));
                    if let Some(standby) = node.standby_mut() {
                        standby.broken = None;
                        standby.open = true;
                        // Looked at anew once it is cut off again.
                        standby.waiting = false;
                    }
                    let target = self.pg(id);
                    self.after(ms(1), target, Event::Connect);
                }
                self.done(id);
            }
            Action::Rejoin {
                leader,
                epoch,
                lineage,
                via: _,
            } => {
                let disk = &mut self.nodes[id].disk;
                disk.note = Some(lineage);
                disk.upstream = Some((id_of(&leader), epoch));
                self.start_following(id);
                self.watch_postgres(id);
            }
            Action::Rewind {
                leader,
                lineage,
                epoch,
            }
            | Action::Clone {
                leader,
                lineage,
                epoch,
            } => {
                self.begin_copy(id, serial, id_of(&leader), epoch, lineage);
            }
            _ => self.done(id),
        }
    }

    fn begin_copy(
        &mut self,
        id: NodeId,
        serial: u64,
        from: NodeId,
        epoch: Epoch,
        lineage: Lineage,
    ) {
        let source = &self.nodes[from];
        let there = source.primary().is_some_and(|side| side.epoch == epoch)
            && source.up
            && !source.frozen
            && self.net.both_ways(id, from);
        if !there {
            self.done(id);
            return;
        }
        let run = source.pg.run;
        self.kill(id);
        let clone = matches!(
            self.nodes[id].agent.doing.as_ref().map(|doing| doing.job),
            Some(Job::Clone)
        );
        let disk = &mut self.nodes[id].disk;
        disk.data = DataDir::Unfinished;
        disk.half = false;
        disk.note = Some(lineage);
        disk.upstream = None;
        if clone {
            disk.wal.clear();
            disk.flushed = 0;
            disk.histories.clear();
        }
        if let Some(doing) = &mut self.nodes[id].agent.doing {
            doing.phase = Phase::Copying { from, run };
        }
        self.step_after(id, serial, 150, 900);
    }

    pub(crate) fn copied(
        &mut self,
        id: NodeId,
        from: NodeId,
        run: u64,
        epoch: Epoch,
        lineage: &Lineage,
    ) {
        let source = &self.nodes[from];
        let fine = source.pg.run == run
            && source.up
            && !source.frozen
            && source.primary().is_some()
            && self.net.both_ways(id, from)
            && self.nodes[id].pg.life == Life::Down
            && matches!(self.nodes[id].disk.health, Health::Fine | Health::Slow);
        if !fine {
            self.note_of(id, || "  the copy was cut off".to_owned());
            return;
        }
        let mut wal = source.disk.wal[..source.disk.flushed].to_vec();
        let histories = source.disk.histories.clone();
        let rewound = matches!(
            self.nodes[id].agent.doing.as_ref().map(|doing| doing.job),
            Some(Job::Rewind)
        );
        // WAL of the last moments was not copied, and recovery needs it.
        let late = self.rng.index(6);
        let needs = rewound.then_some(wal.len());
        if rewound {
            wal.truncate(wal.len().saturating_sub(late).max(1));
        }
        let disk = &mut self.nodes[id].disk;
        disk.needs = needs;
        disk.flushed = wal.len();
        disk.wal = wal;
        disk.histories = histories;
        disk.data = DataDir::Ready(SYSTEM);
        disk.note = Some(lineage.clone());
        disk.upstream = Some((from, epoch));
        self.start_following(id);
    }

    /// Open from the first moment on.
    fn start_following(&mut self, id: NodeId) {
        self.start_postgres(id);
        if let Role::Standby(standby) = &mut self.nodes[id].pg.role {
            standby.open = true;
        }
    }

    /// Whether all WAL of an instance that is down is part of `lineage`, as its files tell. A history file of another
    /// timeline leaves it in doubt.
    pub(crate) fn has_all_of(&self, id: NodeId, lineage: &Lineage) -> bool {
        let disk = &self.nodes[id].disk;
        let (Some(note), Some(last)) = (&disk.note, disk.wal.last()) else {
            return false;
        };
        let newest = disk.histories.iter().all(|it| *it <= last.timeline);
        let proven = lineage.has_all_of(note, last.timeline, lsn(disk.wal.len()));
        newest && proven || self.config.is_broken(Break::RejoinUnproven)
    }
}
