//! The reckoning: what every node holds, against what the writers were told.

use super::{DualAck, Gap, History};
use crate::{Cluster, Node, eventually};
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub errors: usize,
    pub unknown: usize,
    /// Unknown rows that turned out to be there.
    pub unknown_found: usize,
    /// Acknowledged rows that a node does not hold: the node's name, writer and number.
    pub lost: Vec<(String, u32, i64)>,
    /// Rows that a node holds more than once.
    pub twice: Vec<(String, u32, i64)>,
    /// Rows that were refused, and are there all the same.
    pub undead: Vec<(String, u32, i64)>,
    /// Nodes that do not hold the same rows as the primary.
    pub different: Vec<String>,
    pub dual_acks: Vec<DualAck>,
    pub gap: Gap,
    pub nodes: Vec<String>,
}

/// Rows with the number of times that each is there.
type Rows = BTreeMap<(u32, i64), i64>;

impl History {
    /// Compares with the primary and, once they have caught up, with every standby.
    pub async fn audit(&self, cluster: &Cluster) -> Result<Verdict> {
        let primary = cluster.primary().await?;
        let standbys = cluster.data_nodes().filter(|node| node.name != primary);
        self.audit_nodes(cluster.node(&primary)?, standbys).await
    }

    /// The same for nodes that no agent looks after.
    pub async fn audit_nodes(
        &self,
        primary: &Node,
        standbys: impl Iterator<Item = &Node>,
    ) -> Result<Verdict> {
        let end: String = primary
            .ask("SELECT pg_current_wal_flush_lsn()::text")
            .await?;
        let truth = rows(primary).await?;
        let mut verdict = self.begin_verdict();
        self.compare(&primary.name, &truth, &mut verdict);
        verdict.unknown_found = self
            .unknown()
            .iter()
            .filter(|row| truth.contains_key(*row))
            .count();
        for standby in standbys {
            caught_up(standby, &end).await?;
            let held = rows(standby).await?;
            self.compare(&standby.name, &held, &mut verdict);
            if held != truth {
                verdict.different.push(standby.name.clone());
            }
        }
        Ok(verdict)
    }

    fn begin_verdict(&self) -> Verdict {
        Verdict {
            acknowledged: self.acknowledged().len(),
            errors: self.errors(),
            unknown: self.unknown().len(),
            dual_acks: self.dual_acks(),
            gap: self.longest_gap(),
            nodes: self.nodes(),
            ..Verdict::default()
        }
    }

    fn compare(&self, node: &str, held: &Rows, verdict: &mut Verdict) {
        let of = |row: &(u32, i64)| (node.to_owned(), row.0, row.1);
        let owed = self.acknowledged();
        verdict
            .lost
            .extend(owed.iter().filter(|row| !held.contains_key(*row)).map(of));
        let refused = self.refused();
        verdict
            .undead
            .extend(refused.iter().filter(|row| held.contains_key(*row)).map(of));
        verdict.twice.extend(
            held.iter()
                .filter(|(_, times)| **times > 1)
                .map(|(row, _)| of(row)),
        );
    }
}

impl Verdict {
    /// Whether the promise was kept: nothing lost, nothing twice, never two at once.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.lost.is_empty(),
            "{} acknowledged rows lost, the first: {:?}",
            self.lost.len(),
            &self.lost[..self.lost.len().min(5)]
        );
        ensure!(self.twice.is_empty(), "rows there twice: {:?}", self.twice);
        ensure!(
            self.undead.is_empty(),
            "refused rows are there: {:?}",
            self.undead
        );
        ensure!(
            self.dual_acks.is_empty(),
            "two nodes acknowledged at once: {:?}",
            self.dual_acks
        );
        ensure!(
            self.different.is_empty(),
            "not the primary's rows: {:?}",
            self.different
        );
        ensure!(self.acknowledged > 0, "no row was acknowledged at all");
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows acknowledged, {} lost, longest gap {} ms, {} errors seen, {} of {} unknown rows found",
            self.acknowledged,
            self.lost.len(),
            self.gap.length.as_millis(),
            self.errors,
            self.unknown_found,
            self.unknown,
        )
    }
}

async fn caught_up(standby: &Node, end: &str) -> Result<()> {
    let what = format!("{} has replayed up to {end}", standby.name);
    eventually(&what, Duration::from_secs(20), async || {
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
        if standby.ask(&question).await? {
            Ok(())
        } else {
            bail!("not yet")
        }
    })
    .await
}

async fn rows(node: &Node) -> Result<Rows> {
    let sql = node.sql().await?;
    let question = "SELECT writer, n, count(*) FROM standfast_ledger GROUP BY writer, n";
    let mut rows = Rows::new();
    for row in sql.query(question, &[]).await? {
        let writer: i32 = row.get(0);
        rows.insert((u32::try_from(writer)?, row.get(1)), row.get(2));
    }
    Ok(rows)
}
