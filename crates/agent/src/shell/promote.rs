//! From standby to primary: the note, the setting, the order, and what the new primary owes before others follow it.
//!
//! **Invariant:** the note is written before the first byte of a new branch can arrive.
//! **Invariant:** the lease is asked once more right before the order.

use super::slots::{Giving, permanent, slots};
use super::{Basis, QUICK, Report, START, Shell, ShellError};
use crate::clock::now;
use crate::promotion;
use ha::quorum::{Applied, Setting, SyncRecord};
use ha::{Epoch, Lineage};
use postgres::SyncNames;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::layout::EndedTimeline;

/// The guard arms the watchdog device when it sees the deadline.
const ARMS_WITHIN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

impl Shell {
    pub(super) async fn promote(
        &self,
        epoch: Epoch,
        setting: Option<&Setting>,
    ) -> Result<(), ShellError> {
        self.ask_pre_promote(epoch).await?;
        let old = self
            .note
            .read()
            .ok_or_else(|| ShellError::NotNow("there is no lineage note".to_owned()))?;
        // Who streams from this node knows nothing of the history that begins.
        self.instance.end_streams(QUICK).await?;
        let plan = promotion::plan(&self.instance, QUICK).await?;
        if self.epoch_in_office()? != epoch {
            let why = "another leadership has begun meanwhile";
            return Err(ShellError::NotNow(why.to_owned()));
        }
        self.note.write(&self.promoted(&old, &plan, epoch).await?)?;
        self.instance
            .apply_sync(&until_published(setting, epoch), QUICK)
            .await?;
        if self.instance.has_too_much().await {
            tracing::info!("starting once more, with no more than the configuration asks for");
            self.instance.start_for_promotion(START).await?;
        }
        Box::pin(self.instance.be_reachable(START)).await?;
        self.arm_in_office();
        self.is_watched().await?;
        // Asked once more at the last moment: the lease may have ended while files were written.
        self.still_leads(epoch)?;
        // **Invariant:** nothing is promoted while the configuration says `standby_cluster`.
        if self.is_standby_cluster() {
            let why = "this is a standby cluster: nobody is promoted";
            return Err(ShellError::NotNow(why.to_owned()));
        }
        self.promotion_ordered.set()?;
        let took = self.instance.promote(QUICK * 2).await?;
        tracing::info!(timeline = plan.timeline.0, begins = %plan.begins, ?took, "promoted");
        self.unchecked.store(true, Ordering::SeqCst);
        self.checkpoint_owed.store(true, Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn still_leads(&self, epoch: Epoch) -> Result<(), ShellError> {
        match self.tenure.lease() {
            Some(lease) if lease.epoch == epoch && now() < lease.deadline => Ok(()),
            _ => Err(ShellError::NotNow(
                "the lease ended before the promotion".to_owned(),
            )),
        }
    }

    /// Where the watchdog device must be armed, it is.
    async fn is_watched(&self) -> Result<(), ShellError> {
        if !self.watchdog_required {
            return Ok(());
        }
        let began = now();
        loop {
            let status = self.instance.guard().map(|guard| guard.status());
            match status.map(|status| status.watchdog) {
                Some(guard::WatchdogState::Armed { .. }) => return Ok(()),
                _ if now().since(began) < ARMS_WITHIN => {}
                _ => {
                    let why = "the watchdog device is not armed".to_owned();
                    return Err(ShellError::NotNow(why));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The lineage to be. A timeline of the remote may have come to a standby cluster before its leader noted it: then the
    /// new epoch begins where the last noted one ended.
    async fn promoted(
        &self,
        old: &Lineage,
        plan: &promotion::Plan,
        epoch: Epoch,
    ) -> Result<Lineage, ShellError> {
        let now = self.instance.probe(QUICK).await?.timeline;
        if old.names(now) {
            return Ok(old.promoted(plan.timeline, epoch, plan.begins));
        }
        let history = self.instance.timeline_history(now)?;
        let switches = history.map(|history| history.switches).unwrap_or_default();
        let ended: Vec<_> = switches.iter().map(|it| (it.timeline, it.end)).collect();
        let known = Some((old, plan.begins));
        Ok(Lineage::observed(known, plan.timeline, &ended, epoch))
    }

    /// What a promoted primary owes before others may follow it: a true note, and that they are let in. All of it can be
    /// done again, and is done before the lineage is published: an agent that dies in between finds it unpublished.
    pub(super) async fn publish(
        &self,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        if basis.cluster.led_by_standby() {
            return self.publish_standby(epoch, lineage, basis).await;
        }
        let lineage = self.verified(lineage).await?;
        self.instance.serve_streams(true).await?;
        let permanent = permanent(&self.keys, &basis.snapshot, true);
        let slots = slots(
            &self.me,
            &basis.cluster,
            Giving::Office(epoch),
            &BTreeSet::new(),
            permanent,
        );
        self.instance.ensure_slots(&slots, QUICK).await?;
        if self.roles_missing.is_set() {
            self.instance.ensure_roles(QUICK).await?;
            self.roles_missing.clear()?;
        }
        let ended = self.ended_timelines(&lineage);
        let at = format!("{:.6}", jiff::Timestamp::now()).replace('Z', "+00:00");
        self.step(basis, |steps| steps.publish(epoch, &lineage, &ended, &at))
            .await
    }

    /// A standby leader's lineage is its note: nothing here writes.
    async fn publish_standby(
        &self,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        if !self.instance.probe(QUICK).await?.in_recovery {
            let why = "a primary leads no standby cluster";
            return Err(ShellError::NotNow(why.to_owned()));
        }
        self.serve_members(epoch, basis).await?;
        self.step(basis, |steps| steps.publish(epoch, lineage, &[], ""))
            .await
    }

    /// As PostgreSQL's history file has them. They are for people: without the file the rest goes on.
    fn ended_timelines(&self, lineage: &Lineage) -> Vec<EndedTimeline> {
        let history = self.instance.timeline_history(lineage.newest().timeline);
        let switches = history.ok().flatten().map(|history| history.switches);
        let ended = switches.unwrap_or_default().into_iter();
        ended
            .map(|switch| EndedTimeline {
                timeline: switch.timeline,
                end: switch.end,
                reason: switch.reason,
            })
            .collect()
    }

    /// The lineage with its newest branch as the history file has it: the note was written before the promotion.
    pub(super) async fn verified(&self, noted: &Lineage) -> Result<Lineage, ShellError> {
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
    pub(super) fn checkpoint_soon(&self) {
        let this = self.clone();
        tokio::spawn(async move {
            match this.instance.checkpoint(this.stops_within()).await {
                Ok(()) => this.unchecked.store(false, Ordering::SeqCst),
                Err(error) => {
                    tracing::warn!(
                        error = crate::agent::chain(&error),
                        "no checkpoint after the promotion"
                    );
                    this.checkpoint_owed.store(true, Ordering::SeqCst);
                }
            }
        });
    }

    pub(super) async fn apply(
        &self,
        epoch: Epoch,
        record: Option<SyncRecord>,
    ) -> Result<Report, ShellError> {
        let setting = record.as_ref().map(SyncRecord::newest);
        let applied = self
            .instance
            .apply_sync(&names(setting, epoch), QUICK)
            .await?;
        // Not sooner: a checkpointer in a hurry reads no setting, and where commits need nobody it is the one who lets them go.
        if self.checkpoint_owed.swap(false, Ordering::SeqCst) {
            self.checkpoint_soon();
        }
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
}

/// The names for the time from the promotion until the lineage is published.
///
/// **Invariant:** a leader acknowledges nothing before its lineage is published. Clients of the standby that it was are in
/// and write at once, and who claims after it goes by what is published. Standbys of the setting stream only after
/// that; where the setting needs nobody, commits wait until it is applied.
fn until_published(setting: Option<&Setting>, epoch: Epoch) -> SyncNames {
    match setting {
        Some(setting) if setting.is_alone() => SyncNames::nobody(),
        _ => names(setting, epoch),
    }
}

/// The names that Postgres is to wait for.
fn names(setting: Option<&Setting>, epoch: Epoch) -> SyncNames {
    match setting {
        Some(setting) if !setting.is_alone() => {
            let standbys = setting.standbys.iter();
            SyncNames::any(
                setting.needed,
                standbys.map(|name| name.stream_of_epoch(epoch)),
            )
        }
        Some(_) | None => SyncNames::none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::NodeName;

    fn setting(standbys: &[&str]) -> Setting {
        let name = |name: &str| NodeName::new(name).unwrap();
        let mut setting = Setting::alone(name("a"));
        setting.standbys = standbys.iter().map(|it| name(it)).collect();
        setting.needed = setting.standbys.len().min(1);
        setting
    }

    #[test]
    fn commits_wait_for_the_lineage_even_where_they_will_need_nobody() {
        let until = |setting: Option<&Setting>| until_published(setting, Epoch(3)).setting();
        let nobody = r#"ANY 1 ("nobody until the lineage is published")"#;
        assert_eq!(until(Some(&setting(&[]))), nobody);
        assert_eq!(until(Some(&setting(&["b"]))), r#"ANY 1 ("b_e3")"#);
        assert_eq!(until(None), "", "asynchronous");
        assert_eq!(names(Some(&setting(&[])), Epoch(3)).setting(), "");
    }
}
