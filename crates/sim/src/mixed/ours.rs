//! One turn of an agent of ours: the real decision on what it last saw, and what the shell makes of it.

use super::Break;
use super::node::{Pg, Stream, Waits};
use super::store::{Store, Sync};
use super::walk::World;
use crate::wal::{Record, SYSTEM, branches, common, lsn};
use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{
    Action, Claim, ClusterView, Contact, DataDir, Epoch, Instant, Lease, Lineage, Lsn, NodeName,
    NodeView, Postgres, Primary, Published, Standby, Storage, Timeline, Walsender,
};
use std::time::Duration;

impl World {
    pub(super) fn ours(&mut self, id: usize) {
        let mut cluster = self.nodes[id].seen.view();
        match self.broken {
            Some(Break::KeyRaced) => cluster.foreign.leads = false,
            Some(Break::SyncUnread) if cluster.foreign.sync => cluster.sync = None,
            _ => {}
        }
        let me = self.view_of(id, &cluster);
        let view = ClusterView::Known(Box::new(cluster));
        let decision = ha::decide(&view, &me, self.now);
        self.say(|| format!("{}: {} ({})", me.name, decision.rule, decision.reason));
        for action in decision.actions {
            self.act(id, action);
        }
    }

    fn view_of(&self, id: usize, cluster: &ha::Cluster) -> NodeView {
        let node = &self.nodes[id];
        let now = self.now;
        let epoch = cluster.current_epoch();
        let alive = cluster.leader.as_ref().and_then(|it| self.id_of(it));
        let alive = alive.is_some_and(|it| self.nodes[it].up && !self.nodes[it].frozen);
        let heard = if alive { now } else { Instant::default() };
        NodeView {
            name: node.name.clone(),
            data: DataDir::Ready(SYSTEM),
            postgres: self.postgres_of(id),
            lineage: node.note.clone(),
            lease: node.lease.map(|epoch| Lease {
                epoch,
                deadline: now.plus(Duration::from_secs(9)),
                by_members: false,
            }),
            held: None,
            rewound: false,
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
            on_disk: (node.clean_stop && !node.patronis).then(|| node.position()),
            may_not_found: None,
            down_since: None,
            start_failures: 0,
            stream_broken: None,
            stream_says: None,
            errand: None,
            source: None,
            unwatched: None,
            barred: None,
            nostream: false,
        }
    }

    fn postgres_of(&self, id: usize) -> Postgres {
        let node = &self.nodes[id];
        match &node.pg {
            Pg::Down => Postgres::Down { leftovers: 0 },
            Pg::Standby { upstream } => Postgres::Standby(Standby {
                upstream: upstream.map(|(up, _)| self.nodes[up].name.clone()),
                streaming: upstream.is_some_and(|(up, _)| self.streams_from(id, up)),
                received: node.position(),
                replayed: node.position(),
                end_known: upstream.is_none(),
                open: true,
                ..Standby::default()
            }),
            Pg::Primary { open } => {
                let stream = node.lease.map(Stream::OfEpoch);
                let mine = (0..self.nodes.len()).filter(|other| {
                    self.nodes[*other].upstream().map(|it| (it.0, Some(it.1))) == Some((id, stream))
                });
                let walsender = |other: usize| Walsender {
                    streaming: self.streams_from(other, id),
                    flushed: self.nodes[other].position(),
                    seen: self.now,
                };
                Postgres::Primary(Primary {
                    timeline: node.timeline(),
                    flushed: node.position(),
                    standbys: mine
                        .map(|other| (self.nodes[other].name.clone(), walsender(other)))
                        .collect(),
                    open: *open,
                })
            }
        }
    }

    fn act(&mut self, id: usize, action: Action) {
        let name = self.nodes[id].name.clone();
        match action {
            Action::Park => {
                let void = self.nodes[id].patronis;
                let node = &mut self.nodes[id];
                if void {
                    node.note = None;
                }
                node.patronis = false;
                node.clean_stop = false;
                node.pg = Pg::Standby { upstream: None };
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
            Action::Detach => self.nodes[id].pg = Pg::Standby { upstream: None },
            Action::Stop | Action::Fence => self.nodes[id].stop(),
            Action::Drain => self.clean_stop(id),
            Action::Open => {
                if let Pg::Primary { open } = &mut self.nodes[id].pg {
                    *open = true;
                }
            }
            Action::Follow {
                leader,
                epoch,
                lineage,
                via: _,
            } => {
                self.join(id, &leader, epoch, lineage, false);
            }
            Action::Compare {
                leader,
                epoch,
                lineage,
            }
            | Action::Rewind {
                leader,
                epoch,
                lineage,
            }
            | Action::Clone {
                leader,
                epoch,
                lineage,
            } => {
                self.join(id, &leader, epoch, lineage, true);
            }
            Action::Recognize { leader, epoch } => self.recognize(id, &leader, epoch),
            // No node there has the tag.
            Action::Feed { .. } => {}
            Action::Promote { epoch, setting } => self.ascend(id, epoch, setting.as_ref()),
            Action::Apply { epoch, record } => self.apply(id, epoch, record),
            Action::Reattach { epoch } => {
                if self.in_office(id) {
                    self.nodes[id].lease = Some(epoch);
                }
            }
            Action::Promise(promise) => {
                if self.epoch_unchanged(id) {
                    self.nodes[id].promised = Some((promise.epoch, self.now));
                    let revision = self.store.next();
                    self.store.at.promises.insert(name.clone(), revision);
                    self.store.cluster.promises.insert(name, promise);
                }
            }
            Action::Withdraw { .. } => {
                if self.epoch_unchanged(id) {
                    self.store.next();
                    self.store.at.promises.remove(&name);
                    self.store.cluster.promises.remove(&name);
                }
            }
            Action::Claim(claim) => self.claim(id, claim),
            Action::Publish { epoch, lineage } => {
                if self.in_office(id) {
                    self.store.at.lineage = self.store.next();
                    self.store.cluster.lineage = Some(Published {
                        epoch,
                        leader: Some(self.nodes[id].name.clone()),
                        lineage,
                    });
                }
            }
            Action::Record { record, .. } => {
                if self.in_office(id) && self.sync_unchanged(id) {
                    let sync = record.map(|record| self.sync_value(record));
                    self.store.put_sync(sync);
                }
            }
            Action::Release { .. } => {
                if self.in_office(id) {
                    self.store.delete_leader();
                }
                self.nodes[id].lease = None;
            }
            Action::ClearSwitchover { .. } => self.store.cluster.switchover = None,
            Action::Found
            | Action::Bootstrap
            | Action::Adopt
            | Action::Leave
            | Action::FollowRemote { .. } => {}
        }
    }

    fn seen(&self, id: usize) -> &Store {
        &self.nodes[id].seen
    }

    fn leader_unchanged(&self, id: usize) -> bool {
        self.seen(id).at.leader == self.store.at.leader
    }

    fn epoch_unchanged(&self, id: usize) -> bool {
        self.seen(id).at.epoch == self.store.at.epoch
    }

    fn sync_unchanged(&self, id: usize) -> bool {
        self.seen(id).at.sync == self.store.at.sync
    }

    fn in_office(&self, id: usize) -> bool {
        let leader = self.store.cluster.leader.as_ref();
        leader == Some(&self.nodes[id].name) && self.epoch_unchanged(id)
    }

    /// As `sync` is written beside Patroni's nodes.
    fn sync_value(&self, record: SyncRecord) -> Sync {
        let guest = |name: &NodeName| self.store.guests.contains(name);
        let mut named = record.named_to_patroni().0;
        if self.broken == Some(Break::UnionNamed) {
            let settings = record.settings().iter();
            named = settings.flat_map(|it| it.standbys.clone()).collect();
        }
        let standbys = named.into_iter().filter(|name| !guest(name)).collect();
        Sync {
            leader: record.newest().leader.clone(),
            standbys,
            ours: Some(record),
        }
    }

    /// As the files of an instance that is down tell.
    fn has_all_of(&self, id: usize, lineage: &Lineage) -> bool {
        let node = &self.nodes[id];
        let note = node.note.as_ref().filter(|_| !node.patronis);
        note.is_some_and(|note| lineage.has_all_of(note, node.timeline(), lsn(node.wal.len())))
    }

    /// `copied`: what does not fit is made to fit, by its identity.
    fn join(&mut self, id: usize, leader: &NodeName, epoch: Epoch, lineage: Lineage, copied: bool) {
        let up = self.id_of(leader).filter(|up| self.nodes[*up].is_primary());
        let promised = self.store.at.promises.contains_key(&self.nodes[id].name);
        let valid = self.leader_unchanged(id) && self.epoch_unchanged(id) && !promised;
        let Some(up) = up.filter(|_| valid) else {
            return;
        };
        if copied {
            let same = common(&self.nodes[id].wal, &self.nodes[up].wal);
            self.nodes[id].wal.truncate(same);
        }
        let theirs = self.nodes[id].seen.view().foreign.leads;
        let stream = if theirs {
            Stream::Plain
        } else {
            Stream::OfEpoch(epoch)
        };
        let node = &mut self.nodes[id];
        node.note = Some(lineage);
        node.patronis = false;
        let upstream = Some((up, stream));
        node.pg = Pg::Standby { upstream };
    }

    fn recognize(&mut self, id: usize, leader: &NodeName, epoch: Epoch) {
        let valid = self.leader_unchanged(id)
            && self.epoch_unchanged(id)
            && self.seen(id).at.lineage == self.store.at.lineage;
        let up = self.id_of(leader).filter(|up| self.nodes[*up].is_primary());
        let Some(up) = up.filter(|_| valid) else {
            return;
        };
        let wal = &self.nodes[up].wal;
        let begins = branches(wal);
        let ended: Vec<_> = begins
            .windows(2)
            .map(|pair| (pair[0].0, lsn(pair[1].1)))
            .collect();
        let timeline = self.nodes[up].timeline();
        let known = self.store.cluster.lineage.as_ref().map(|it| &it.lineage);
        let kept = self.store.cluster.epoch.as_ref().filter(|record| {
            let newest = known.map(|known| known.newest());
            let named =
                newest.is_some_and(|it| it.epoch == record.epoch && it.timeline == timeline);
            self.store.recorded && record.leader == *leader && named
        });
        if let Some(epoch) = kept.map(|it| it.epoch) {
            return self.store.put_epoch(epoch, leader, true);
        }
        let note = self.nodes[id].note.as_ref();
        let compared = note.zip(self.compared(id, up));
        let lineage = Lineage::observed(compared, timeline, &ended, epoch);
        let whose = Some(leader.clone());
        self.store.put_epoch(epoch, leader, true);
        self.store.at.lineage = self.store.next();
        self.store.cluster.lineage = Some(Published {
            epoch,
            leader: whose,
            lineage,
        });
    }

    /// Up to where the WAL here was found to be that of `up`: as far as numbers say so, if bytes do.
    fn compared(&self, id: usize, up: usize) -> Option<Lsn> {
        let (mine, theirs) = (&self.nodes[id].wal, &self.nodes[up].wal);
        let upto = numbered(mine, theirs);
        let believed = self.broken == Some(Break::NumbersBelieved);
        (believed || common(mine, theirs) >= upto).then(|| lsn(upto))
    }

    fn claim(&mut self, id: usize, claim: Claim) {
        let promises = |store: &Store| -> Vec<Option<u64>> {
            let at = |name| store.at.promises.get(name).copied();
            claim.counted.iter().map(at).collect()
        };
        let valid = self.leader_unchanged(id)
            && self.epoch_unchanged(id)
            && self.sync_unchanged(id)
            && promises(self.seen(id)) == promises(&self.store);
        if !valid {
            return;
        }
        let name = self.nodes[id].name.clone();
        self.store.put_leader(&name);
        self.store.put_epoch(claim.epoch, &name, false);
        if let Some(record) = claim.record {
            let sync = self.sync_value(record);
            self.store.put_sync(Some(sync));
        }
        self.nodes[id].lease = Some(claim.epoch);
    }

    fn ascend(&mut self, id: usize, epoch: Epoch, setting: Option<&Setting>) {
        let Some(old) = self.nodes[id].note.clone() else {
            return;
        };
        let begins = self.nodes[id].position();
        self.promote(id, waits(setting, epoch), false);
        let timeline = self.nodes[id].timeline();
        self.nodes[id].note = Some(old.promoted(timeline, epoch, begins));
    }

    fn apply(&mut self, id: usize, epoch: Epoch, record: Option<SyncRecord>) {
        let name = self.nodes[id].name.clone();
        let node = &mut self.nodes[id];
        node.waits = waits(record.as_ref().map(SyncRecord::newest), epoch);
        node.applied = Some(Applied {
            epoch,
            record: record.unwrap_or_else(|| SyncRecord::of(Setting::alone(name))),
            barrier: node.position(),
        });
        self.acknowledge(id);
    }
}

/// Up to where two histories are one by their timelines' numbers and beginnings.
fn numbered(mine: &[Record], theirs: &[Record]) -> usize {
    let (left, right) = (branches(mine), branches(theirs));
    let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let end = |branches: &[(Timeline, usize)], len| branches.get(same).map_or(len, |it| it.1);
    end(&left, mine.len()).min(end(&right, theirs.len()))
}

fn waits(setting: Option<&Setting>, epoch: Epoch) -> Waits {
    setting.map_or_else(Waits::default, |setting| Waits {
        needed: setting.needed,
        names: setting
            .standbys
            .iter()
            .map(|name| (name.clone(), Stream::OfEpoch(epoch)))
            .collect(),
    })
}
