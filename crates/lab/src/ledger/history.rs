//! What the writers did and were told, and what can be said from that alone. Plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

/// What became of an insert, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// The server said that it did not happen, or no server was found.
    Failed,
    /// The answer did not come, or left doubt.
    Unknown,
}

/// One attempt. Times count from the moment the ledger was opened.
#[derive(Clone, Debug)]
pub struct Operation {
    pub writer: u32,
    /// The row's number; none when there was no node to send a row to.
    pub n: Option<i64>,
    pub invoked: Duration,
    pub answered: Duration,
    pub outcome: Outcome,
    pub node: String,
    pub timeline: String,
    pub error: Option<String>,
}

/// Everything that the writers did.
#[derive(Clone, Debug)]
pub struct History {
    operations: Vec<Operation>,
    length: Duration,
}

/// The longest time without an acknowledged row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    pub from: Duration,
    pub length: Duration,
}

/// Two leaderships that acknowledged rows while the other one still did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DualAck {
    pub one: String,
    pub other: String,
    pub length: Duration,
}

impl History {
    pub fn new(mut operations: Vec<Operation>, length: Duration) -> Self {
        operations.sort_by_key(|operation| operation.answered);
        Self { operations, length }
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    fn acknowledged_operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations
            .iter()
            .filter(|operation| operation.outcome == Outcome::Acknowledged)
    }

    /// A row that was sent within `span`, and so committed after its begin, and acknowledged.
    pub fn acknowledged_of(&self, span: Range<Duration>) -> Option<&Operation> {
        self.acknowledged_operations()
            .find(|operation| span.contains(&operation.invoked))
    }

    /// The rows that must be there.
    pub fn acknowledged(&self) -> BTreeSet<(u32, i64)> {
        self.acknowledged_operations()
            .filter_map(|operation| Some((operation.writer, operation.n?)))
            .collect()
    }

    /// The rows that were refused for certain, and must not be there.
    pub fn refused(&self) -> BTreeSet<(u32, i64)> {
        self.rows_with(Outcome::Failed)
    }

    /// The rows that may or may not be there.
    pub fn unknown(&self) -> BTreeSet<(u32, i64)> {
        self.rows_with(Outcome::Unknown)
    }

    fn rows_with(&self, outcome: Outcome) -> BTreeSet<(u32, i64)> {
        self.operations
            .iter()
            .filter(|operation| operation.outcome == outcome)
            .filter_map(|operation| Some((operation.writer, operation.n?)))
            .collect()
    }

    /// How many times a client was told, or had to conclude, that something went wrong.
    pub fn errors(&self) -> usize {
        self.operations.len() - self.acknowledged_operations().count()
    }

    /// The longest time without an acknowledged row, the end of the history included.
    pub fn longest_gap(&self) -> Gap {
        let mut last = Duration::ZERO;
        let mut longest = Gap::default();
        let answers = self
            .acknowledged_operations()
            .map(|operation| operation.answered);
        for answered in answers.chain([self.length]) {
            let length = answered.saturating_sub(last);
            if length > longest.length {
                longest = Gap { from: last, length };
            }
            last = answered;
        }
        longest
    }

    /// Which nodes acknowledged rows, in order of their first.
    pub fn nodes(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for operation in self.acknowledged_operations() {
            if seen.last() != Some(&operation.node) && !seen.contains(&operation.node) {
                seen.push(operation.node.clone());
            }
        }
        seen
    }

    /// Every pair of leaderships (node and timeline) that acknowledged at the same time.
    ///
    /// A commit lies between its invocation and its answer. So the first commit of a leadership is
    /// no later than its earliest answer, and its last no earlier than its latest invocation: when
    /// these spans overlap for two leaderships, both have acknowledged while the other one did.
    pub fn dual_acks(&self) -> Vec<DualAck> {
        let mut spans: BTreeMap<(&str, &str), (Duration, Duration)> = BTreeMap::new();
        for operation in self.acknowledged_operations() {
            let span = spans
                .entry((&operation.node, &operation.timeline))
                .or_insert((operation.answered, operation.invoked));
            span.0 = span.0.min(operation.answered);
            span.1 = span.1.max(operation.invoked);
        }
        let spans: Vec<_> = spans.into_iter().collect();
        let mut found = Vec::new();
        for (index, (one, first)) in spans.iter().enumerate() {
            for (other, second) in &spans[index + 1..] {
                let from = first.0.max(second.0);
                let to = first.1.min(second.1);
                if from < to {
                    found.push(DualAck {
                        one: format!("{} on timeline {}", one.0, one.1),
                        other: format!("{} on timeline {}", other.0, other.1),
                        length: to - from,
                    });
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(rows: &[(u64, u64, &str, &str, Outcome)]) -> History {
        let operations = rows
            .iter()
            .zip(0..)
            .map(
                |((invoked, answered, node, timeline, outcome), n)| Operation {
                    writer: 0,
                    n: Some(n),
                    invoked: Duration::from_millis(*invoked),
                    answered: Duration::from_millis(*answered),
                    outcome: *outcome,
                    node: (*node).to_owned(),
                    timeline: (*timeline).to_owned(),
                    error: None,
                },
            )
            .collect();
        History::new(operations, Duration::from_millis(1_000))
    }

    use Outcome::{Acknowledged as Ok, Failed, Unknown};

    #[test]
    fn the_gap_is_between_acknowledged_rows_and_counts_the_end() {
        let seen = history(&[
            (0, 5, "a", "1", Ok),
            (10, 500, "a", "1", Unknown),
            (510, 900, "b", "2", Ok),
        ]);
        let gap = seen.longest_gap();
        assert_eq!((gap.from.as_millis(), gap.length.as_millis()), (5, 895));
        assert_eq!(
            history(&[(0, 100, "a", "1", Ok)])
                .longest_gap()
                .length
                .as_millis(),
            900
        );
    }

    #[test]
    fn a_row_of_unknown_outcome_is_neither_owed_nor_forbidden() {
        let seen = history(&[
            (0, 5, "a", "1", Ok),
            (10, 15, "a", "1", Unknown),
            (20, 25, "a", "1", Failed),
        ]);
        assert_eq!(seen.acknowledged(), BTreeSet::from([(0, 0)]));
        assert_eq!(seen.unknown(), BTreeSet::from([(0, 1)]));
        assert_eq!(seen.refused(), BTreeSet::from([(0, 2)]));
        assert_eq!(seen.errors(), 2);
    }

    #[test]
    fn leaderships_that_follow_each_other_do_not_overlap() {
        let seen = history(&[
            (0, 5, "a", "1", Ok),
            (10, 60, "a", "1", Ok),
            (40, 50, "b", "2", Ok),
            (70, 80, "b", "2", Ok),
            (90, 95, "a", "3", Ok),
        ]);
        // The row invoked at 10 may have been committed before that invoked at 40.
        assert_eq!(seen.dual_acks(), []);
        assert_eq!(
            seen.nodes(),
            ["b", "a"]
                .map(str::to_owned)
                .to_vec()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn two_nodes_that_acknowledge_in_turn_are_found_out() {
        let seen = history(&[
            (0, 5, "a", "1", Ok),
            (10, 15, "b", "2", Ok),
            (20, 25, "a", "1", Ok),
            (30, 35, "b", "2", Ok),
        ]);
        let found = seen.dual_acks();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].length.as_millis(), 5);
    }
}
