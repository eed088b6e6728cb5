//! What becomes of an agent's decision in the world of a story: the shell and PostgreSQL, at their simplest.

use super::{SYSTEM, World};
use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{
    Action, Claim, DataDir, Epoch, Errand, Initialize, Leadership, Lease, Lineage, Lsn, NodeName,
    NodeView, Postgres, Primary, Published, Remote, Standby, Timeline, Walsender,
};
use std::collections::BTreeSet;

impl World {
    pub(super) fn act(&mut self, name: &NodeName, action: Action) {
        let now = self.now;
        let deadline = self.cluster.settings.deadline(now);
        let wal = self.nodes[name].wal;
        let leader_wal = |from: &NodeName| self.nodes.get(from).map_or(wal, |node| node.wal);
        match action {
            Action::Found => {
                let epoch = self.cluster.current_epoch().next();
                self.cluster.initialize = Initialize::Founding;
                self.lead(name, epoch);
            }
            Action::Bootstrap | Action::Adopt => self.bootstrap(name),
            Action::Reattach { epoch } => {
                self.me(name).lease = Some(Lease {
                    epoch,
                    deadline,
                    by_members: false,
                });
            }
            Action::Rejoin {
                leader, lineage, ..
            } => {
                let end = leader_wal(&leader);
                let note = self.me(name).lineage.clone();
                let part = |note: Lineage| lineage.has_all_of(&note, note.at(wal).timeline, wal);
                match note.is_some_and(part) {
                    true => self.stream(name, leader, lineage, end),
                    false => self.act(name, Action::Park),
                }
            }
            Action::Park if self.nodes[name].stalls => {
                self.me(name).postgres = Postgres::Starting;
                self.me(name).down_since = Some(now);
            }
            Action::Park => {
                self.me(name).clean_stop = false;
                self.me(name).on_disk = None;
                self.me(name).postgres = Postgres::Standby(Standby {
                    received: wal,
                    replayed: wal,
                    end_known: true,
                    ..Standby::default()
                });
            }
            Action::Detach => {
                if let Postgres::Standby(standby) = &mut self.me(name).postgres {
                    standby.upstream = None;
                    standby.remote = None;
                    standby.streaming = false;
                    standby.end_known = true;
                }
            }
            Action::Promise(promise) => {
                self.cluster.promises.insert(name.clone(), promise);
                self.me(name).promised_at = Some(now);
            }
            Action::Withdraw { .. } => {
                self.cluster.promises.remove(name);
            }
            Action::Claim(Claim {
                epoch,
                record,
                standby,
                ..
            }) => {
                self.cluster.sync = record;
                self.lead(name, epoch);
                if let Some(leadership) = &mut self.cluster.epoch {
                    leadership.standby = standby;
                }
            }
            Action::Promote { .. } if self.nodes[name].refuses => {
                self.me(name).barred = Some("pre_promote refused".to_owned());
            }
            Action::Promote { epoch, .. } => self.promote(name, epoch),
            Action::Publish { epoch, lineage } => {
                self.cluster.leader_position = lineage.newest().begins;
                self.cluster.lineage = Some(Published {
                    epoch,
                    leader: Some(name.clone()),
                    lineage,
                });
            }
            Action::FollowRemote { epoch, remote } => self.follow_remote(name, epoch, remote),
            Action::Record { record, .. } => self.cluster.sync = record,
            Action::Apply { epoch, record } => {
                let alone = || SyncRecord::of(Setting::alone(name.clone()));
                let record = record.unwrap_or_else(alone);
                self.me(name).applied = Some(Applied {
                    epoch,
                    record,
                    barrier: wal,
                });
            }
            Action::Open => match &mut self.me(name).postgres {
                Postgres::Standby(standby) => standby.open = true,
                Postgres::Primary(primary) => primary.open = true,
                _ => {}
            },
            Action::Follow {
                leader, lineage, ..
            }
            | Action::Rewind {
                leader, lineage, ..
            }
            | Action::Clone {
                leader, lineage, ..
            }
            | Action::Compare {
                leader, lineage, ..
            } => {
                let end = leader_wal(&leader);
                let me = self.me(name);
                me.errand = me.errand.filter(|it| *it != Errand::Reinitialize);
                me.rewound = false;
                self.stream(name, leader, lineage, end);
            }
            Action::Drain | Action::Stop | Action::Fence => {
                let me = self.me(name);
                me.clean_stop = action == Action::Drain;
                me.on_disk = me.clean_stop.then_some(wal);
                me.postgres = Postgres::Down { leftovers: 0 };
            }
            Action::Release { .. } => {
                self.cluster.leader = None;
                self.me(name).lease = None;
            }
            Action::ClearSwitchover { .. } => self.cluster.switchover = None,
            Action::Recognize { .. } => panic!("Patroni does not lead here"),
            Action::Feed { .. } => self.me(name).lineage = None,
            Action::Leave => {
                self.nodes.remove(name);
                self.cluster.nodes.remove(name);
                self.cluster.promises.remove(name);
            }
        }
    }

    pub(super) fn me(&mut self, name: &NodeName) -> &mut NodeView {
        &mut self.nodes.get_mut(name).expect("a known node").me
    }

    fn lead(&mut self, name: &NodeName, epoch: Epoch) {
        let deadline = self.cluster.settings.deadline(self.now);
        self.cluster.leader = Some(name.clone());
        self.cluster.epoch = Some(Leadership {
            epoch,
            leader: name.clone(),
            standby: false,
        });
        let node = self.nodes.get_mut(name).expect("a known node");
        if !std::mem::take(&mut node.forgets) {
            node.me.lease = Some(Lease {
                epoch,
                deadline,
                by_members: false,
            });
        }
    }

    fn bootstrap(&mut self, name: &NodeName) {
        let epoch = self.cluster.current_epoch();
        let follows = self.cluster.settings.remote.is_some();
        let lineage = Lineage::founded(Timeline(1), epoch);
        self.cluster.initialize = Initialize::Done(SYSTEM);
        self.cluster.sync = (!follows).then(|| SyncRecord::of(Setting::alone(name.clone())));
        self.cluster.lineage = Some(Published {
            epoch,
            leader: Some(name.clone()),
            lineage: lineage.clone(),
        });
        let me = self.me(name);
        me.data = DataDir::Ready(SYSTEM);
        me.lineage = Some(lineage);
        if !follows {
            me.postgres = Postgres::Primary(Primary {
                timeline: Timeline(1),
                ..Primary::default()
            });
        }
        self.nodes.get_mut(name).expect("a known node").wal = Lsn(100);
    }

    /// The remote has every record that is here, and more; each of its timelines begins where this node stands.
    fn follow_remote(&mut self, name: &NodeName, epoch: Epoch, remote: Remote) {
        let timeline = self.remote.max(Timeline(1));
        let node = &self.nodes[name];
        let (note, end) = (node.me.lineage.clone(), node.wal);
        let lineage = match note {
            Some(note) if note.newest().timeline == timeline => note,
            note => {
                let before = Timeline(timeline.0 - 1);
                let note = note.as_ref().map(|note| (note, end));
                let next = epoch.next();
                let lineage = Lineage::observed(note, timeline, &[(before, end)], next);
                self.lead(name, next);
                if let Some(leadership) = &mut self.cluster.epoch {
                    leadership.standby = true;
                }
                self.cluster.lineage = Some(Published {
                    epoch: next,
                    leader: Some(name.clone()),
                    lineage: lineage.clone(),
                });
                lineage
            }
        };
        let me = self.me(name);
        me.data = DataDir::Ready(SYSTEM);
        me.lineage = Some(lineage);
        let open = matches!(&me.postgres, Postgres::Standby(standby) if standby.open);
        me.postgres = Postgres::Standby(Standby {
            remote: Some(remote),
            timeline,
            streaming: true,
            open,
            ..Standby::default()
        });
        self.nodes.get_mut(name).expect("a known node").wal = Lsn(end.0 + 50);
    }

    fn promote(&mut self, name: &NodeName, epoch: Epoch) {
        let now = self.now;
        let named: BTreeSet<NodeName> = self
            .cluster
            .sync
            .as_ref()
            .map(|sync| sync.newest().standbys.clone())
            .unwrap_or_default();
        let unseen = Walsender {
            streaming: false,
            flushed: Lsn::ZERO,
            seen: now,
        };
        let standbys = named.into_iter().map(|name| (name, unseen)).collect();
        let node = self.nodes.get_mut(name).expect("a known node");
        let note = node.me.lineage.clone().expect("a note");
        let timeline = Timeline(note.newest().timeline.0 + 1);
        node.me.lineage = Some(note.promoted(timeline, epoch, node.wal));
        node.me.applied = None;
        node.wal = Lsn(node.wal.0 + 10);
        let primary = Primary {
            timeline,
            flushed: node.wal,
            standbys,
            open: false,
        };
        node.me.postgres = Postgres::Primary(primary);
    }

    fn stream(&mut self, name: &NodeName, leader: NodeName, lineage: Lineage, end: Lsn) {
        let node = self.nodes.get_mut(name).expect("a known node");
        node.wal = end;
        node.me.data = DataDir::Ready(SYSTEM);
        node.me.lineage = Some(lineage);
        node.me.postgres = Postgres::Standby(Standby {
            upstream: Some(leader),
            streaming: true,
            received: end,
            replayed: end,
            open: true,
            ..Standby::default()
        });
    }
}
