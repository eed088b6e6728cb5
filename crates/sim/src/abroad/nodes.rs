//! One turn of a node: the real decision on what it last saw, and what the shell makes of it.

use super::Break;
use super::remote::{Written, common, ended, may_stream, write};
use super::walk::World;
use crate::wal::{SYSTEM, lsn};
use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{
    Action, Claim, Cluster, ClusterView, Contact, DataDir, Epoch, Instant, Leadership, Lease,
    Lineage, NodeName, NodeView, Postgres, Primary, Published, Standby, Storage, StreamBroken,
    Timeline,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// The store's content, with the revisions that transactions are guarded by.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub cluster: Cluster,
    pub leader: u64,
    pub epoch: u64,
    pub config: u64,
    pub promises: BTreeMap<NodeName, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Nobody,
    /// A node, by the slot of an epoch.
    Node(usize, Epoch),
    /// The remote's primary of that generation.
    Remote(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pg {
    Down,
    Standby(Source),
    Primary { open: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub name: NodeName,
    pub up: bool,
    pub pg: Pg,
    pub wal: Vec<Written>,
    pub note: Option<Lineage>,
    pub lease: Option<Epoch>,
    pub promised: Option<(Epoch, Instant)>,
    pub applied: Option<Applied>,
    pub clean_stop: bool,
    /// By whose slots others may stream from it.
    pub serves: Option<Epoch>,
    /// Its last claim was granted while the configuration said that nobody is to be promoted.
    pub claimed_abroad: bool,
    pub seen: Store,
}

impl Node {
    pub(super) fn timeline(&self) -> Timeline {
        let last = self.wal.last();
        last.map_or(Timeline(1), |last| last.record.timeline)
    }

    pub(super) fn is_primary(&self) -> bool {
        matches!(self.pg, Pg::Primary { .. })
    }
}

impl World {
    pub(super) fn turn(&mut self, id: usize) {
        if !self.nodes[id].up {
            return;
        }
        let mut cluster = self.nodes[id].seen.cluster.clone();
        if self.broken == Some(Break::PrimaryKept) && self.nodes[id].is_primary() {
            cluster.settings.remote = None;
        }
        let me = self.view_of(id, &cluster);
        let view = ClusterView::Known(Box::new(cluster));
        let decision = ha::decide(&view, &me, self.now);
        self.say(|| format!("{}: {} ({})", me.name, decision.rule, decision.reason));
        for action in decision.actions {
            self.act(id, action);
        }
    }

    fn view_of(&self, id: usize, cluster: &Cluster) -> NodeView {
        let node = &self.nodes[id];
        let now = self.now;
        let epoch = cluster.current_epoch();
        let alive = cluster.leader.as_ref().and_then(|it| self.id_of(it));
        let alive = alive.is_some_and(|it| self.nodes[it].up);
        let heard = if alive { now } else { Instant::default() };
        let (broken, says) = self.trouble(id);
        NodeView {
            name: node.name.clone(),
            data: DataDir::Ready(SYSTEM),
            postgres: self.postgres_of(id, cluster),
            lineage: node.note.clone(),
            lease: node.lease.map(|epoch| Lease {
                epoch,
                deadline: now.plus(Duration::from_secs(9)),
                by_members: false,
            }),
            held: None,
            job: None,
            contact: Contact {
                epoch,
                since: heard,
                beat: Some(heard),
                probe: None,
                wal: None,
            },
            applied: node.applied.clone(),
            storage: Storage::Healthy,
            registered: true,
            promised_at: node.promised.filter(|(of, _)| *of == epoch).map(|it| it.1),
            clean_stop: node.clean_stop,
            on_disk: node.clean_stop.then(|| lsn(node.wal.len())),
            may_not_found: None,
            down_since: None,
            start_failures: 0,
            stream_broken: broken,
            stream_says: says,
            rewound: false,
            errand: None,
            source: None,
            nostream: false,
            unwatched: None,
            barred: None,
        }
    }

    fn postgres_of(&self, id: usize, cluster: &Cluster) -> Postgres {
        let node = &self.nodes[id];
        let source = match node.pg {
            Pg::Down => return Postgres::Down { leftovers: 0 },
            Pg::Primary { open } => {
                return Postgres::Primary(Primary {
                    timeline: node.timeline(),
                    flushed: lsn(node.wal.len()),
                    open,
                    ..Primary::default()
                });
            }
            Pg::Standby(source) => source,
        };
        let upstream = match source {
            Source::Node(up, _) => Some(self.nodes[up].name.clone()),
            Source::Nobody | Source::Remote(_) => None,
        };
        // What it was told, not what it is told now: a change is another walk's.
        let remote = matches!(source, Source::Remote(_)).then(|| {
            let told = cluster.settings.remote.clone();
            told.unwrap_or_default()
        });
        let unseen = self.broken == Some(Break::TimelineUnseen);
        Postgres::Standby(Standby {
            upstream,
            remote,
            timeline: if unseen { Timeline(0) } else { node.timeline() },
            streaming: self.streams(id),
            received: lsn(node.wal.len()),
            replayed: lsn(node.wal.len()),
            end_known: source == Source::Nobody,
            open: true,
            ..Standby::default()
        })
    }

    /// Whether WAL can come in.
    pub(super) fn streams(&self, id: usize) -> bool {
        let node = &self.nodes[id];
        match node.pg {
            Pg::Standby(Source::Node(up, epoch)) => {
                let source = &self.nodes[up];
                let serves = source.up && source.pg != Pg::Down && source.serves == Some(epoch);
                serves && may_stream(&node.wal, &source.wal, source.timeline())
            }
            Pg::Standby(Source::Remote(generation)) => {
                self.remote.up && generation == self.remote.generation
            }
            Pg::Standby(Source::Nobody) | Pg::Down | Pg::Primary { .. } => false,
        }
    }

    fn trouble(&self, id: usize) -> (Option<StreamBroken>, Option<String>) {
        let node = &self.nodes[id];
        match node.pg {
            Pg::Standby(Source::Node(up, _)) if self.nodes[up].serves.is_some() => {
                let source = &self.nodes[up];
                let fits = may_stream(&node.wal, &source.wal, source.timeline());
                ((!fits).then_some(StreamBroken::Diverged), None)
            }
            Pg::Standby(Source::Remote(_)) if !self.streams(id) => {
                (None, Some("it has ended".to_owned()))
            }
            _ => (None, None),
        }
    }

    fn is_in_office(&self, id: usize) -> bool {
        let leader = self.store.cluster.leader.as_ref();
        leader == Some(&self.nodes[id].name) && self.nodes[id].seen.epoch == self.store.epoch
    }

    fn has_leader(&self, id: usize) -> bool {
        let seen = &self.nodes[id].seen;
        seen.leader == self.store.leader && seen.epoch == self.store.epoch
    }

    fn act(&mut self, id: usize, action: Action) {
        let name = self.nodes[id].name.clone();
        match action {
            Action::Park => {
                self.nodes[id].pg = Pg::Standby(Source::Nobody);
                self.nodes[id].serves = None;
                self.nodes[id].clean_stop = false;
            }
            Action::Rejoin {
                leader,
                epoch,
                lineage,
                via: _,
            } => match self.has_all_of(id, &lineage) {
                true => self.join(id, &leader, epoch, lineage, false),
                false => self.act(id, Action::Park),
            },
            Action::Detach => self.nodes[id].pg = Pg::Standby(Source::Nobody),
            Action::Stop | Action::Fence | Action::Drain => {
                let node = &mut self.nodes[id];
                node.clean_stop = action == Action::Drain;
                node.pg = Pg::Down;
                node.serves = None;
                node.applied = None;
            }
            Action::Open => self.open(id),
            Action::Promise(promise) => {
                if self.nodes[id].seen.epoch == self.store.epoch {
                    self.nodes[id].promised = Some((promise.epoch, self.now));
                    let revision = self.next();
                    self.store.promises.insert(name.clone(), revision);
                    self.store.cluster.promises.insert(name, promise);
                }
            }
            Action::Withdraw { .. } => {
                if self.nodes[id].seen.epoch == self.store.epoch {
                    self.store.promises.remove(&name);
                    self.store.cluster.promises.remove(&name);
                }
            }
            Action::Claim(claim) => self.claim(id, claim),
            Action::Promote { epoch, .. } => self.promote(id, epoch),
            Action::Publish { epoch, lineage } => self.publish(id, epoch, lineage),
            Action::Record { record, .. } => {
                if self.is_in_office(id) {
                    self.store.cluster.sync = record;
                }
            }
            Action::Apply { epoch, .. } => {
                let record = SyncRecord::of(Setting::alone(name));
                let barrier = lsn(self.nodes[id].wal.len());
                self.nodes[id].applied = Some(Applied {
                    epoch,
                    record,
                    barrier,
                });
            }
            Action::Follow {
                leader,
                epoch,
                lineage,
                ..
            } => self.join(id, &leader, epoch, lineage, false),
            Action::Rewind {
                leader,
                epoch,
                lineage,
            }
            | Action::Clone {
                leader,
                epoch,
                lineage,
            }
            | Action::Compare {
                leader,
                epoch,
                lineage,
            } => self.join(id, &leader, epoch, lineage, true),
            Action::FollowRemote { epoch, .. } => self.follow_remote(id, epoch),
            Action::Reattach { epoch } => {
                if self.is_in_office(id) {
                    self.nodes[id].lease = Some(epoch);
                }
            }
            Action::Release { .. } => {
                if self.is_in_office(id) {
                    self.store.leader = self.next();
                    self.store.cluster.leader = None;
                }
                self.nodes[id].lease = None;
            }
            Action::ClearSwitchover { .. } => self.store.cluster.switchover = None,
            Action::Found
            | Action::Bootstrap
            | Action::Adopt
            | Action::Recognize { .. }
            | Action::Feed { .. }
            | Action::Leave => {}
        }
    }

    fn open(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        match &mut node.pg {
            Pg::Primary { open } => *open = true,
            Pg::Standby(_) => node.serves = node.lease.or(node.serves),
            Pg::Down => {}
        }
    }

    fn claim(&mut self, id: usize, claim: Claim) {
        let seen = &self.nodes[id].seen;
        let guarded = self.broken != Some(Break::ClaimUnguarded);
        let counted = claim
            .counted
            .iter()
            .all(|name| seen.promises.get(name) == self.store.promises.get(name));
        let config = !guarded || seen.config == self.store.config;
        if !self.has_leader(id) || !counted || !config {
            return;
        }
        self.take_office(id, claim.epoch, claim.standby);
        self.store.cluster.sync = claim.record;
        self.nodes[id].claimed_abroad = self.store.cluster.settings.remote.is_some();
    }

    fn take_office(&mut self, id: usize, epoch: Epoch, standby: bool) {
        let leader = self.nodes[id].name.clone();
        self.store.leader = self.next();
        self.store.epoch = self.next();
        self.store.cluster.leader = Some(leader.clone());
        self.store.cluster.epoch = Some(Leadership {
            epoch,
            leader,
            standby,
        });
        self.nodes[id].lease = Some(epoch);
    }

    fn promote(&mut self, id: usize, epoch: Epoch) {
        let guarded = self.broken != Some(Break::ClaimUnguarded);
        let abroad = self.nodes[id].seen.cluster.settings.remote.is_some();
        let Some(note) = self.nodes[id].note.clone() else {
            return;
        };
        if self.nodes[id].lease != Some(epoch) || (guarded && abroad) {
            return;
        }
        if self.nodes[id].claimed_abroad {
            let name = self.nodes[id].name.clone();
            self.violated(format!("{name} is promoted in a standby cluster"));
        }
        let node = &self.nodes[id];
        let (old, end) = (node.timeline(), lsn(node.wal.len()));
        let timeline = Timeline(old.0 + 1);
        let lineage = match note.names(old) {
            true => note.promoted(timeline, epoch, end),
            false => {
                let ended = ended(&node.wal, timeline);
                Lineage::observed(Some((&note, end)), timeline, &ended, epoch)
            }
        };
        let uid = self.next_uid();
        let node = &mut self.nodes[id];
        node.note = Some(lineage);
        node.serves = None;
        node.pg = Pg::Primary { open: false };
        write(&mut node.wal, uid, timeline, epoch);
        self.promotions += 1;
    }

    fn publish(&mut self, id: usize, epoch: Epoch, lineage: Lineage) {
        if self.is_in_office(id) {
            self.put_lineage(id, epoch, lineage);
        }
    }

    fn put_lineage(&mut self, id: usize, epoch: Epoch, lineage: Lineage) {
        self.store.cluster.lineage = Some(Published {
            epoch,
            leader: Some(self.nodes[id].name.clone()),
            lineage,
        });
        self.nodes[id].serves = Some(epoch);
    }

    /// As the files of an instance that is down tell.
    fn has_all_of(&self, id: usize, lineage: &Lineage) -> bool {
        let node = &self.nodes[id];
        let note = node.note.as_ref();
        note.is_some_and(|note| lineage.has_all_of(note, node.timeline(), lsn(node.wal.len())))
    }

    fn join(&mut self, id: usize, leader: &NodeName, epoch: Epoch, lineage: Lineage, copy: bool) {
        let stands = self.store.promises.contains_key(&self.nodes[id].name);
        let Some(up) = self.id_of(leader) else {
            return;
        };
        let served = self.nodes[up].up && self.nodes[up].serves == Some(epoch);
        if !self.has_leader(id) || stands || (copy && !served) {
            return;
        }
        if copy {
            let source = self.nodes[up].wal.clone();
            let node = &mut self.nodes[id];
            if common(&node.wal, &source) < node.wal.len() || node.wal.is_empty() {
                node.wal = source;
            }
        }
        let node = &mut self.nodes[id];
        node.note = Some(lineage);
        node.serves = None;
        node.lease = None;
        node.pg = Pg::Standby(Source::Node(up, epoch));
    }

    /// As the shell does it: compared, noted, followed.
    fn follow_remote(&mut self, id: usize, epoch: Epoch) {
        let config = self.nodes[id].seen.config == self.store.config;
        if !self.remote.up || !self.is_in_office(id) || !config || self.nodes[id].is_primary() {
            return;
        }
        let node = &self.nodes[id];
        let believed = self.broken == Some(Break::RemoteUncompared)
            && may_stream(&node.wal, &self.remote.wal, self.remote.timeline);
        let same = match believed {
            true => node.wal.len(),
            false => common(&node.wal, &self.remote.wal),
        };
        let ended = self.remote.ended();
        let note = node.note.as_ref();
        let lineage = Lineage::traced(note, lsn(same), self.remote.timeline, &ended, epoch.next());
        let published = self.store.cluster.published_lineage() == Some(&lineage);
        let epoch = match published && self.store.cluster.led_by_standby() {
            true => epoch,
            false => {
                self.take_office(id, epoch.next(), true);
                epoch.next()
            }
        };
        self.put_lineage(id, epoch, lineage.clone());
        let node = &mut self.nodes[id];
        node.wal.truncate(same);
        node.note = Some(lineage);
        node.pg = Pg::Standby(Source::Remote(self.remote.generation));
    }
}
