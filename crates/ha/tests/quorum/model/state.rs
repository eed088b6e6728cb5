//! One instant of the world: who has which WAL, who streams from whom, what every process of every leader has read.
//!
//! **Invariant:** two states with the same [`State::key`] are the same state.

use super::records::RecordId;

pub(super) const NODES: usize = 5;
pub(super) const REIGNS: usize = 3;

/// An index into the settings of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingId(pub u8);

impl SettingId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The last WAL record of a node: the epoch that wrote it, then its position. (0, 0) is the empty beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wal {
    pub epoch: u8,
    pub lsn: u8,
}

/// One leadership and the Postgres that serves it, which may outlive it as a zombie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    pub leader: u8,
    /// Its Postgres still is a primary.
    pub running: bool,
    /// The leader's last record when it claimed: where its own history begins.
    pub fork: Wal,
    /// Commits up to here were acknowledged by this leader.
    pub acked: u8,
    /// `synchronous_standby_names` in the configuration file.
    pub file: SettingId,
    /// What a superseded leader's agent may still write into the file.
    pub told: SettingId,
    /// What the walsender of each node has read; at the leader's own place: its checkpointer, which alone makes
    /// commits wait at all.
    pub reads: [SettingId; NODES],
    /// The last flush position that each node reported to this leader.
    pub seen: [u8; NODES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub wal: [Wal; NODES],
    /// The epoch whose leader a node streams from, or leads; 0: nobody.
    pub follows: [u8; NODES],
    pub reigns: [Reign; REIGNS],
    pub epoch: u8,
    pub record: RecordId,
    /// Of the current leader's agent: what it is to bring about, what it has proven, what it is busy with.
    pub wanted: SettingId,
    pub applied: Option<(RecordId, u8)>,
    pub applying: Option<RecordId>,
    /// Of a naive agent: how many operations it has done.
    pub done: u8,
    /// How often it may still be told to want another setting.
    pub changes_left: u8,
}

impl State {
    /// Everybody follows `leader`, whose setting is in force; nothing is written yet.
    pub fn founded(leader: usize, setting: SettingId, record: RecordId) -> Self {
        let reign = Reign {
            leader: leader as u8,
            running: false,
            fork: Wal::default(),
            acked: 0,
            file: setting,
            told: setting,
            reads: [setting; NODES],
            seen: [0; NODES],
        };
        let unused = Reign {
            file: SettingId(0),
            told: SettingId(0),
            reads: [SettingId(0); NODES],
            ..reign
        };
        let mut reigns = [Reign {
            leader: 0,
            ..unused
        }; REIGNS];
        reigns[0] = Reign {
            running: true,
            ..reign
        };
        Self {
            wal: [Wal::default(); NODES],
            follows: [1; NODES],
            reigns,
            epoch: 1,
            record,
            wanted: setting,
            applied: None,
            applying: None,
            done: 0,
            changes_left: 0,
        }
    }

    pub fn reign(&self, epoch: u8) -> &Reign {
        &self.reigns[usize::from(epoch) - 1]
    }

    pub fn reign_mut(&mut self, epoch: u8) -> &mut Reign {
        &mut self.reigns[usize::from(epoch) - 1]
    }

    pub fn current(&self) -> &Reign {
        self.reign(self.epoch)
    }

    /// Whether the current leader has a walsender for `node`, be its standby alive or not.
    pub fn is_connected(&self, node: usize) -> bool {
        let reign = self.current();
        node != usize::from(reign.leader)
            && (self.follows[node] == self.epoch || reign.seen[node] > 0)
    }

    /// Which epoch wrote the record at `lsn` of the history that ends in `end`.
    pub fn writer(&self, end: Wal, lsn: u8) -> u8 {
        let mut epoch = end.epoch;
        while epoch > 0 && lsn <= self.reign(epoch).fork.lsn {
            epoch = self.reign(epoch).fork.epoch;
        }
        epoch
    }

    /// The last record that both histories have.
    pub fn common(&self, one: Wal, other: Wal) -> Wal {
        let mut lsn = one.lsn.min(other.lsn);
        while lsn > 0 && self.writer(one, lsn) != self.writer(other, lsn) {
            lsn -= 1;
        }
        if lsn == 0 {
            Wal::default()
        } else {
            Wal {
                epoch: self.writer(one, lsn),
                lsn,
            }
        }
    }

    /// Whether the history that ends in `end` has everything that the leader of `epoch` acknowledged.
    pub fn keeps(&self, end: Wal, epoch: u8) -> bool {
        let reign = self.reign(epoch);
        let acked = reign.acked;
        if acked == 0 {
            return true;
        }
        let told = if acked > reign.fork.lsn {
            epoch
        } else {
            self.writer(reign.fork, acked)
        };
        end.lsn >= acked && self.writer(end, acked) == told
    }

    pub fn swap(&mut self, one: usize, other: usize) {
        self.wal.swap(one, other);
        self.follows.swap(one, other);
        for reign in &mut self.reigns {
            reign.reads.swap(one, other);
            reign.seen.swap(one, other);
        }
    }

    /// What tells a node from another that no setting tells from it.
    pub fn node_key(&self, node: usize) -> u32 {
        let reign = &self.reigns[0];
        (u32::from(reign.seen[node]) << 8 | u32::from(reign.reads[node].0)) << 8
            | u32::from(self.wal[node].lsn)
    }

    pub fn key(&self) -> [u64; 2 + REIGNS] {
        let mut key = [0; 2 + REIGNS];
        let mut word = 0;
        let mut node = 0;
        while node < NODES {
            let wal = self.wal[node];
            word = (word << 2 | u64::from(wal.epoch)) << 3 | u64::from(wal.lsn);
            word = word << 2 | u64::from(self.follows[node]);
            node += 1;
        }
        word = word << 2 | u64::from(self.epoch);
        word = word << 3 | u64::from(self.done);
        key[0] = word << 2 | u64::from(self.changes_left);
        let (record, barrier) = match self.applied {
            Some((record, barrier)) => (u64::from(record.0) + 1, u64::from(barrier)),
            None => (0, 0),
        };
        let applying = self.applying.map_or(0, |record| u64::from(record.0) + 1);
        word = u64::from(self.record.0) << 13 | record;
        word = (word << 3 | barrier) << 13 | applying;
        key[1] = word << 5 | u64::from(self.wanted.0);
        let mut index = 0;
        while index < REIGNS {
            key[2 + index] = self.reigns[index].key();
            index += 1;
        }
        key
    }
}

impl Reign {
    fn key(&self) -> u64 {
        let mut word = u64::from(self.leader) << 1 | u64::from(self.running);
        word = (word << 2 | u64::from(self.fork.epoch)) << 3 | u64::from(self.fork.lsn);
        word = word << 3 | u64::from(self.acked);
        word = (word << 5 | u64::from(self.file.0)) << 5 | u64::from(self.told.0);
        let mut node = 0;
        while node < NODES {
            word = (word << 5 | u64::from(self.reads[node].0)) << 3 | u64::from(self.seen[node]);
            node += 1;
        }
        word
    }
}
