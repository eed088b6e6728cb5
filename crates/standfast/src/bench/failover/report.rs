//! The figures, as a table for people and as a document for programs.

use super::Topology;
use crate::bench::machine::Machine;
use lab::{Fault, Verdict};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What the client saw of one fault.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    gap_ms: u64,
    errors: usize,
    lost: usize,
    dual_acks: usize,
    acknowledged: usize,
    /// From the end of the cause until the cluster was whole again.
    whole_ms: u64,
    /// Anything else that an audit may find.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

/// All runs of one fault on one topology.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cell {
    topology: &'static str,
    fault: &'static str,
    description: &'static str,
    gap_ms: Spread,
    errors: Spread,
    whole_ms: Spread,
    lost: usize,
    runs: Vec<Sample>,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Spread {
    median: u64,
    min: u64,
    max: u64,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    cells: Vec<Cell>,
}

impl Sample {
    /// `needless`: the primary was changed, and there was no reason to.
    pub(super) fn new(verdict: &Verdict, whole: Duration, needless: bool) -> Self {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            gap_ms: milliseconds(verdict.gap.length),
            errors: verdict.errors,
            lost: verdict.lost.len(),
            dual_acks: verdict.dual_acks.len(),
            acknowledged: verdict.acknowledged,
            whole_ms: milliseconds(whole),
            broken: match verdict.check() {
                Err(error) => Some(format!("{error:#}")),
                Ok(()) => needless.then(|| "the primary was changed for nothing".to_owned()),
            },
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "gap {} ms, {} errors, {} of {} rows lost, whole again after {} ms",
            self.gap_ms, self.errors, self.lost, self.acknowledged, self.whole_ms
        )?;
        match &self.broken {
            Some(broken) => write!(f, "; BROKEN: {broken}"),
            None => Ok(()),
        }
    }
}

impl Cell {
    pub(super) fn new(topology: Topology, fault: Fault, runs: Vec<Sample>) -> Self {
        let spread = |figure: fn(&Sample) -> u64| Spread::of(runs.iter().map(figure).collect());
        Self {
            topology: topology.as_str(),
            fault: fault.as_str(),
            description: fault.describe(),
            gap_ms: spread(|sample| sample.gap_ms),
            errors: spread(|sample| sample.errors as u64),
            whole_ms: spread(|sample| sample.whole_ms),
            lost: runs.iter().map(|sample| sample.lost).sum(),
            runs,
        }
    }
}

impl Spread {
    fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        // Of an even number of runs the worse middle one: a figure should not flatter.
        Self {
            median: at(values.len() / 2),
            min: at(0),
            max: at(last),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} ({}–{})", self.median, self.min, self.max))
    }
}

impl Report {
    pub(super) fn new(machine: Machine, cells: Vec<Cell>) -> Self {
        Self { machine, cells }
    }

    /// Whether no run broke the promise.
    pub(super) fn kept(&self) -> bool {
        self.cells
            .iter()
            .flat_map(|cell| &cell.runs)
            .all(|sample| sample.broken.is_none())
    }

    pub(super) fn table(&self) -> String {
        let Machine {
            cpu,
            cores,
            memory_mb,
            kernel,
            postgres,
            standfast,
        } = &self.machine;
        let mut text = format!(
            "standfast {standfast}, {postgres}, Linux {kernel}, {cores} × {cpu}, {memory_mb} MB\n\
             median (min–max); gap: longest time without an acknowledged row, a row every 10 ms\n\n",
        );
        let row = |cells: [&str; 7]| {
            let [topology, fault, runs, gap, errors, lost, whole] = cells;
            format!(
                "{topology:<11} | {fault:<38} | {runs:>4} | {gap:>20} | {errors:>14} | {lost:>4} | {whole:>22}\n"
            )
        };
        text += &row([
            "topology",
            "fault",
            "runs",
            "gap ms",
            "errors",
            "lost",
            "whole again ms",
        ]);
        text += &format!("{}\n", "-".repeat(131));
        for cell in &self.cells {
            text += &row([
                cell.topology,
                cell.description,
                &cell.runs.len().to_string(),
                &cell.gap_ms.to_string(),
                &cell.errors.to_string(),
                &cell.lost.to_string(),
                &cell.whole_ms.to_string(),
            ]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_does_not_flatter() {
        assert_eq!(
            Spread::of(vec![5, 1, 3]),
            Spread {
                median: 3,
                min: 1,
                max: 5
            }
        );
        assert_eq!(
            Spread::of(vec![4, 1, 3, 2]),
            Spread {
                median: 3,
                min: 1,
                max: 4
            }
        );
        assert_eq!(
            Spread::of(vec![]),
            Spread {
                median: 0,
                min: 0,
                max: 0
            }
        );
    }
}
