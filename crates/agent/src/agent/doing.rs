//! Starts what was decided, at most one action at a time, and hears how it ended.
//!
//! **Invariant:** only a fence cuts off a running action.
//! **Invariant:** an action that ended makes every observation from before its end out of date.

use super::memory::Running;
use super::{Agent, chain, troubles};
use crate::clock::now;
use crate::shell::{self, Basis, Report, ShellError};
use ha::{Action, Cluster, ClusterView, Decision, Instant, Job, NodeView, Postgres};
use postgres::PostgresError;
use std::sync::Arc;
use std::time::Duration;
use store::Snapshot;

/// A kill that takes longer than this is stuck in the kernel.
const UNKILLABLE: Duration = Duration::from_millis(500);

/// How long a node whose `pre_promote` refuses leaves the leadership to others, at least.
const STANDS_BACK: Duration = Duration::from_secs(10);

pub(super) struct Done {
    pub(super) number: u64,
    pub(super) action: Action,
    pub(super) result: Result<Report, ShellError>,
}

impl Agent {
    pub(super) fn begin(
        &mut self,
        decision: &Decision,
        view: &ClusterView,
        snapshot: &Arc<Snapshot>,
    ) {
        let Some(action) = decision.actions.first().cloned() else {
            return;
        };
        let fence = matches!(action, Action::Fence);
        let troubled = |(name, _, until): &(&str, u32, Instant)| {
            *name == shell::name(&action) && now() < *until
        };
        if !fence && self.memory.trouble.as_ref().is_some_and(troubled) {
            return;
        }
        match &self.memory.running {
            Some(running) if fence && running.job != Job::Stop => running.task.abort(),
            Some(_) => return,
            None => {}
        }
        // From here on its word and a leader's that has lost the store exclude each other.
        if let (Action::Promise(_) | Action::Claim(_), ClusterView::Known(cluster)) =
            (&action, view)
            && !self.shell.holds.speak(cluster.current_epoch())
        {
            return;
        }
        if fence && let Some(guard) = self.shell.instance.guard() {
            guard.fence();
        }
        let cluster = match view {
            ClusterView::Known(cluster) => (**cluster).clone(),
            ClusterView::Silent { .. } => Cluster::default(),
        };
        let job = if fence {
            Job::Stop
        } else {
            shell::job(&action)
        };
        if matches!(action, Action::Apply { .. }) {
            self.memory.applied = None;
        }
        let basis = Basis {
            snapshot: Arc::clone(snapshot),
            cluster,
        };
        let (shell, report) = (self.shell.clone(), self.report.clone());
        self.memory.begun += 1;
        let number = self.memory.begun;
        let doing = action.clone();
        let task = tokio::spawn(async move {
            let result = shell.act(doing.clone(), &basis).await;
            let _ = report.send(Done {
                number,
                action: doing,
                result,
            });
        });
        self.memory.running = Some(Running {
            number,
            job,
            action,
            task,
        });
    }

    /// An action that panicked never reports: it has failed, and must not hold the loop for ever.
    pub(super) fn notice_a_dead_action(&mut self) {
        // Whoever reports does so before the task ends.
        if self.done.is_empty()
            && let Some(Running { number, action, .. }) = self.memory.take_dead()
        {
            let result = Err(ShellError::Panicked);
            self.finish(Done {
                number,
                action,
                result,
            });
        }
    }

    pub(super) fn finish(&mut self, done: Done) {
        // An action that a fence cut off may still have reported; the fence is what runs now.
        if self
            .memory
            .running
            .as_ref()
            .is_some_and(|running| running.number == done.number)
        {
            self.memory.running = None;
        }
        self.memory.fresh_from = now();
        self.errands.ended(&done.action);
        self.poke.notify_one();
        match done.result {
            Ok(report) => self.succeeded(&done.action, report),
            Err(error) => self.failed(&done.action, &error),
        }
    }

    pub(super) fn succeeded(&mut self, action: &Action, report: Report) {
        self.memory.left |= report.left;
        if let Action::Claim(claim) = action {
            self.count_claim(claim);
        }
        // Only its own success ends an action's trouble: between two starts that fail a fence succeeds each time.
        if self
            .memory
            .trouble
            .is_some_and(|(name, _, _)| name == shell::name(action))
        {
            self.memory.trouble = None;
            self.memory.failure = None;
        }
        if let Some(applied) = report.applied {
            self.memory.applied = Some(applied);
        }
        if let (true, Action::Promise(promise)) = (report.promised, action) {
            self.memory.promised = Some((promise.epoch, now()));
        }
        if let Some(detail) = report.detail {
            tracing::info!(detail, "done");
            if matches!(action, Action::Rewind { .. }) {
                self.events.detail(detail);
            }
        }
    }

    pub(super) fn failed(&mut self, action: &Action, error: &ShellError) {
        let starts = matches!(
            action,
            Action::Park
                | Action::Rejoin { .. }
                | Action::Clone { .. }
                | Action::Rewind { .. }
                | Action::Bootstrap
        );
        let instance = &self.shell.instance;
        match error {
            // Somebody else was faster, or the moment has passed: the next decision sees it.
            ShellError::Refused | ShellError::NotNow(_) => {
                tracing::debug!(error = chain(error), "the action did not apply any more");
            }
            ShellError::Barred(error) => self.stand_back(error),
            ShellError::Store(error) if error.is_retryable() => {
                tracing::info!(error = chain(error), "the store did not answer");
            }
            // That it died is said elsewhere, and nothing is wrong with what was being done to it.
            ShellError::Postgres(error)
                if !starts && !matches!(instance.liveness(), postgres::Liveness::Up { .. }) =>
            {
                let action = shell::name(action);
                tracing::info!(action, error = chain(error), "Postgres ended meanwhile");
            }
            ShellError::Store(_)
            | ShellError::Postgres(_)
            | ShellError::Note(_)
            | ShellError::Panicked => {
                if starts {
                    self.memory.start_failures += 1;
                }
                let action = shell::name(action);
                self.back_off(action);
                self.memory.failure = Some((action, troubles::told(error)));
                tracing::warn!(
                    action,
                    error = chain(error),
                    "the action failed and is decided anew"
                );
            }
        }
    }

    /// `pre_promote` has said no: it is not asked again at once, so that another node leads if one can.
    ///
    /// What it has printed is for this node's log, and for nobody who reads the store.
    fn stand_back(&mut self, error: &PostgresError) {
        tracing::warn!(
            error = chain(error),
            "not promoted: another node shall lead"
        );
        let why = match error {
            PostgresError::Program { status, .. } => format!("pre_promote has refused ({status})"),
            PostgresError::Timeout { .. } => "pre_promote has taken too long".to_owned(),
            _ => "pre_promote can't be run".to_owned(),
        };
        self.memory.barred = Some((why, now()));
    }

    /// As long as Patroni does it: for one `ttl`, from when the leadership was let go.
    pub(super) fn barred(&mut self, view: &ClusterView, at: Instant) -> Option<String> {
        let ttl = match view {
            ClusterView::Known(cluster) => cluster.settings.ttl,
            ClusterView::Silent { .. } => Duration::ZERO,
        };
        let (why, since) = self.memory.barred.as_mut()?;
        if at.since(*since) >= ttl.max(STANDS_BACK) {
            self.memory.barred = None;
            return None;
        }
        if self.tenure.office().is_some() {
            *since = at;
        }
        Some(why.clone())
    }

    /// Processes in an uninterruptible wait (a dead disk) outlive every kill. The office then ends by its lease: it is
    /// no longer renewed, and not released either while they live.
    pub(super) fn give_up_on_the_unkillable(&mut self, me: &NodeView, at: Instant) {
        self.tell_of_a_fence();
        let killing = matches!(me.job, None | Some(Job::Stop));
        let stuck = killing && matches!(me.postgres, Postgres::Down { leftovers } if leftovers > 0);
        if !stuck {
            self.memory.stuck_since = None;
            return;
        }
        let long = at.since(*self.memory.stuck_since.get_or_insert(at)) > UNKILLABLE;
        if let (true, Some(lease)) = (long, me.lease) {
            tracing::warn!(
                epoch = lease.epoch.0,
                "processes can't be killed: the lease is left to end"
            );
            self.tenure.let_end();
        }
    }

    /// Whoever looks for why Postgres died should not have to look in another log.
    fn tell_of_a_fence(&mut self) {
        let Some(status) = self.shell.instance.guard().map(|guard| guard.status()) else {
            return;
        };
        let guard = status.guard.as_raw_pid();
        if status.cause == Some(guard::Cause::Deadline) && self.memory.fenced_by != Some(guard) {
            self.memory.fenced_by = Some(guard);
            tracing::warn!("the lease ended before it was renewed: the guard has killed Postgres");
        }
    }

    /// What failed is not tried again at once: after 0.2 s, doubling to 5 s; a first data directory after 5 s, to 60 s.
    pub(super) fn back_off(&mut self, action: &'static str) {
        let times = match self.memory.trouble {
            Some((name, times, _)) if name == action => (times + 1).min(5),
            Some(_) | None => 0,
        };
        // To restore a backup again is no small thing, and somebody may have to mend it first.
        let (first, longest) = match action {
            "bootstrap" => (Duration::from_secs(5), Duration::from_secs(60)),
            _ => (Duration::from_millis(200), Duration::from_secs(5)),
        };
        let pause = (first * 2_u32.pow(times)).min(longest);
        self.memory.trouble = Some((action, times, now().plus(pause)));
    }
}
