//! A data directory made to fit its leader's: rewound, or cloned.
//!
//! **Invariant:** the note is gone before the directory is touched, and comes back when the directory is whole.

use super::{Basis, QUICK, Report, Shell, ShellError};
use ha::{Epoch, Lineage, NodeName, Relation, Timeline};
use postgres::{Control, CopyMethod, Copying, DataDir, PostgresError, Replace, Stop, Upstream};
use std::sync::atomic::Ordering;

impl Shell {
    pub(super) async fn rewind(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        let upstream = self.upstream(leader, epoch, basis)?;
        self.instance.stop(Stop::Fast, self.stops_within()).await?;
        let old = self.note.forget()?;
        self.rewound.begin()?;
        let rewound = match self.instance.rewind_from(&upstream).await {
            Ok(rewound) => rewound,
            Err(error) => {
                // Not touched yet: what it was is still what it is.
                if let (Some(old), Ok(DataDir::Ready(_))) = (old, self.data_dir().await) {
                    self.rewound.end()?;
                    self.note.write(&old)?;
                }
                return Err(match error {
                    // A leader that was restarted has not been promoted again yet.
                    PostgresError::SourceInRecovery => ShellError::NotNow(error.to_string()),
                    error => error.into(),
                });
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

    pub(super) async fn clone_from(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        let upstream = self.upstream(leader, epoch, basis)?;
        let ha::Initialize::Done(system) = basis.cluster.initialize else {
            return Err(ShellError::NotNow(
                "the cluster is not initialized".to_owned(),
            ));
        };
        self.instance.upstream_slot(&upstream, QUICK).await?;
        self.instance.stop(Stop::Fast, self.stops_within()).await?;
        self.note.forget()?;
        let replace = Replace::Cluster(system);
        for way in &self.instance.options().copies {
            let Copying::Program(method) = way else {
                break;
            };
            match self.copy_by(method, &upstream, lineage, replace).await {
                Ok(()) => {
                    tracing::info!(
                        method = method.name,
                        "the copy is proven to be the leader's"
                    );
                    return self.follow_with(lineage, upstream).await;
                }
                Err(error) => tracing::warn!(
                    method = method.name,
                    error = crate::agent::chain(&error),
                    "a copy is thrown away; the next way to make one is tried"
                ),
            }
        }
        let other = match self.from_leader.swap(false, Ordering::SeqCst) {
            true => None,
            false => self.other_origin(epoch, basis),
        };
        if let Some(other) = other {
            match self
                .copy_another(&other, leader, epoch, basis, replace)
                .await
            {
                Ok(()) => return self.follow_with(lineage, upstream).await,
                Err(error) => tracing::warn!(
                    from = %other.name,
                    error = crate::agent::chain(&error),
                    "a copy of another standby is thrown away; the leader is copied"
                ),
            }
        }
        let (progress, _) = tokio::sync::watch::channel(postgres::CloneProgress::default());
        self.instance
            .clone_from(&upstream, replace, progress)
            .await?;
        self.follow_with(lineage, upstream).await
    }

    /// A standby that offers itself to be copied instead of the leader, and serves this epoch. Of several the one that
    /// the clock picks.
    fn other_origin(&self, epoch: Epoch, basis: &Basis) -> Option<Upstream> {
        let members = basis.cluster.members.iter();
        let offers: Vec<_> = members
            .filter(|(name, member)| {
                let ties = &member.ties;
                **name != self.me && ties.clonefrom && ties.serves == Some(epoch)
            })
            .collect();
        let nth = usize::try_from(crate::clock::now().0 / 1_000).unwrap_or(0);
        let (name, member) = offers.get(nth % offers.len().max(1))?;
        Some(Upstream {
            name: (*name).clone(),
            host: member.host.clone(),
            port: member.port,
            // It keeps what the backup needs for as long as that runs.
            slot: None,
            remote: None,
            timeline: None,
        })
    }

    /// A copy of a standby. **Invariant:** it is of `epoch`'s history: who serves an epoch has noted its lineage, and
    /// takes WAL of another history only once another epoch has begun, which at the end none has.
    async fn copy_another(
        &self,
        other: &Upstream,
        leader: &NodeName,
        epoch: Epoch,
        basis: &Basis,
        replace: Replace,
    ) -> Result<(), ShellError> {
        tracing::info!(from = %other.name, "making a base backup of a standby");
        let (progress, _) = tokio::sync::watch::channel(postgres::CloneProgress::default());
        self.instance.clone_from(other, replace, progress).await?;
        self.take_stance(leader, epoch, basis).await
    }

    /// What was copied is whole.
    async fn follow_with(&self, lineage: &Lineage, upstream: Upstream) -> Result<(), ShellError> {
        self.rewound.end()?;
        self.note.write(lineage)?;
        self.start_following(upstream).await
    }

    /// A copy that a program brings, as far as it can be vouched for.
    async fn copy_by(
        &self,
        method: &CopyMethod,
        upstream: &Upstream,
        lineage: &Lineage,
        replace: Replace,
    ) -> Result<(), ShellError> {
        let instance = &self.instance;
        tracing::info!(method = method.name, "a program copies the leader");
        let control = instance.copy_by(method, upstream, replace).await?;
        let copied = crate::note::copied(&instance.options().data_dir)?;
        vouch(&control, copied, lineage).map_err(ShellError::NotNow)?;
        self.streams.may_come();
        Ok(instance.prove_copy(&control, upstream).await?)
    }
}

/// Whether everything in a copy is part of the leader's history, by the note that came with it. Without one,
/// only what is on the timeline that initdb began is nobody else's: every other number may have been given twice.
fn vouch(control: &Control, copied: Option<Lineage>, leader: &Lineage) -> Result<(), String> {
    let first = leader.branches()[0];
    let (_, end) = control.end();
    let mut timelines = vec![control.timeline];
    if control.min_recovery_end > ha::Lsn::ZERO {
        timelines.push(control.min_recovery_timeline);
    }
    let of_initdb =
        (first.timeline == Timeline(1)).then(|| Lineage::founded(first.timeline, first.epoch));
    let Some(note) = copied.or(of_initdb) else {
        return Err("it has no note that says whose timelines it has".to_owned());
    };
    let named = |timeline: &Timeline| {
        let mut known = note.branches().iter();
        known.any(|branch| branch.timeline == *timeline)
    };
    if let Some(timeline) = timelines.iter().find(|timeline| !named(timeline)) {
        return Err(format!(
            "it is on timeline {timeline}, and has no note that says whose that is"
        ));
    }
    match leader.relation_of(&note, end) {
        Relation::Ancestor => Ok(()),
        Relation::Diverged { fork } => Err(format!(
            "it has WAL after {fork} that is not part of the leader's history"
        )),
        Relation::Foreign => Err("one of its timelines is another one of that number".to_owned()),
    }
}

/// What a rewind discarded, for people.
pub(super) fn summary(report: &postgres::RewindReport) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use ha::Lsn;

    const STOPPED: &str = "\
Database system identifier:           7710809766476697303
Database cluster state:               shut down
Latest checkpoint location:           0/17414F8
Latest checkpoint's TimeLineID:       1
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
Backup start location:                0/0
End-of-backup record required:        no
wal_log_hints setting:                on
Bytes per WAL segment:                16777216
WAL block size:                       8192
Data page checksum version:           1
";

    /// A copy on this timeline, stopped at this place.
    fn control(timeline: u32, end: u64) -> Control {
        let mut control = Control::parse(STOPPED).unwrap();
        control.timeline = Timeline(timeline);
        control.checkpoint = Lsn(end);
        control
    }

    fn lineage(branches: &[(u32, u64, u64)]) -> Lineage {
        let branches = branches.iter();
        let branch = |(timeline, epoch, begins): &(u32, u64, u64)| ha::Branch {
            timeline: Timeline(*timeline),
            epoch: Epoch(*epoch),
            begins: Lsn(*begins),
        };
        Lineage::from_branches(branches.map(branch).collect()).unwrap()
    }

    #[test]
    fn a_copy_is_vouched_for_by_the_note_that_came_with_it() {
        let leader = lineage(&[(1, 1, 0), (2, 4, 100)]);
        let said = |timeline, end, note: Option<&[(u32, u64, u64)]>| {
            vouch(&control(timeline, end), note.map(lineage), &leader)
        };
        assert_eq!(said(1, 90, Some(&[(1, 1, 0)])), Ok(()));
        assert_eq!(said(2, 150, Some(&[(1, 1, 0), (2, 4, 100)])), Ok(()));
        let adopted = lineage(&[(3, 1, 0)]);
        assert!(vouch(&control(3, 90), None, &adopted).is_err());
        assert_eq!(said(1, 90, None), Ok(()));
        for (timeline, end, note, why) in [
            (2, 150, None, "has no note"),
            (1, 150, None, "after 0/64"),
            (2, 150, Some([(1, 1, 0)].as_slice()), "has no note"),
            (1, 150, Some(&[(1, 1, 0)]), "after 0/64"),
            (
                2,
                150,
                Some(&[(1, 1, 0), (2, 3, 100)]),
                "another one of that number",
            ),
        ] {
            let said = said(timeline, end, note).unwrap_err();
            assert!(said.contains(why), "{timeline} {end}: {said}");
        }
    }
}
