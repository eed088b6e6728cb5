//! The shell: what each action of a decision does, step by step, as its words in [`ha::Action`] say.
//!
//! **Invariant:** one action at a time, and only a fence pre-empts it; every store action is a transaction guarded by
//! the snapshot that was decided on; whether an unanswered one happened is never assumed.

use crate::config::Break;
use crate::node::{Doing, Life, Names, NodeId, Phase, Purpose, Role, name_of};
use crate::store::{Answer, Request};
use crate::time::ms;
use crate::wal::lsn;
use crate::world::{Era, Event, World};
use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{Action, DataDir, Epoch, Errand, Instant, Job, Lineage, Timeline, Walsender};
use std::rc::Rc;
use std::time::Duration;

/// How long an action waits for the view to show what it has written.
const VIEW: Duration = Duration::from_secs(2);
/// How long a node that was not to be promoted leaves it to others.
const STANDS_BACK: Duration = Duration::from_secs(3);

impl World {
    pub(crate) fn start(&mut self, id: NodeId, rule: &'static str, action: Action) {
        if let Action::Promise(_) | Action::Claim(_) = &action
            && !self.speak(id)
        {
            return;
        }
        let serial = self.new_run();
        self.nodes[id].agent.fresh_from = self.local(id);
        let snapshot = Rc::clone(&self.nodes[id].agent.snapshot);
        let pg = &self.nodes[id].pg;
        let primary = pg.promoting || matches!(pg.role, Role::Primary(_));
        let promoting = pg.life != Life::Down && primary;
        if let (Action::Adopt, Some(lease)) = (&action, self.nodes[id].agent.lease) {
            self.adopt(id, lease.epoch);
        }
        if let Action::Rejoin { lineage, .. } = &action
            && !self.has_all_of(id, lineage)
        {
            self.start(id, rule, Action::Park);
            return;
        }
        let mut begin = |job, phase| {
            let action = action.clone();
            self.nodes[id].agent.doing = Some(Doing {
                serial,
                job,
                action,
                phase,
            });
        };
        match &action {
            Action::Fence => {
                self.nodes[id].agent.doing = None;
                self.kill(id);
            }
            Action::Park => {
                begin(Job::Park, Phase::Timed);
                self.nodes[id].disk.upstream = None;
                self.start_postgres(id);
                self.watch_postgres(id);
            }
            Action::Detach => {
                begin(Job::Detach, Phase::Timed);
                self.nodes[id].disk.upstream = None;
                self.step_after(id, serial, 5, 60);
            }
            Action::Bootstrap => {
                begin(Job::Bootstrap, Phase::Timed);
                self.nodes[id].disk.data = DataDir::Unfinished;
                self.step_after(id, serial, 100, 400);
            }
            Action::Promote { epoch, setting } => {
                begin(Job::Promote, Phase::Timed);
                let (epoch, setting) = (*epoch, setting.clone());
                self.promote(id, epoch, setting.as_ref());
            }
            Action::Apply { record, .. } => {
                begin(Job::Apply, Phase::Timed);
                let names = Names::of(record.as_ref().map(SyncRecord::newest));
                self.nodes[id].agent.applied = None;
                self.configure(id, names);
                self.watch_postgres(id);
            }
            Action::Open => self.open(id),
            Action::Drain => {
                begin(Job::Drain, Phase::Timed);
                self.drain(id);
                self.watch_postgres(id);
            }
            // An agent before this one has ordered a promotion that is still under way, or has just ended unseen: beside it
            // a promise is a lie.
            Action::Promise(_) if promoting => {
                begin(Job::Stop, Phase::Timed);
                self.kill(id);
                self.watch_postgres(id);
            }
            Action::Stop => {
                begin(Job::Stop, Phase::Timed);
                self.kill(id);
                self.watch_postgres(id);
            }
            Action::Follow { epoch, .. } => {
                begin(Job::Follow, Phase::Asked);
                self.take_stance(id, serial, *epoch);
            }
            Action::Rejoin { epoch, .. } => {
                begin(Job::Park, Phase::Asked);
                self.take_stance(id, serial, *epoch);
            }
            Action::Rewind { epoch, .. } => {
                begin(Job::Rewind, Phase::Asked);
                self.take_stance(id, serial, *epoch);
            }
            Action::Clone { epoch, .. } => {
                begin(Job::Clone, Phase::Asked);
                self.take_stance(id, serial, *epoch);
            }
            // The worlds know no bytes to compare: what can't be compared is copied.
            Action::Compare {
                leader,
                epoch,
                lineage,
            } => {
                let (leader, epoch, lineage) = (leader.clone(), *epoch, lineage.clone());
                let action = Action::Clone {
                    leader,
                    epoch,
                    lineage,
                };
                self.start(id, rule, action);
            }
            // Nobody of Patroni's leads there, nobody is fed by an archive, and nothing is followed from there.
            Action::Recognize { .. } | Action::Feed { .. } | Action::FollowRemote { .. } => {}
            Action::Found
            | Action::Adopt
            | Action::Reattach { .. }
            | Action::Promise(_)
            | Action::Withdraw { .. }
            | Action::Claim(_)
            | Action::Publish { .. }
            | Action::Record { .. }
            | Action::Release { .. }
            | Action::ClearSwitchover { .. }
            | Action::Leave => {
                match &action {
                    Action::Claim(claim) => self.note_claiming(id, claim),
                    Action::Release { .. } => {
                        self.note_releasing(id, rule);
                        // No beat of it comes behind.
                        self.nodes[id].agent.lease = None;
                    }
                    _ => {}
                }
                if let Some(txn) = self.transaction(id, &action, &snapshot) {
                    let job = Job::Other;
                    let phase = Phase::Asked;
                    self.nodes[id].agent.doing = Some(Doing {
                        serial,
                        job,
                        action,
                        phase,
                    });
                    self.call(id, Request::Commit(txn), Purpose::Action { serial });
                }
            }
        }
    }

    pub(crate) fn action_answered(
        &mut self,
        id: NodeId,
        serial: u64,
        sent: Instant,
        answer: Option<&Answer>,
    ) {
        let Some(doing) = self.nodes[id]
            .agent
            .doing
            .clone()
            .filter(|doing| doing.serial == serial)
        else {
            return;
        };
        let committed = match answer {
            Some(Answer::Committed(revision)) => Some(*revision),
            Some(Answer::LeaseEnded) => {
                self.nodes[id].agent.lease_id = None;
                None
            }
            Some(Answer::Refused | Answer::Granted(_)) | None => None,
        };
        let Some(revision) = committed else {
            self.note_of(id, || {
                format!("  {:?} came to nothing: {answer:?}", doing.job)
            });
            if matches!(doing.action, Action::Bootstrap) {
                self.kill(id);
            }
            self.done(id);
            return;
        };
        let local = self.local(id);
        let agent = &mut self.nodes[id].agent;
        if self.config.is_broken(Break::WithdrawUnchecked) {
            agent.forgot = matches!(doing.action, Action::Withdraw { .. });
        }
        if !agent.forgot {
            agent.must_see = (revision, local.plus(VIEW));
        }
        match doing.action {
            Action::Found => {
                // The view may have the new epoch before the answer comes.
                let me = name_of(id);
                let seen = &self.nodes[id].agent.snapshot.cluster;
                let here = seen.leader.as_ref() == Some(&me);
                let epoch = seen.current_epoch();
                let epoch = if here { epoch } else { epoch.next() };
                self.extend_lease(id, epoch, sent);
            }
            Action::Claim(claim) => self.extend_lease(id, claim.epoch, sent),
            Action::Reattach { epoch } => self.extend_lease(id, epoch, sent),
            Action::Release { .. } => self.nodes[id].guard = None,
            Action::Leave => self.kill_agent(id),
            Action::Follow { .. }
            | Action::Rejoin { .. }
            | Action::Rewind { .. }
            | Action::Clone { .. } => {
                // Whatever was on its way is void from here on.
                self.nodes[id].agent.spoken = None;
                self.nodes[id].agent.unsettled = None;
                self.follow_on(id, serial);
                return;
            }
            _ => {}
        }
        self.done(id);
    }

    /// The action is over, one way or the other.
    pub(crate) fn done(&mut self, id: NodeId) {
        let local = self.local(id);
        self.nodes[id].agent.doing = None;
        self.nodes[id].agent.fresh_from = local;
        self.wake(id);
    }

    pub(crate) fn step_after(&mut self, id: NodeId, serial: u64, low: u64, high: u64) {
        let delay = self.rng.between(ms(low), ms(high));
        let target = self.agent(id);
        self.after(delay, target, Event::Step(serial));
    }

    pub(crate) fn watch_postgres(&mut self, id: NodeId) {
        let run = self.nodes[id].pg.run;
        if let Some(doing) = &mut self.nodes[id].agent.doing {
            doing.phase = Phase::Watching { run };
        }
        self.wake(id);
    }

    /// The action that waits for Postgres, if its wait is over.
    pub(crate) fn finished(&self, id: NodeId) -> Option<u64> {
        let node = &self.nodes[id];
        let doing = node.agent.doing.as_ref()?;
        let Phase::Watching { run } = doing.phase else {
            return None;
        };
        let gone = node.pg.run != run;
        let over = match doing.job {
            Job::Park => node.pg.life != Life::Starting,
            Job::Drain | Job::Stop => node.pg.life == Life::Down || node.pg.life == Life::Orphaned,
            Job::Promote => gone || node.pg.life != Life::Up || !node.pg.promoting,
            Job::Apply => {
                gone || node.primary().is_none_or(|side| {
                    let read = |names: &Names| *names == side.configured;
                    read(&side.defined) && side.senders.values().all(|sender| read(&sender.read))
                })
            }
            _ => gone,
        };
        over.then_some(doing.serial)
    }

    /// A wait of the action in flight is over.
    pub(crate) fn step(&mut self, id: NodeId, serial: u64) {
        let Some(doing) = self.nodes[id]
            .agent
            .doing
            .clone()
            .filter(|doing| doing.serial == serial)
        else {
            return;
        };
        match (&doing.action, doing.phase) {
            (Action::Detach, _) => self.detach(id),
            (Action::Bootstrap, Phase::Timed) => {
                self.bootstrap(id, serial);
                return;
            }
            (Action::Apply { epoch, record }, _) => {
                let epoch = *epoch;
                let leader = name_of(id);
                let record = record
                    .clone()
                    .unwrap_or_else(|| SyncRecord::of(Setting::alone(leader)));
                self.applied(id, epoch, record);
            }
            (Action::Promote { .. }, _) => self.expect_standbys(id),
            (
                Action::Rewind { lineage, epoch, .. } | Action::Clone { lineage, epoch, .. },
                Phase::Copying { from, run },
            ) => {
                let anew = matches!(doing.action, Action::Clone { .. });
                self.copied(id, from, run, *epoch, &lineage.clone());
                if anew {
                    let errand = &mut self.nodes[id].agent.errand;
                    errand.take_if(|(errand, _)| *errand == Errand::Reinitialize);
                }
            }
            _ => {}
        }
        self.done(id);
    }

    fn bootstrap(&mut self, id: NodeId, serial: u64) {
        let Some(lease) = self.nodes[id].agent.lease else {
            self.done(id);
            return;
        };
        let lineage = Lineage::founded(Timeline(1), lease.epoch);
        self.create_cluster(id, lease.epoch, lineage.clone());
        if let Some(doing) = &mut self.nodes[id].agent.doing {
            doing.phase = Phase::Asked;
        }
        let txn = self.founded(&name_of(id), lease.epoch, lineage);
        self.call(id, Request::Commit(txn), Purpose::Action { serial });
    }

    fn applied(&mut self, id: NodeId, epoch: Epoch, record: SyncRecord) {
        let node = &mut self.nodes[id];
        let side = node.primary().filter(|side| side.epoch == epoch);
        // PostgreSQL flushes the end of its recovery before it is promoted.
        let recovered = side.map(|side| side.recovered);
        if let Some(recovered) = recovered
            && matches!(node.agent.doing, Some(Doing { phase: Phase::Watching { run }, .. }) if run == node.pg.run)
        {
            let broken = self.config.is_broken(Break::RecordBeforeBarrier);
            let barrier = if broken {
                lsn(0)
            } else {
                lsn(node.disk.flushed.max(recovered))
            };
            node.agent.applied = Some(Applied {
                epoch,
                record,
                barrier,
            });
        }
    }

    /// Every node of the new setting counts as seen at the promotion: it gets its time to connect.
    fn expect_standbys(&mut self, id: NodeId) {
        let local = self.local(id);
        let agent = &mut self.nodes[id].agent;
        let record = agent.snapshot.cluster.sync.as_ref();
        let names = record
            .map(|record| record.newest().standbys.clone())
            .unwrap_or_default();
        let unseen = Walsender {
            streaming: false,
            flushed: ha::Lsn::ZERO,
            seen: local,
        };
        agent.standbys = names.into_iter().map(|name| (name, unseen)).collect();
    }

    fn promote(&mut self, id: NodeId, epoch: Epoch, setting: Option<&Setting>) {
        let local = self.local(id);
        let node = &mut self.nodes[id];
        let lawful = node
            .agent
            .lease
            .is_some_and(|lease| lease.epoch == epoch && local < lease.deadline);
        let ended = node
            .standby()
            .is_some_and(|standby| standby.replayed == node.disk.wal.len());
        if !lawful || !ended || node.pg.stopped.is_some() {
            self.note_of(id, || "  the lease is over: not promoted".to_owned());
            self.done(id);
            return;
        }
        if matches!(self.era, Era::Turmoil) && self.rng.chance(self.config.refusals) {
            self.note_of(id, || "  the user's program refuses".to_owned());
            self.nodes[id].agent.barred = Some(local.plus(STANDS_BACK));
            self.done(id);
            return;
        }
        let node = &mut self.nodes[id];
        let last = node
            .disk
            .wal
            .last()
            .map_or(Timeline(0), |record| record.timeline);
        let highest = node
            .disk
            .histories
            .iter()
            .max()
            .copied()
            .unwrap_or(last)
            .max(last);
        let predicted = Timeline(highest.0 + 1);
        let begins = lsn(node.disk.wal.len());
        let note = node.disk.note.as_ref();
        node.disk.note = note.map(|note| note.promoted(predicted, epoch, begins));
        node.pg.promoting = true;
        let names = match setting {
            Some(_) if self.config.is_broken(Break::AcknowledgeUnpublished) => Names::of(setting),
            Some(setting) if setting.is_alone() => Names::nobody(),
            Some(_) | None => Names::of(setting),
        };
        self.begin_promotion(id, epoch, predicted, names);
        self.watch_postgres(id);
    }
}
