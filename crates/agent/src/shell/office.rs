//! Into an office and out of it: claim, reattach, promise, release, leave.
//!
//! **Invariant:** the deadline of an office counts from before the transaction that began it was sent.
//! It does not know what Postgres does in an office.

use super::{Basis, QUICK, Report, Shell, ShellError};
use crate::clock::now;
use crate::tenure::{Enforcer, Session};
use ha::{Claim, Epoch, Promise};
use postgres::Stop;
use store::Txn;

impl Shell {
    pub(super) fn session(&self) -> Result<Session, ShellError> {
        self.tenure
            .session()
            .ok_or_else(|| ShellError::NotNow("no lease is held yet".to_owned()))
    }

    /// Commits what begins a leadership, and arms the guard. The deadline counts from before it was sent.
    pub(super) async fn take_office(
        &self,
        epoch: Epoch,
        standby: bool,
        txn: Txn,
        session: Session,
    ) -> Result<(), ShellError> {
        let sent = now();
        self.commit(txn).await?;
        self.tenure.take_office(epoch, standby, session, sent);
        self.arm_in_office();
        Ok(())
    }

    /// Arms the guard of the instance, also of one that was started while this node holds an office.
    pub(super) fn arm_in_office(&self) {
        self.tenure
            .in_office(|office| self.instance.arm(office.epoch, office.deadline));
    }

    pub(super) fn disarm(&self) {
        if let Some(guard) = self.instance.guard() {
            guard.disarm();
        }
    }

    pub(super) fn epoch_in_office(&self) -> Result<Epoch, ShellError> {
        let office = self.tenure.office();
        office
            .map(|office| office.epoch)
            .ok_or_else(|| ShellError::NotNow("the leadership has ended meanwhile".to_owned()))
    }

    pub(super) async fn claim(&self, claim: &Claim, basis: &Basis) -> Result<(), ShellError> {
        let session = self.session()?;
        self.note_who_led(claim.epoch, basis);
        let txn = self.steps(basis).claim(claim, session.lease);
        self.take_office(claim.epoch, claim.standby, txn, session)
            .await?;
        self.resume_replay();
        Ok(())
    }

    /// Replay that a person has paused would keep the promotion waiting, and with it the cluster.
    fn resume_replay(&self) {
        let instance = self.instance.clone();
        tokio::spawn(async move {
            if let Err(error) = instance.resume_replay(QUICK).await {
                tracing::debug!(error = crate::agent::chain(&error), "replay is not resumed");
            }
        });
    }

    pub(super) async fn reattach(&self, epoch: Epoch, basis: &Basis) -> Result<(), ShellError> {
        let session = self.session()?;
        let txn = self.steps(basis).reattach(session.lease);
        let sent = now();
        self.commit(txn).await?;
        let standby = basis.cluster.led_by_standby();
        self.tenure.take_office(epoch, standby, session, sent);
        self.arm_in_office();
        self.resume_replay();
        Ok(())
    }

    /// An agent that restarts sees a standby; that its predecessor has ordered the promotion of this very Postgres, only
    /// the marker tells.
    pub(super) async fn end_ordered_promotion(&self) -> Result<(), ShellError> {
        if !self.promotion_ordered.is_set() {
            return Ok(());
        }
        if self.instance.liveness() == postgres::Liveness::Down {
            return Ok(self.promotion_ordered.clear()?);
        }
        self.instance.stop(Stop::Immediate, QUICK).await?;
        self.promotion_ordered.clear()?;
        let why = "a promotion may be under way: Postgres is started anew first";
        Err(ShellError::NotNow(why.to_owned()))
    }

    /// **Invariant:** no promise is written beside a promotion that may still be under way.
    pub(super) async fn promise(
        &self,
        promise: &Promise,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        self.end_ordered_promotion().await?;
        self.step(basis, |steps| steps.promise(promise)).await?;
        Ok(Report {
            promised: true,
            ..Report::default()
        })
    }

    /// **Invariant:** leadership is released only when no process of the instance is left.
    pub(super) async fn release(&self, epoch: Epoch, basis: &Basis) -> Result<(), ShellError> {
        if self.instance.liveness() != postgres::Liveness::Down {
            return Err(ShellError::NotNow(
                "processes of the instance are still there".to_owned(),
            ));
        }
        self.tenure.leave_office(epoch);
        self.step(basis, |steps| steps.release()).await
    }

    pub(super) async fn leave(&self, basis: &Basis) -> Result<Report, ShellError> {
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
