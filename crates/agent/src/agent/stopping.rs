//! How an agent stops: Postgres first, then the leadership is let go, then its lease. In a paused cluster it may only
//! leave: then guard, Postgres and lease are as after its death, and the next agent finds them so.
//!
//! **Invariant:** while Postgres is being stopped in order the lease goes on being renewed.
//! **Invariant:** a lease that leadership hangs on is given back only when no process of the instance is left.
//! It does not know why it was asked to stop.

use super::{Agent, StopOrder, chain};
use crate::clock::now;
use crate::shell::{Basis, Report, ShellError};
use ha::{Action, Job, Storage};
use postgres::Liveness;
use std::sync::Arc;
use std::time::Duration;
use store::layout::read_cluster;

/// How long a start under way is waited for when the agent stops.
const START_ENDS: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(250);

/// Storage that fails for so long gets no orderly stop: on a disk that hangs it would take minutes.
const STORAGE_FAILS_FOR: Duration = Duration::from_millis(250);

impl Agent {
    /// A start under way is waited for: cut off, it would leave a Postgres that nobody looks after.
    pub(super) async fn end_running(&mut self) {
        let Some(mut running) = self.memory.running.take() else {
            return;
        };
        let starts = matches!(
            running.job,
            Job::Park | Job::Bootstrap | Job::Follow | Job::Promote | Job::Rewind
        );
        if starts {
            let deadline = now().plus(START_ENDS);
            while now() < deadline && !running.task.is_finished() {
                self.tenure.turned(now());
                let _ = tokio::time::timeout(TICK, &mut running.task).await;
            }
        }
        running.task.abort();
    }

    /// Whether waiting for a clean stop would only keep others from leading: what was acknowledged, they have too.
    fn storage_is_gone(&self, basis: &Basis) -> bool {
        let failing = match &*self.storage.borrow() {
            Storage::Failing { since, .. } => now().since(*since) >= STORAGE_FAILS_FOR,
            Storage::Healthy => false,
        };
        failing && basis.cluster.sync.is_some()
    }

    /// Does an action while the lease goes on being renewed; a second order to stop, or storage that fails, makes it a
    /// fence.
    pub(super) async fn act_to_the_end(
        &mut self,
        action: Action,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        let mut stop = self.stop.clone();
        stop.mark_unchanged();
        let shell = self.shell.clone();
        let doing = shell.act(action, basis);
        tokio::pin!(doing);
        loop {
            self.tenure.turned(now());
            tokio::select! {
                result = &mut doing => return result,
                changed = stop.changed() => {
                    if changed.is_ok() && *stop.borrow() == Some(StopOrder::AtOnce) {
                        return self.shell.act(Action::Fence, basis).await;
                    }
                }
                () = tokio::time::sleep(TICK) => {}
            }
            if self.storage_is_gone(basis) {
                tracing::warn!("the storage fails: Postgres is not stopped in order");
                // Whether its processes can be killed, only the disk knows; nobody shall wait for that.
                self.tenure.let_end();
                return self.shell.act(Action::Fence, basis).await;
            }
        }
    }

    pub(super) async fn stop_as(&mut self, how: StopOrder) {
        self.end_running().await;
        let snapshot = Arc::clone(&self.view.borrow());
        let snapshot = self.shell.known.over(&self.shell.keys, &snapshot);
        let cluster = read_cluster(&self.shell.keys, &snapshot).unwrap_or_default();
        let runs = matches!(
            self.shell.instance.liveness(),
            Liveness::Up { guarded: true, .. }
        );
        if how == StopOrder::UnlessPaused && cluster.settings.paused && runs {
            let leads = match self.tenure.office() {
                Some(_) => "; its guard ends it unless an agent is back before the lease ends",
                None => "",
            };
            tracing::info!("the cluster is paused: Postgres runs on without an agent{leads}");
            return;
        }
        self.hand_over_and_stop(how, Basis { snapshot, cluster })
            .await;
    }

    /// Stops in order: a leader hands over first, its standbys get everything.
    async fn hand_over_and_stop(&mut self, how: StopOrder, basis: Basis) {
        let office = self.tenure.office();
        // Where nothing runs there is nobody to be given everything.
        let drains = office.is_some() && self.shell.instance.liveness() != Liveness::Down;
        let stop = match how {
            StopOrder::AtOnce => Action::Fence,
            StopOrder::InOrder | StopOrder::UnlessPaused if drains => Action::Drain,
            StopOrder::InOrder | StopOrder::UnlessPaused => Action::Stop,
        };
        tracing::info!("stopping Postgres");
        if let Err(error) = self.act_to_the_end(stop, &basis).await {
            tracing::warn!(error = chain(&error), "Postgres did not stop in order");
        }
        // A start that was just under way may have brought it back, too.
        tokio::time::sleep(TICK).await;
        if self.shell.instance.liveness() != Liveness::Down {
            let _ = self.shell.act(Action::Fence, &basis).await;
        }
        if self.shell.instance.liveness() != Liveness::Down {
            // Not even killed, on a disk that hangs: the lease runs out, and the guard stays.
            tracing::warn!("processes can't be killed: the lease is left to end");
            return self.tenure.let_end();
        }
        if let Some(office) = office {
            let why = format!("the agent of {} was stopped", self.name);
            if let Err(error) = self
                .shell
                .act(
                    Action::Release {
                        epoch: office.epoch,
                        why,
                    },
                    &basis,
                )
                .await
            {
                tracing::warn!(error = chain(&error), "the leadership was not released");
            }
        }
        if let Some(session) = self.tenure.session() {
            let _ = self.shell.store.revoke(session.lease).await;
        }
    }
}
