//! What a person asks of this node alone: a restart, now or later, a new base backup.
//!
//! **Invariant:** an errand only stands in the view; whether and when it is done is decided by `ha`.
//! **Invariant:** everybody who asked is answered: by what happened, or by why it did not.

use super::Agent;
use crate::clock::now;
use api::errand::{Ask, Errand, Restart};
use api::v1::Code;
use api::{Due, Refusal};
use ha::{Action, ClusterView, Decision, Instant, Job, Postgres};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use store::{Outcome, Snapshot};
use tokio::sync::oneshot;

/// So long an errand may stand without being begun.
const BEGINS: Duration = Duration::from_secs(10);
/// So long Postgres may take to be back, unless the errand says otherwise.
const RETURNS: Duration = Duration::from_secs(300);

type Answer = oneshot::Sender<Result<(), Refusal>>;

/// What stands, and what waits for its time.
#[derive(Debug, Default)]
pub(super) struct Errands {
    standing: Option<Standing>,
    later: Option<Later>,
}

#[derive(Debug)]
struct Standing {
    errand: ha::Errand,
    /// Gone when it was answered, or when nobody waits.
    answer: Option<Answer>,
    /// When it is given up.
    until: Instant,
    returns: Duration,
}

#[derive(Debug)]
struct Later {
    restart: Restart,
    /// It is meant for this start of Postgres only.
    started: Option<String>,
}

impl Errands {
    /// What is left of the standing errand, with the instance found like this.
    pub(super) fn look(&mut self, postgres: &Postgres, at: Instant) -> Option<ha::Errand> {
        let standing = self.standing.as_mut()?;
        match standing.errand.left(postgres) {
            Some(left) => {
                if left != standing.errand {
                    standing.until = at.plus(standing.returns);
                }
                standing.errand = left;
                Some(left)
            }
            None => {
                self.end(Ok(()));
                None
            }
        }
    }

    fn stand(&mut self, errand: ha::Errand, answer: Option<Answer>, returns: Duration) {
        self.standing = Some(Standing {
            errand,
            answer,
            until: now().plus(BEGINS),
            returns,
        });
    }

    /// The errand is over.
    fn end(&mut self, result: Result<(), Refusal>) {
        let answer = self.standing.take().and_then(|standing| standing.answer);
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
    }

    /// Gives up what was not begun or did not come back.
    fn give_up(&mut self, decision: &Decision, failed: bool, at: Instant) {
        let Some(standing) = &self.standing else {
            return;
        };
        let late = at > standing.until;
        let why = match standing.errand {
            ha::Errand::Restarting if failed || late => "restart failed".to_owned(),
            ha::Errand::Restart if late => format!("restart failed: {}", decision.reason),
            ha::Errand::Reinitialize if late => {
                format!("reinitialize failed: {}", decision.reason)
            }
            _ => return,
        };
        tracing::warn!(why, "what was asked for was not done");
        self.end(Err(unavailable(why)));
    }

    /// A base backup was begun: that is what who asked for it wants to know.
    pub(super) fn begun(&mut self, job: Job) {
        if let Some(standing) = &mut self.standing
            && standing.errand == ha::Errand::Reinitialize
            && job == Job::Clone
        {
            standing.until = Instant(u64::MAX);
            if let Some(answer) = standing.answer.take() {
                let _ = answer.send(Ok(()));
            }
        }
    }

    /// A base backup ended, well or not: what follows is the rules' own.
    pub(super) fn ended(&mut self, action: &Action) {
        let reinitializing = self
            .standing
            .as_ref()
            .is_some_and(|it| it.errand == ha::Errand::Reinitialize);
        if reinitializing && matches!(action, Action::Clone { .. }) {
            self.end(Ok(()));
        }
    }

    /// As Patroni shows it in the member's key and in the status.
    pub(super) fn shown(&self) -> Option<serde_json::Value> {
        let later = self.later.as_ref()?;
        let mut shown = later.restart.asked.clone();
        let at = later.restart.at.as_ref()?;
        shown.insert("schedule".to_owned(), at.text.clone().into());
        if let Some(started) = &later.started {
            shown.insert("postmaster_start_time".to_owned(), started.clone().into());
        }
        Some(shown.into())
    }
}

fn unavailable(why: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unavailable, why)
}

impl Agent {
    /// Somebody asks for something.
    pub(super) fn asked(&mut self, errand: Errand) {
        let Errand { ask, answer } = errand;
        let result = match ask {
            Ask::Restart(restart) => {
                if restart.at.is_some() {
                    self.restart_later(restart)
                } else {
                    return self.restart_now(&restart, answer);
                }
            }
            Ask::CancelRestart => match self.errands.later.take() {
                Some(_) => Ok(()),
                None => Err(Refusal::new(Code::NotFound, "no restarts are scheduled")),
            },
            Ask::Reinitialize { force, from_leader } => {
                return self.reinitialize(force, from_leader, answer);
            }
        };
        let _ = answer.send(result);
    }

    fn restart_now(&mut self, restart: &Restart, answer: Answer) {
        if self.errands.standing.is_some() {
            let _ = answer.send(Err(unavailable("restart already in progress")));
            return;
        }
        let returns = restart.timeout.unwrap_or(RETURNS);
        self.errands
            .stand(ha::Errand::Restart, Some(answer), returns);
    }

    fn restart_later(&mut self, restart: Restart) -> Result<(), Refusal> {
        if self.errands.later.is_some() {
            let error = "Another restart is already scheduled";
            return Err(Refusal::new(Code::Conflict, error));
        }
        let started = self.shown.started();
        self.errands.later = Some(Later { restart, started });
        Ok(())
    }

    fn reinitialize(&mut self, force: bool, from_leader: bool, answer: Answer) {
        let cloning = self
            .memory
            .running
            .as_ref()
            .is_some_and(|running| running.job == Job::Clone);
        if self.errands.standing.is_some() || (cloning && !force) {
            let _ = answer.send(Err(unavailable("reinitialize already in progress")));
            return;
        }
        if cloning && let Some(running) = self.memory.running.take() {
            running.task.abort();
            self.memory.fresh_from = now();
        }
        self.shell.from_leader.store(from_leader, Ordering::SeqCst);
        self.errands
            .stand(ha::Errand::Reinitialize, Some(answer), RETURNS);
    }

    /// What has come of the errands by now. Gives how long nothing more is due.
    pub(super) fn run_errands(
        &mut self,
        view: &ClusterView,
        snapshot: &Snapshot,
        decision: &Decision,
        at: Instant,
    ) -> Option<Duration> {
        let failed = self.memory.start_failures > 0;
        self.errands.give_up(decision, failed, at);
        if let Some(running) = &self.memory.running {
            self.errands.begun(running.job);
        }
        let restart = self.restart_if_due();
        let switchover = self.switch_over_if_due(view, snapshot);
        [restart, switchover].into_iter().flatten().min()
    }

    fn restart_if_due(&mut self) -> Option<Duration> {
        let later = self.errands.later.as_ref()?;
        let at = later.restart.at.as_ref()?.at;
        if self.shown.started() != later.started {
            tracing::info!("Postgres was restarted meanwhile: the scheduled restart is dropped");
            self.errands.later = None;
            return None;
        }
        if let Ok(left) = at.duration_since(SystemTime::now()) {
            return Some(left);
        }
        let later = self.errands.later.take()?;
        match self.shown.due(&later.restart) {
            Ok(()) if self.errands.standing.is_none() => {
                tracing::info!("the scheduled restart is due");
                let returns = later.restart.timeout.unwrap_or(RETURNS);
                self.errands.stand(ha::Errand::Restart, None, returns);
            }
            Ok(()) => {}
            Err(why) => tracing::info!(why, "the scheduled restart is not done"),
        }
        None
    }

    /// The leader makes an order for later one for now, at its time.
    fn switch_over_if_due(&mut self, view: &ClusterView, snapshot: &Snapshot) -> Option<Duration> {
        let ClusterView::Known(cluster) = view else {
            return None;
        };
        if cluster.leader.as_ref() != Some(&self.name) || self.tenure.lease().is_none() {
            return None;
        }
        let due = api::due(&self.shell.keys, snapshot, &self.name, SystemTime::now())?;
        let (txn, missed) = match due {
            Due::In(left) => return Some(left),
            Due::Now(txn) => (txn, None),
            Due::Missed(txn, why) => (txn, Some(why)),
        };
        let revision = snapshot.revision;
        if self.memory.ordered_at == Some(revision) {
            return None;
        }
        self.memory.ordered_at = Some(revision);
        let store = std::sync::Arc::clone(&self.shell.store);
        tokio::spawn(async move {
            match (store.commit(txn).await, missed) {
                (Ok(Outcome::Committed { .. }), None) => {
                    tracing::info!("the scheduled switchover is due");
                }
                (Ok(Outcome::Committed { .. }), Some(why)) => {
                    tracing::warn!(why, "a scheduled switchover was removed");
                }
                (Ok(Outcome::Refused) | Err(_), _) => {}
            }
        });
        None
    }
}
