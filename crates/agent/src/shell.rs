//! Does what was decided. Each action runs in a task of its own; the loop sees it as a job.
//!
//! **Invariant:** an action is idempotent or guarded, so that it may be cut off anywhere and decided again.
//! **Invariant:** the note is written before the first byte of a new branch can arrive.

use crate::clock::now;
use crate::note::{Marker, Note};
use crate::observe::Streams;
use crate::promotion;
use crate::steps::Steps;
use crate::tenure::{Session, Tenure};
use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{Action, Claim, Cluster, Epoch, Job, Lineage, Lsn, NodeName, Promise};
use postgres::{
    Access, DataDir, Instance, PostgresError, Replace, Started, Stop, SyncNames, Upstream,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::layout::{ConfigRecord, Keys};
use store::{Outcome, Revision, Snapshot, Store, StoreError, Txn, View};

/// Limits of single actions. Past them the action has failed and is decided again.
const QUICK: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(60);
const VIEW: Duration = Duration::from_secs(2);
/// Several of the looks of pg_ctl.
const PG_CTL_LOOKS: Duration = Duration::from_millis(500);

/// Why an action did not succeed. It is decided again on what is then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    #[error("postgres")]
    Postgres(#[from] PostgresError),
    #[error("store")]
    Store(#[from] StoreError),
    #[error("lineage note")]
    Note(#[from] crate::note::NoteError),
    /// A guard did not hold: the world has moved on.
    #[error("the store had changed meanwhile")]
    Refused,
    #[error("{0}")]
    NotNow(String),
}

/// What the loop learns from a finished action.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Postgres was proven to use this setting.
    pub(crate) applied: Option<Applied>,
    /// A promise was acknowledged.
    pub(crate) promised: bool,
    /// Details for the event, such as what a rewind discarded.
    pub(crate) detail: Option<String>,
    /// The node has left the cluster.
    pub(crate) left: bool,
}

/// Everything that actions work with. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    pub(crate) me: NodeName,
    pub(crate) keys: Keys,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) view: View,
    pub(crate) instance: Instance,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) note: Arc<Note>,
    pub(crate) streams: Arc<Streams>,
    /// An adopted directory has none of our roles yet.
    pub(crate) roles_missing: Marker,
    /// The Postgres that runs was told to promote.
    pub(crate) promotion_ordered: Marker,
    /// The first configuration of a cluster that this node founds.
    pub(crate) bootstrap: ConfigRecord,
}

/// The snapshot that was decided on, and what was read from it.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) cluster: Cluster,
}

impl Shell {
    /// Does one action to its end.
    pub(crate) async fn act(&self, action: Action, basis: &Basis) -> Result<Report, ShellError> {
        let none = |()| Report::default();
        match action {
            Action::Found => self.found(basis).await.map(none),
            Action::Bootstrap => self.bootstrap(basis).await.map(none),
            Action::Adopt => self.adopt(basis).await.map(none),
            Action::Reattach { epoch } => self.reattach(epoch, basis).await.map(none),
            Action::Park => self.park().await.map(none),
            Action::Detach => self.detach().await,
            Action::Promise(promise) => self.promise(&promise, basis).await,
            Action::Withdraw { .. } => self.step(basis, |steps| steps.withdraw()).await.map(none),
            Action::Claim(claim) => self.claim(&claim, basis).await.map(none),
            Action::Promote { epoch, setting } => {
                self.promote(epoch, setting.as_ref()).await.map(none)
            }
            Action::Publish { epoch, lineage } => {
                self.publish(epoch, &lineage, basis).await.map(none)
            }
            Action::Record { record, .. } => self
                .step(basis, |steps| steps.record(record.as_ref()))
                .await
                .map(none),
            Action::Apply { epoch, record } => self.apply(epoch, record).await,
            Action::Open => {
                self.instance.access(Access::Open).await?;
                Ok(Report::default())
            }
            Action::Follow {
                leader,
                epoch,
                lineage,
            } => self.follow(&leader, epoch, &lineage, basis).await.map(none),
            Action::Rewind {
                leader,
                epoch,
                lineage,
            } => self.rewind(&leader, epoch, &lineage, basis).await,
            Action::Clone {
                leader,
                epoch,
                lineage,
            } => self
                .clone_from(&leader, epoch, &lineage, basis)
                .await
                .map(none),
            Action::Drain => self.drain().await.map(none),
            Action::Stop => Ok(self.instance.stop(Stop::Fast, STOP).await.map(none)?),
            Action::Fence => Ok(self.instance.stop(Stop::Immediate, QUICK).await.map(none)?),
            Action::Release { epoch, .. } => self.release(epoch, basis).await.map(none),
            Action::ClearSwitchover { .. } => self
                .step(basis, |steps| steps.clear_switchover())
                .await
                .map(none),
            Action::Leave => self.leave(basis).await,
        }
    }

    fn steps<'a>(&'a self, basis: &'a Basis) -> Steps<'a> {
        Steps {
            keys: &self.keys,
            me: &self.me,
            seen: &basis.snapshot,
        }
    }

    async fn step(
        &self,
        basis: &Basis,
        make: impl FnOnce(&Steps<'_>) -> Txn,
    ) -> Result<(), ShellError> {
        self.commit(make(&self.steps(basis))).await.map(drop)
    }

    /// Commits, and waits until the view has it, so that the next decision is made on it.
    async fn commit(&self, txn: Txn) -> Result<Revision, ShellError> {
        match self.store.commit(txn).await? {
            Outcome::Refused => Err(ShellError::Refused),
            Outcome::Committed { revision } => {
                self.tenure.heard(now());
                let mut view = self.view.clone();
                let seen = view.wait_for(|snapshot| snapshot.revision >= revision);
                let _ = tokio::time::timeout(VIEW, seen).await;
                Ok(revision)
            }
        }
    }

    fn session(&self) -> Result<Session, ShellError> {
        self.tenure
            .session()
            .ok_or_else(|| ShellError::NotNow("no lease is held yet".to_owned()))
    }

    /// Commits what begins a leadership, and arms the guard. The deadline counts from before it was sent.
    async fn take_office(
        &self,
        epoch: Epoch,
        txn: Txn,
        session: Session,
    ) -> Result<(), ShellError> {
        let sent = now();
        let revision = self.commit(txn).await?;
        let office = self.tenure.take_office(epoch, revision, session, sent);
        self.arm(epoch, office.deadline);
        Ok(())
    }

    fn arm(&self, epoch: Epoch, deadline: ha::Instant) {
        if let Some(guard) = self.instance.guard() {
            guard.arm(epoch.0, deadline.0);
        }
    }

    /// Arms the guard of an instance that was started while this node holds an office.
    fn arm_in_office(&self) {
        if let Some(office) = self.tenure.office() {
            self.arm(office.epoch, office.deadline);
        }
    }

    async fn found(&self, basis: &Basis) -> Result<(), ShellError> {
        let session = self.session()?;
        let epoch = basis.cluster.current_epoch().next();
        let txn = self.steps(basis).found(epoch, session.lease);
        self.take_office(epoch, txn, session).await
    }

    fn epoch_in_office(&self) -> Result<Epoch, ShellError> {
        let office = self.tenure.office();
        office
            .map(|office| office.epoch)
            .ok_or_else(|| ShellError::NotNow("the leadership has ended meanwhile".to_owned()))
    }

    async fn bootstrap(&self, basis: &Basis) -> Result<(), ShellError> {
        let epoch = self.epoch_in_office()?;
        self.instance.init().await?;
        let DataDir::Ready(control) = self.data_dir().await? else {
            return Err(ShellError::NotNow(
                "initdb left no usable data directory".to_owned(),
            ));
        };
        let lineage = Lineage::founded(control.timeline, epoch);
        self.note.write(&lineage)?;
        self.instance.start_primary(QUICK * 6).await?;
        self.arm_in_office();
        self.instance.serve_streams(true).await?;
        self.instance.ensure_roles(QUICK).await?;
        self.inaugurate(control.system_id, epoch, &lineage, basis)
            .await
    }

    /// The directory that is there becomes the cluster's first. A server that runs on it is stopped cleanly; it comes
    /// back by the same way as after any restart: parked, claimed, promoted.
    async fn adopt(&self, basis: &Basis) -> Result<(), ShellError> {
        let epoch = self.epoch_in_office()?;
        self.instance.stop(Stop::Fast, STOP).await?;
        let DataDir::Ready(control) = self.data_dir().await? else {
            return Err(ShellError::NotNow(
                "the data directory is not usable".to_owned(),
            ));
        };
        let lineage = Lineage::founded(control.end().0, epoch);
        self.note.write(&lineage)?;
        self.roles_missing.set()?;
        self.inaugurate(control.system_id, epoch, &lineage, basis)
            .await
    }

    async fn inaugurate(
        &self,
        system: ha::SystemId,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        let settings = self
            .bootstrap
            .settings()
            .map_err(|bad| ShellError::NotNow(format!("bootstrap.dcs: {bad}")))?;
        let steps = self.steps(basis);
        let txn = steps.inaugurate(system, epoch, lineage, &self.bootstrap, &settings);
        self.commit(txn).await.map(drop)
    }

    async fn data_dir(&self) -> Result<DataDir, ShellError> {
        let instance = self.instance.clone();
        let read = tokio::task::spawn_blocking(move || instance.data_dir()).await;
        match read {
            Ok(found) => Ok(found?),
            Err(_) => Err(ShellError::NotNow(
                "the data directory was not read".to_owned(),
            )),
        }
    }

    async fn reattach(&self, epoch: Epoch, basis: &Basis) -> Result<(), ShellError> {
        let session = self.session()?;
        let txn = self.steps(basis).reattach(session.lease);
        let sent = now();
        self.commit(txn).await?;
        // The epoch record was not written by this transaction: its revision is the one that was seen.
        let key = self.keys.epoch();
        let revision = basis
            .snapshot
            .entries
            .get(&key)
            .map_or(0, |entry| entry.modified);
        let office = self.tenure.take_office(epoch, revision, session, sent);
        self.arm(epoch, office.deadline);
        Ok(())
    }

    /// A person's `pg_ctl stop` looks ten times a second whether the server has gone. One that is started again at once
    /// has never gone for it, and it waits in vain.
    async fn let_pg_ctl_see(&self) {
        let Some(status) = self.instance.guard().map(|guard| guard.status()) else {
            return;
        };
        let clean = matches!(status.exit, Some(guard::Exit::Code(0)));
        let Some(ended) = status.ended_ns.filter(|_| clean) else {
            return;
        };
        let gone = now().since(ha::Instant(ended));
        tokio::time::sleep(PG_CTL_LOOKS.saturating_sub(gone)).await;
    }

    async fn park(&self) -> Result<(), ShellError> {
        self.let_pg_ctl_see().await;
        self.streams.may_come();
        self.instance.serve_streams(false).await?;
        self.promotion_ordered.clear()?;
        self.started(self.instance.start_standby(None, START).await?);
        Ok(())
    }

    async fn start_following(&self, upstream: Upstream) -> Result<(), ShellError> {
        self.streams.may_come();
        self.promotion_ordered.clear()?;
        self.started(self.instance.start_standby(Some(upstream), START).await?);
        Ok(())
    }

    fn started(&self, started: Started) {
        if started == Started::Recovering {
            tracing::info!("postgres is still replaying its WAL");
        }
        self.arm_in_office();
    }

    async fn detach(&self) -> Result<Report, ShellError> {
        let detached = self.instance.detach(QUICK).await?;
        self.streams.gone();
        let detail = Some(format!(
            "received {}, replayed {}",
            detached.received, detached.replayed
        ));
        Ok(Report {
            detail,
            ..Report::default()
        })
    }

    /// **Invariant:** no promise is written beside a promotion that may still be under way. An agent that restarts sees
    /// a standby; that its predecessor has ordered the promotion of this very Postgres, only the marker tells.
    async fn promise(&self, promise: &Promise, basis: &Basis) -> Result<Report, ShellError> {
        if self.promotion_ordered.is_set() {
            self.instance.stop(Stop::Immediate, QUICK).await?;
            self.promotion_ordered.clear()?;
            let why = "a promotion was under way: Postgres is started anew before it promises";
            return Err(ShellError::NotNow(why.to_owned()));
        }
        self.step(basis, |steps| steps.promise(promise)).await?;
        Ok(Report {
            promised: true,
            ..Report::default()
        })
    }

    async fn claim(&self, claim: &Claim, basis: &Basis) -> Result<(), ShellError> {
        let session = self.session()?;
        let txn = self.steps(basis).claim(claim, session.lease);
        self.take_office(claim.epoch, txn, session).await
    }

    async fn promote(&self, epoch: Epoch, setting: Option<&Setting>) -> Result<(), ShellError> {
        let old = self
            .note
            .read()
            .ok_or_else(|| ShellError::NotNow("there is no lineage note".to_owned()))?;
        let plan = promotion::plan(&self.instance, QUICK).await?;
        let office = self.tenure.office().filter(|office| office.epoch == epoch);
        let office = office
            .ok_or_else(|| ShellError::NotNow("the leadership has ended meanwhile".to_owned()))?;
        self.note
            .write(&old.promoted(plan.timeline, epoch, plan.begins))?;
        self.instance.apply_sync(&names(setting), QUICK).await?;
        self.arm(epoch, office.deadline);
        // Asked once more at the last moment: the lease may have ended while files were written.
        if self
            .tenure
            .lease()
            .is_none_or(|lease| lease.epoch != epoch || now() >= lease.deadline)
        {
            return Err(ShellError::NotNow(
                "the lease ended before the promotion".to_owned(),
            ));
        }
        self.promotion_ordered.set()?;
        let took = self.instance.promote(QUICK * 2).await?;
        tracing::info!(timeline = plan.timeline.0, begins = %plan.begins, ?took, "promoted");
        self.checkpoint_soon();
        Ok(())
    }

    /// What a promoted primary owes before others may follow it: a true note, and that they are let in. All of it can be
    /// done again, and is done before the lineage is published: an agent that dies in between finds it unpublished.
    async fn publish(
        &self,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        let lineage = self.verified(lineage).await?;
        self.instance.serve_streams(true).await?;
        let slots = slots(&self.me, &basis.cluster, Some(epoch));
        self.instance.ensure_slots(&slots, QUICK).await?;
        if self.roles_missing.is_set() {
            self.instance.ensure_roles(QUICK).await?;
            self.roles_missing.clear()?;
        }
        self.step(basis, |steps| steps.publish(epoch, &lineage))
            .await
    }

    /// The lineage with its newest branch as the history file has it: the note was written before the promotion.
    async fn verified(&self, noted: &Lineage) -> Result<Lineage, ShellError> {
        let branches = noted.branches();
        let Some((newest, older)) = branches.split_last().filter(|(_, older)| !older.is_empty())
        else {
            return Ok(noted.clone());
        };
        let real = promotion::outcome(&self.instance, QUICK).await?;
        if (real.timeline, real.begins) == (newest.timeline, newest.begins) {
            return Ok(noted.clone());
        }
        let before = Lineage::from_branches(older.to_vec())
            .ok_or_else(|| ShellError::NotNow("the lineage note is damaged".to_owned()))?;
        let lineage = before.promoted(real.timeline, newest.epoch, real.begins);
        self.note.write(&lineage)?;
        Ok(lineage)
    }

    /// pg_rewind believes the control file, which names the new timeline only after a checkpoint.
    fn checkpoint_soon(&self) {
        let instance = self.instance.clone();
        tokio::spawn(async move {
            if let Err(error) = instance.checkpoint(STOP).await {
                tracing::warn!(
                    error = crate::agent::chain(&error),
                    "no checkpoint after the promotion"
                );
            }
        });
    }

    async fn apply(&self, epoch: Epoch, record: Option<SyncRecord>) -> Result<Report, ShellError> {
        let setting = record.as_ref().map(SyncRecord::newest);
        let applied = self.instance.apply_sync(&names(setting), QUICK).await?;
        let record = record.unwrap_or_else(|| SyncRecord::of(Setting::alone(self.me.clone())));
        let applied = Applied {
            epoch,
            record,
            barrier: applied.barrier,
        };
        Ok(Report {
            applied: Some(applied),
            ..Report::default()
        })
    }

    /// **Invariant:** a promise that stands, or is still on its way, is never broken by following.
    async fn take_stance(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        if basis.cluster.current_epoch() != epoch {
            return Err(ShellError::Refused);
        }
        self.step(basis, |steps| steps.follow(leader, epoch))
            .await?;
        self.instance.serve_streams(false).await?;
        Ok(())
    }

    fn upstream(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        cluster: &Cluster,
    ) -> Result<Upstream, ShellError> {
        let member = cluster.members.get(leader);
        let member =
            member.ok_or_else(|| ShellError::NotNow(format!("{leader} has no member key")))?;
        Ok(Upstream {
            name: leader.clone(),
            host: member.host.clone(),
            port: member.port,
            slot: Some(self.me.slot_of_epoch(epoch)),
        })
    }

    async fn follow(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        let upstream = self.upstream(leader, epoch, &basis.cluster)?;
        self.note.write(lineage)?;
        self.disarm();
        self.streams.may_come();
        self.instance.follow(upstream).await?;
        Ok(())
    }

    fn disarm(&self) {
        if let Some(guard) = self.instance.guard() {
            guard.disarm();
        }
    }

    async fn rewind(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        let upstream = self.upstream(leader, epoch, &basis.cluster)?;
        self.instance.stop(Stop::Fast, STOP).await?;
        let old = self.note.forget()?;
        let rewound = match self.instance.rewind_from(&upstream).await {
            Ok(rewound) => rewound,
            Err(error) => {
                // Not touched yet: what it was is still what it is.
                if let (Some(old), Ok(DataDir::Ready(_))) = (old, self.data_dir().await) {
                    self.note.write(&old)?;
                }
                return Err(error.into());
            }
        };
        match rewound {
            postgres::Rewound::Done(report) => {
                self.note.write(lineage)?;
                self.start_following(upstream).await?;
                let detail = summary(&report);
                tracing::warn!(detail, "WAL that the cluster does not have was discarded");
                Ok(Report {
                    detail: Some(detail),
                    ..Report::default()
                })
            }
            // It was decided because WAL is here that the leader does not have. Who then says that nothing needs to be
            // done compares by numbers what is not the same.
            postgres::Rewound::NotNeeded => {
                self.clone_from(leader, epoch, lineage, basis).await?;
                let detail = "cloned instead: no common point was found".to_owned();
                Ok(Report {
                    detail: Some(detail),
                    ..Report::default()
                })
            }
            postgres::Rewound::NeedsClone { why } => {
                tracing::info!(why, "a rewind is not possible");
                self.clone_from(leader, epoch, lineage, basis).await?;
                Ok(Report {
                    detail: Some(format!("cloned instead: {why}")),
                    ..Report::default()
                })
            }
        }
    }

    async fn clone_from(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        let upstream = self.upstream(leader, epoch, &basis.cluster)?;
        let ha::Initialize::Done(system) = basis.cluster.initialize else {
            return Err(ShellError::NotNow(
                "the cluster is not initialized".to_owned(),
            ));
        };
        self.instance.stop(Stop::Fast, STOP).await?;
        self.note.forget()?;
        let (progress, _) = tokio::sync::watch::channel(postgres::CloneProgress::default());
        self.instance
            .clone_from(&upstream, Replace::Cluster(system), progress)
            .await?;
        self.note.write(lineage)?;
        self.start_following(upstream).await
    }

    async fn drain(&self) -> Result<(), ShellError> {
        self.instance.checkpoint(STOP).await?;
        Ok(self.instance.stop(Stop::Fast, STOP).await?)
    }

    /// **Invariant:** leadership is released only when no process of the instance is left.
    async fn release(&self, epoch: Epoch, basis: &Basis) -> Result<(), ShellError> {
        if self.instance.liveness() != postgres::Liveness::Down {
            return Err(ShellError::NotNow(
                "processes of the instance are still there".to_owned(),
            ));
        }
        self.tenure.leave_office(epoch);
        self.step(basis, |steps| steps.release()).await
    }

    async fn leave(&self, basis: &Basis) -> Result<Report, ShellError> {
        self.step(basis, |steps| steps.leave()).await?;
        if let Some(session) = self.tenure.session() {
            let _ = self.store.revoke(session.lease).await;
        }
        Ok(Report {
            left: true,
            ..Report::default()
        })
    }
}

/// What a rewind discarded, for people.
fn summary(report: &postgres::RewindReport) -> String {
    let discarded = &report.discarded;
    let kept = discarded.saved_in.as_ref().map_or_else(
        || "nothing was kept".to_owned(),
        |path| format!("kept in {}", path.display()),
    );
    format!(
        "rewound to {} on timeline {}; {} transactions discarded ({} to {}); {kept}",
        report.fork,
        report.fork_timeline,
        discarded.transactions,
        discarded.first_commit.as_deref().unwrap_or("-"),
        discarded.last_commit.as_deref().unwrap_or("-"),
    )
}

/// The slots that a node holds: for every other node one that keeps the WAL which that node still lacks, wherever it
/// will stream from next, and on the leader the one that it streams by in this epoch.
pub(crate) fn slots(
    me: &NodeName,
    cluster: &Cluster,
    in_office: Option<Epoch>,
) -> BTreeMap<String, Option<Lsn>> {
    let mut slots = BTreeMap::new();
    for (name, _) in cluster
        .nodes
        .iter()
        .filter(|(name, node)| *name != me && !node.dropped)
    {
        let position = cluster.members.get(name).map(|member| member.position);
        slots.insert(name.slot(), position.filter(|lsn| *lsn > Lsn::ZERO));
        if let Some(epoch) = in_office {
            slots.insert(name.slot_of_epoch(epoch), None);
        }
    }
    slots
}

/// The names that Postgres is to wait for.
fn names(setting: Option<&Setting>) -> SyncNames {
    match setting {
        Some(setting) if !setting.is_alone() => {
            SyncNames::any(setting.needed, setting.standbys.iter().cloned())
        }
        Some(_) | None => SyncNames::none(),
    }
}

/// The job that an action is, as the decision sees it.
pub(crate) fn job(action: &Action) -> Job {
    match action {
        Action::Bootstrap | Action::Adopt => Job::Bootstrap,
        Action::Park => Job::Park,
        Action::Detach => Job::Detach,
        Action::Promote { .. } => Job::Promote,
        Action::Apply { .. } => Job::Apply,
        Action::Follow { .. } => Job::Follow,
        Action::Rewind { .. } => Job::Rewind,
        Action::Clone { .. } => Job::Clone,
        Action::Drain => Job::Drain,
        Action::Stop => Job::Stop,
        Action::Found
        | Action::Reattach { .. }
        | Action::Promise(_)
        | Action::Withdraw { .. }
        | Action::Claim(_)
        | Action::Publish { .. }
        | Action::Record { .. }
        | Action::Open
        | Action::Fence
        | Action::Release { .. }
        | Action::ClearSwitchover { .. }
        | Action::Leave => Job::Other,
    }
}

/// The action's name for the log.
pub(crate) fn name(action: &Action) -> &'static str {
    match action {
        Action::Found => "found",
        Action::Bootstrap => "bootstrap",
        Action::Adopt => "adopt",
        Action::Reattach { .. } => "reattach",
        Action::Park => "park",
        Action::Detach => "detach",
        Action::Promise(_) => "promise",
        Action::Withdraw { .. } => "withdraw",
        Action::Claim(_) => "claim",
        Action::Promote { .. } => "promote",
        Action::Publish { .. } => "publish",
        Action::Record { .. } => "record",
        Action::Apply { .. } => "apply",
        Action::Open => "open",
        Action::Follow { .. } => "follow",
        Action::Rewind { .. } => "rewind",
        Action::Clone { .. } => "clone",
        Action::Drain => "drain",
        Action::Stop => "stop",
        Action::Fence => "fence",
        Action::Release { .. } => "release",
        Action::ClearSwitchover { .. } => "clear switchover",
        Action::Leave => "leave",
    }
}
