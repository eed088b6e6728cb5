//! What the agent counts and times, for `/metrics`.
//!
//! **Invariant:** nothing is decided on a figure, and to count one waits for nothing.

use api::{Metric, MetricKind, Sample};
use postgres::DiskSpace;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of what is usually quick.
const QUICK: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0];
/// Upper bounds of the buckets of takeovers.
const TAKEOVERS: &[f64] = &[0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0];

/// Counted since the agent started.
#[derive(Debug)]
pub(crate) struct Figures {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    decisions: BTreeMap<&'static str, u64>,
    proven: u64,
    unproven: u64,
    turns: Histogram,
    answers: Histogram,
    takeovers: Histogram,
    disk: Option<DiskSpace>,
    slot_retained: Option<f64>,
}

#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// Not cumulative; the last is beyond every bound.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    fn observe(&mut self, span: Duration) {
        let seconds = span.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
    }

    fn metric(&self, name: &'static str, help: &'static str) -> Metric {
        let mut samples = Vec::new();
        let mut below = 0;
        let bounds = self.bounds.iter().map(ToString::to_string);
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&self.counts) {
            below += count;
            samples.push(sample("_bucket", &[("le", &bound)], exact(below)));
        }
        samples.push(sample("_sum", &[], self.sum));
        samples.push(sample("_count", &[], exact(below)));
        Metric {
            name,
            help,
            kind: MetricKind::Histogram,
            samples,
        }
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                decisions: BTreeMap::new(),
                proven: 0,
                unproven: 0,
                turns: Histogram::new(QUICK),
                answers: Histogram::new(QUICK),
                takeovers: Histogram::new(TAKEOVERS),
                disk: None,
                slot_retained: None,
            }),
        }
    }
}

impl Figures {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A decision by this rule was news.
    pub(crate) fn decided(&self, rule: &'static str) {
        *self.lock().decisions.entry(rule).or_default() += 1;
    }

    /// A claim was won; `proven`: on promises that prove that nothing acknowledged is missing.
    pub(crate) fn claimed(&self, proven: bool) {
        let mut inner = self.lock();
        if proven {
            inner.proven += 1;
        } else {
            inner.unproven += 1;
        }
    }

    /// A turn of the loop took so long.
    pub(crate) fn turned(&self, took: Duration) {
        self.lock().turns.observe(took);
    }

    /// The store acknowledged a renewal after so long.
    pub(crate) fn answered(&self, after: Duration) {
        self.lock().answers.observe(after);
    }

    /// Clients can write here, so long after the last sign of the leader before.
    pub(crate) fn took_over(&self, after: Duration) {
        self.lock().takeovers.observe(after);
    }

    pub(crate) fn disk(&self, disk: DiskSpace) {
        self.lock().disk = Some(disk);
    }

    /// The most that a slot keeps Postgres from removing, in bytes.
    pub(crate) fn slot_retained(&self, bytes: Option<f64>) {
        self.lock().slot_retained = bytes;
    }

    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let inner = self.lock();
        let decisions = inner.decisions.iter();
        let proofs = [("promises", inner.proven), ("none", inner.unproven)];
        let mut metrics = vec![
            Metric {
                name: "standfast_decisions_total",
                help: "Decisions that were news, by the rule that made them.",
                kind: MetricKind::Counter,
                samples: decisions
                    .map(|(rule, count)| sample("", &[("rule", rule)], exact(*count)))
                    .collect(),
            },
            Metric {
                name: "standfast_claims_total",
                help: "Leaderships that this node has claimed, by what proves that no acknowledged commit is missing.",
                kind: MetricKind::Counter,
                samples: proofs
                    .map(|(proof, count)| sample("", &[("proof", proof)], exact(count)))
                    .into(),
            },
            inner.turns.metric(
                "standfast_loop_seconds",
                "How long a turn of the loop takes.",
            ),
            inner.answers.metric(
                "standfast_store_answer_seconds",
                "How long the store takes to acknowledge a renewal of the lease.",
            ),
            inner.takeovers.metric(
                "standfast_takeover_seconds",
                "From the last sign of the leader before until clients could write here.",
            ),
        ];
        let disk = inner.disk.filter(|disk| disk.size > 0);
        let gauges = [
            (
                "standfast_data_disk_bytes",
                "Size of the data directory's file system.",
                disk.map(|disk| exact(disk.size)),
            ),
            (
                "standfast_data_disk_free_bytes",
                "What is free of it for Postgres.",
                disk.map(|disk| exact(disk.free)),
            ),
            (
                "standfast_slot_retained_bytes",
                "The most WAL that a replication slot keeps here.",
                inner.slot_retained,
            ),
        ];
        for (name, help, value) in gauges {
            metrics.extend(value.map(|value| Metric {
                name,
                help,
                kind: MetricKind::Gauge,
                samples: vec![sample("", &[], value)],
            }));
        }
        metrics
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows no other numbers"
)]
fn exact(count: u64) -> f64 {
    count as f64
}

fn sample(suffix: &'static str, labels: &[(&'static str, &str)], value: f64) -> Sample {
    Sample {
        suffix,
        labels: labels
            .iter()
            .map(|(label, text)| (*label, (*text).to_owned()))
            .collect(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_below_their_bound() {
        let figures = Figures::default();
        for millis in [200, 250, 300, 500_000] {
            figures.took_over(Duration::from_millis(millis));
        }
        let metrics = figures.metrics();
        let found = metrics
            .iter()
            .find(|it| it.name == "standfast_takeover_seconds");
        let samples = &found.expect("there").samples;
        let counts: Vec<f64> = samples.iter().map(|it| it.value).collect();
        assert_eq!(counts[..4], [2.0, 3.0, 3.0, 3.0]);
        assert_eq!(samples[8].labels, [("le", "+Inf".to_owned())]);
        assert_eq!((counts[8], counts[9], counts[10]), (4.0, 500.75, 4.0));
    }
}
