//! Does what was decided. Each action runs in a task of its own; the loop sees it as a job.
//!
//! **Invariant:** an action is idempotent or guarded, so that it may be cut off anywhere and decided again.
//! **Invariant:** the note is written before the first byte of a new branch can arrive.

mod comparing;
mod copying;
mod following;
mod founding;
mod hooks;
mod office;
mod promote;
mod recognizing;
mod remote;
mod sharing;
mod slots;
mod words;

pub use self::hooks::Hooks;
pub(crate) use self::sharing::shared;
pub(crate) use self::slots::{Giving, permanent, slots};
pub(crate) use self::words::{job, name};
use crate::clock::now;
use crate::holds::Holds;
use crate::known::Known;
use crate::note::{Marker, Note, Rewound};
use crate::observe::Streams;
use crate::steps::Steps;
use crate::tenure::Tenure;
use ha::quorum::Applied;
use ha::{Action, Cluster, Epoch, NodeName};
use postgres::{Access, Instance, PostgresError, Stop};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::layout::{ConfigRecord, Keys};
use store::{Outcome, Revision, Snapshot, Store, StoreError, Txn, View};

/// Limits of single actions. Past them the action has failed and is decided again.
const QUICK: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(10);
const VIEW: Duration = Duration::from_secs(2);

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
    /// The user's program does not let this node be promoted.
    #[error("not to be promoted")]
    Barred(#[source] PostgresError),
    /// A bug: the panic's text is on stderr.
    #[error("it panicked")]
    Panicked,
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
    pub(crate) known: Arc<Known>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) streams: Arc<Streams>,
    /// An adopted directory has none of our roles yet.
    pub(crate) roles_missing: Marker,
    pub(crate) rewound: Rewound,
    /// The Postgres that runs was told to promote.
    pub(crate) promotion_ordered: Marker,
    /// A promotion is owed its checkpoint.
    pub(crate) checkpoint_owed: Arc<AtomicBool>,
    /// Until that has ended, nobody should rewind from here.
    pub(crate) unchecked: Arc<AtomicBool>,
    /// The next base backup is made of the leader itself.
    pub(crate) from_leader: Arc<AtomicBool>,
    /// Nothing is promoted before the machine's watchdog device is armed.
    pub(crate) watchdog_required: bool,
    /// The first configuration of a cluster that this node founds.
    pub(crate) bootstrap: ConfigRecord,
    /// What is run on a cluster that this node has founded.
    pub(crate) post_bootstrap: Vec<String>,
    pub(crate) hooks: Hooks,
    /// Where the one that runs is noted.
    pub(crate) hook_noted: PathBuf,
    /// The epoch that this agent claimed right after one in which this node was to be primary.
    pub(crate) leads_on: Arc<Mutex<Option<Epoch>>>,
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
        let joins = matches!(
            action,
            Action::Follow { .. }
                | Action::Feed { .. }
                | Action::Recognize { .. }
                | Action::Compare { .. }
        );
        let acted = self.carry_out(action, basis).await;
        if joins && matches!(acted, Err(ShellError::Postgres(_) | ShellError::Note(_))) {
            self.leave_clients_to_others().await;
        }
        acted
    }

    async fn carry_out(&self, action: Action, basis: &Basis) -> Result<Report, ShellError> {
        let none = |()| Report::default();
        let founding = match action {
            Action::Adopt => self.taken_over_config().await,
            _ => self.bootstrap.clone(),
        };
        match action {
            Action::Bootstrap | Action::Adopt => self.share(basis, Some(&founding)).await,
            Action::Park
            | Action::Rejoin { .. }
            | Action::Clone { .. }
            | Action::Rewind { .. }
            | Action::Compare { .. }
            | Action::FollowRemote { .. } => self.share(basis, None).await,
            _ => {}
        }
        match action {
            Action::Found => self.found(basis).await.map(none),
            Action::Bootstrap => self.bootstrap(basis).await.map(none),
            Action::Adopt => self.adopt(basis, &founding).await.map(none),
            Action::Reattach { epoch } => self.reattach(epoch, basis).await.map(none),
            Action::Park => self.park(basis).await.map(none),
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
            Action::Open => self.open(basis).await.map(none),
            Action::Follow {
                leader,
                epoch,
                lineage,
                via,
            } => self
                .follow(&leader, epoch, &lineage, via.as_ref(), basis)
                .await
                .map(none),
            Action::Rejoin {
                leader,
                epoch,
                lineage,
                via,
            } => self
                .rejoin(&leader, epoch, &lineage, via.as_ref(), basis)
                .await
                .map(none),
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
            Action::Feed { leader, epoch } => self.feed(&leader, epoch, basis).await.map(none),
            Action::Recognize { leader, epoch } => {
                self.recognize(&leader, epoch, basis).await.map(none)
            }
            Action::Compare {
                leader,
                epoch,
                lineage,
            } => self.compare(&leader, epoch, &lineage, basis).await,
            Action::FollowRemote { epoch, remote } => {
                self.follow_remote(epoch, &remote, basis).await
            }
            Action::Drain if basis.cluster.settings.remote.is_some() => {
                self.demote().await.map(none)
            }
            Action::Drain => self.drain().await.map(none),
            Action::Stop => self.stop_in_order().await.map(none),
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

    async fn open(&self, basis: &Basis) -> Result<(), ShellError> {
        self.instance.access(Access::Open).await?;
        let standby = self.instance.probe(QUICK).await?.in_recovery;
        match self.tenure.office().filter(|_| standby) {
            // The members of a standby cluster stream from its leader.
            Some(office) => self.serve_members(office.epoch, basis).await,
            None => Ok(()),
        }
    }

    /// The primary of what is a standby cluster now. No way leads around its end.
    async fn demote(&self) -> Result<(), ShellError> {
        if let Err(error) = self.drain().await {
            let error = crate::agent::chain(&error);
            tracing::warn!(error, "the primary did not stop in order: it is killed");
            self.instance.stop(Stop::Immediate, QUICK).await?;
        }
        Ok(())
    }

    fn stops_within(&self) -> Duration {
        self.instance.options().stops_within
    }

    async fn drain(&self) -> Result<(), ShellError> {
        self.run_before_stop().await;
        self.instance.checkpoint(self.stops_within()).await?;
        self.stop_in_order().await
    }

    async fn stop_in_order(&self) -> Result<(), ShellError> {
        Ok(self.instance.stop(Stop::Fast, self.stops_within()).await?)
    }
}
