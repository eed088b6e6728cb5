//! A data directory made to fit its leader's: rewound, or cloned.
//!
//! **Invariant:** the note is gone before the directory is touched, and comes back when the directory is whole.

use super::{Basis, QUICK, Report, STOP, Shell, ShellError};
use ha::{Epoch, Lineage, NodeName};
use postgres::{DataDir, Replace, Stop};

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
        self.instance.stop(Stop::Fast, STOP).await?;
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
        self.instance.stop(Stop::Fast, STOP).await?;
        self.note.forget()?;
        let (progress, _) = tokio::sync::watch::channel(postgres::CloneProgress::default());
        self.instance
            .clone_from(&upstream, Replace::Cluster(system), progress)
            .await?;
        self.rewound.end()?;
        self.note.write(lineage)?;
        self.start_following(upstream).await
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
