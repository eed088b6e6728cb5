//! A node without a note, as one that Patroni ran before: whose WAL it holds, its bytes tell.
//!
//! **Invariant:** a note is written for a directory that has none only if the end of its WAL is, byte by byte, what the
//! leader has there.
//! It does not know why the note is missing.

use super::{Basis, QUICK, Report, Shell, ShellError};
use ha::{Epoch, Lineage, NodeName};
use postgres::Compared;

impl Shell {
    pub(super) async fn compare(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        let upstream = self.upstream(leader, epoch, basis)?;
        let compared = self.instance.compare_wal(&upstream, QUICK).await?;
        tracing::info!(leader = %leader, "{compared}");
        match compared {
            Compared::Same { .. } => {
                self.follow(leader, epoch, lineage, None, basis).await?;
                Ok(Report::default())
            }
            Compared::Parted { .. } => self.rewind(leader, epoch, lineage, basis).await,
            Compared::Unknown { .. } => {
                self.clone_from(leader, epoch, lineage, basis).await?;
                Ok(Report {
                    detail: Some(compared.to_string()),
                    ..Report::default()
                })
            }
        }
    }
}
