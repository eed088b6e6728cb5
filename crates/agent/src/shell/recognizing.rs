//! An epoch on behalf of a leader of Patroni's, which writes none.
//!
//! **Invariant:** one epoch stands for one timeline of one leader: a leader whose timeline is the one that its epoch
//! names keeps the epoch, however often it has taken its key anew.
//! **Invariant:** an older epoch is named only for WAL that is, byte by byte, the leader's.
//! It does not know why it is done, nor who follows.

use super::{Basis, QUICK, Shell, ShellError};
use ha::{Epoch, Lineage, Lsn, NodeName, Timeline};
use postgres::Liveness;
use store::layout::{EpochRecord, Keys};

impl Shell {
    pub(super) async fn recognize(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        let upstream = self.upstream(leader, epoch, basis)?;
        let info = self.instance.upstream_info(&upstream, QUICK).await?;
        if basis.cluster.initialize != ha::Initialize::Done(info.system_id) {
            return Err(ShellError::NotNow(format!(
                "what answers as {leader} is of another cluster, {}",
                info.system_id
            )));
        }
        if info.in_recovery {
            return Err(ShellError::NotNow(format!("{leader} is not promoted yet")));
        }
        let known = basis.cluster.lineage.as_ref().map(|it| &it.lineage);
        let (epoch, lineage) = match known {
            Some(known) if is_the_same(basis, &self.keys, leader, info.timeline) => {
                (basis.cluster.current_epoch(), known.clone())
            }
            _ => {
                let switches = info.history.switches.iter();
                let ended: Vec<(Timeline, Lsn)> =
                    switches.map(|it| (it.timeline, it.end)).collect();
                let note = self.note.read();
                let runs = matches!(self.instance.liveness(), Liveness::Up { .. });
                let same = match note.is_some() && runs {
                    true => self.instance.compare_wal(&upstream, QUICK).await?.same(),
                    false => None,
                };
                let compared = note.as_ref().zip(same);
                let lineage = Lineage::observed(compared, info.timeline, &ended, epoch);
                (epoch, lineage)
            }
        };
        self.step(basis, |steps| steps.recognize(leader, epoch, &lineage))
            .await
    }
}

/// Whether the present epoch was recorded for this very timeline of this leader.
fn is_the_same(basis: &Basis, keys: &Keys, leader: &NodeName, timeline: Timeline) -> bool {
    let record = basis.snapshot.value(&keys.epoch());
    let record = record.and_then(|text| serde_json::from_str::<EpochRecord>(text).ok());
    let newest = basis.cluster.lineage.as_ref();
    let newest = newest.map(|it| *it.lineage.newest());
    let (Some(record), Some(newest)) = (record, newest) else {
        return false;
    };
    let named = (newest.epoch, newest.timeline) == (record.epoch, timeline);
    record.patroni && record.leader == *leader && named
}
