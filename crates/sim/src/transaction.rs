//! The store actions as transactions, with the guards that [`Action`] names.

use crate::config::Break;
use crate::node::{NodeId, Purpose, name_of};
use crate::store::{Key, Put, Request, Snapshot, Txn};
use crate::wal::SYSTEM;
use crate::world::World;
use ha::quorum::{Setting, SyncRecord};
use ha::{Action, Claim, Epoch, Initialize, Leadership, Lineage, NodeName, Published};

impl World {
    /// The store actions, with the guards that [`Action`] names. None: it can't be sent at present.
    pub(crate) fn transaction(&self, id: NodeId, action: &Action, seen: &Snapshot) -> Option<Txn> {
        let me = name_of(id);
        let lease = self.nodes[id].agent.lease_id;
        let mut txn = Txn::default();
        match action {
            Action::Found => {
                txn.guards = vec![seen.unchanged(Key::Initialize), seen.unchanged(Key::Leader)];
                txn.guards.push(seen.unchanged(Key::Epoch));
                let epoch = seen.cluster.current_epoch().next();
                txn.puts = vec![
                    Put::Initialize(Initialize::Founding),
                    Put::Leader(Some(me.clone())),
                    Put::Epoch(Leadership {
                        epoch,
                        leader: me,
                        standby: false,
                    }),
                ];
                txn.lease = Some(lease?);
            }
            Action::Adopt => {
                let epoch = self.nodes[id].agent.lease?.epoch;
                let lineage = self.nodes[id].disk.note.clone()?;
                txn = self.founded(&me, epoch, lineage);
            }
            Action::Reattach { epoch } => {
                txn.leads = Some((me.clone(), *epoch));
                txn.puts = vec![Put::Leader(Some(me))];
                txn.lease = Some(lease?);
            }
            Action::Promise(promise) => {
                txn.epoch = Some(promise.epoch);
                if !self.config.is_broken(Break::LateTransactions) {
                    txn.guards = vec![seen.unchanged(Key::Stance(me.clone()))];
                }
                txn.puts = vec![Put::Promise(me, Some(promise.clone()))];
            }
            Action::Withdraw { epoch } => {
                if !self.config.is_broken(Break::WithdrawUnchecked) {
                    txn.guards = vec![seen.unchanged(Key::Promise(me.clone()))];
                    let current = seen.cluster.current_epoch();
                    txn.epoch = (*epoch == current).then_some(current);
                }
                txn.puts = vec![Put::Promise(me, None)];
            }
            Action::Claim(claim) => txn = self.claim(&me, claim, seen, lease?),
            Action::Publish { epoch, lineage } => {
                let published = Published {
                    epoch: *epoch,
                    leader: Some(me.clone()),
                    lineage: lineage.clone(),
                };
                txn.leads = Some((me, *epoch));
                let begins = lineage.newest().begins;
                txn.puts = vec![Put::Lineage(published), Put::Status(begins)];
            }
            Action::Record { epoch, record } => {
                txn.leads = Some((me, *epoch));
                txn.guards = vec![seen.unchanged(Key::Sync)];
                txn.puts = vec![Put::Sync(record.clone())];
            }
            Action::Release { epoch, .. } => {
                txn.leads = Some((me, *epoch));
                txn.puts = vec![Put::Leader(None)];
            }
            Action::ClearSwitchover { .. } => {
                txn.guards = vec![seen.unchanged(Key::Failover)];
                txn.puts = vec![Put::Failover(None)];
            }
            Action::Leave => {
                txn.guards = vec![seen.unchanged(Key::Node(me.clone()))];
                txn.puts = vec![
                    Put::Member(me.clone(), None),
                    Put::Promise(me.clone(), None),
                    Put::Stance(me.clone(), false),
                    Put::Node(me, None),
                ];
            }
            Action::Bootstrap
            | Action::Park
            | Action::Detach
            | Action::Promote { .. }
            | Action::Apply { .. }
            | Action::Open
            | Action::Follow { .. }
            | Action::Rejoin { .. }
            | Action::Rewind { .. }
            | Action::Clone { .. }
            | Action::Compare { .. }
            | Action::Recognize { .. }
            | Action::Feed { .. }
            | Action::FollowRemote { .. }
            | Action::Drain
            | Action::Stop
            | Action::Fence => return None,
        }
        Some(txn)
    }

    fn claim(&self, me: &NodeName, claim: &Claim, seen: &Snapshot, lease: u64) -> Txn {
        let mut guards = vec![
            seen.unchanged(Key::Leader),
            seen.unchanged(Key::Epoch),
            seen.unchanged(Key::Sync),
        ];
        for name in &claim.counted {
            guards.push(seen.unchanged(Key::Promise(name.clone())));
        }
        let mut record = claim.record.clone();
        if self.config.is_broken(Break::ClaimReplacesRecord) {
            record = record.map(|record| SyncRecord::of(record.newest().clone()));
        }
        let puts = vec![
            Put::Leader(Some(me.clone())),
            Put::Epoch(Leadership {
                epoch: claim.epoch,
                leader: me.clone(),
                standby: false,
            }),
            Put::Sync(record),
        ];
        Txn {
            guards,
            puts,
            lease: Some(lease),
            ..Txn::default()
        }
    }

    pub(crate) fn founded(&self, me: &NodeName, epoch: Epoch, lineage: Lineage) -> Txn {
        let alone = SyncRecord::of(Setting::alone(me.clone()));
        let record = self.config.synchronous().then_some(alone);
        Txn {
            leads: Some((me.clone(), epoch)),
            puts: vec![
                Put::Initialize(Initialize::Done(SYSTEM)),
                Put::Sync(record),
                Put::Lineage(Published {
                    epoch,
                    leader: Some(me.clone()),
                    lineage,
                }),
            ],
            ..Txn::default()
        }
    }

    /// Before anything is streamed or copied: in one transaction, the epoch is still this one, no promise of mine
    /// stands in it, and none that I gave up can arrive any more.
    pub(crate) fn take_stance(&mut self, id: NodeId, serial: u64, epoch: Epoch) {
        let me = name_of(id);
        // An agent before this one has ordered a promotion that is still under way: no other lineage is noted beside it.
        if self.nodes[id].pg.promoting {
            self.kill(id);
            self.done(id);
            return;
        }
        if matches!(
            self.config.broken,
            Some(Break::FollowUnread | Break::WithdrawUnchecked)
        ) {
            self.follow_on(id, serial);
            return;
        }
        let mut txn = Txn {
            epoch: Some(epoch),
            ..Txn::default()
        };
        txn.guards = vec![(Key::Promise(me.clone()), 0)];
        match self.config.broken {
            Some(Break::LateTransactions) => {}
            _ => txn.puts = vec![Put::Stance(me, true)],
        }
        self.call(id, Request::Commit(txn), Purpose::Action { serial });
    }
}
