//! One run of pgbench.

use super::contestant::{Contestant, Stand};
use anyhow::{Context, Result, ensure};
use lab::run_to_end;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::time::Duration;

/// Which transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Script {
    /// One SELECT by the primary key.
    Select,
    /// The like of TPC-B: seven messages in a transaction.
    Tpcb,
}

/// How pgbench speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    Simple,
    Extended,
    Prepared,
}

/// What is asked of a contestant.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Load {
    pub(super) script: Script,
    pub(super) protocol: Protocol,
    pub(super) clients: u16,
}

/// What one run gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Figures {
    /// Transactions a second.
    pub(super) tps: f64,
    /// CPU time of the proxy for a transaction, user and system, in microseconds.
    pub(super) cpu_us: Option<f64>,
    /// Latency of a transaction in microseconds.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Script {
    pub(super) const ALL: [Self; 2] = [Self::Select, Self::Tpcb];

    fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select-only",
            Self::Tpcb => "tpcb-like",
        }
    }
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (script, protocol) = (self.script.as_str(), self.protocol.as_str());
        write!(f, "{script:<11} {protocol:<8} {:>3}", self.clients)
    }
}

/// pgbench for so many seconds.
pub(super) fn run(
    stand: &Stand,
    contestant: &Contestant,
    load: Load,
    seconds: u32,
) -> Result<Figures> {
    let host = &stand.client;
    let logs = host.directory().join("transactions");
    let prefix = logs.join("log").display().to_string();
    let _ = fs::remove_dir_all(&logs);
    run_to_end(host.command("mkdir").arg(&logs))?;
    let (port, clients) = (contestant.port.to_string(), load.clients.to_string());
    let seconds = seconds.to_string();
    let words = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "postgres",
        "-n",
        "-l",
        "--log-prefix",
        &prefix,
        "-b",
        load.script.as_str(),
        "-M",
        load.protocol.as_str(),
        "-c",
        &clients,
        "-j",
        "1",
        "-T",
        &seconds,
        "postgres",
    ];
    let before = contestant.cpu()?;
    let said = run_to_end(host.command("pgbench").args(words))?;
    let after = contestant.cpu()?;
    let done: f64 = number(&said, "number of transactions actually processed: ")?;
    ensure!(done > 0.0, "no transaction was done:\n{said}");
    let mut latencies = latencies(&logs)?;
    latencies.sort_unstable();
    let spent = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before));
    Ok(Figures {
        tps: number(&said, "tps = ")?,
        cpu_us: spent.map(|spent| microseconds(spent) / done),
        p50_us: at(&latencies, 50),
        p99_us: at(&latencies, 99),
    })
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The number that pgbench prints behind `label`.
fn number(said: &str, label: &str) -> Result<f64> {
    let rest = said.lines().find_map(|line| line.strip_prefix(label));
    let word = rest.and_then(|rest| rest.split([' ', '/']).next());
    let number = word.and_then(|word| word.parse().ok());
    number.with_context(|| format!("pgbench does not say \"{label}\":\n{said}"))
}

/// The third column of each line: microseconds.
fn latencies(logs: &std::path::Path) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(logs)? {
        let text = fs::read_to_string(entry?.path())?;
        let times = text.lines().filter_map(|line| line.split(' ').nth(2));
        all.extend(times.filter_map(|time| time.parse::<u32>().ok()));
    }
    Ok(all)
}

/// The smallest value that `percent` of all do not exceed.
fn at(sorted: &[u32], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let value = sorted.get(rank.saturating_sub(1));
    value.copied().map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u32> = (1..=200).collect();
        assert!((at(&values, 50) - 100.0).abs() < f64::EPSILON);
        assert!((at(&values, 99) - 198.0).abs() < f64::EPSILON);
        assert!(at(&[], 50).is_nan());
    }

    #[test]
    fn what_pgbench_says_is_read() {
        let said = "number of transactions actually processed: 812/0\ntps = 81.25 (without initial connection time)\n";
        let done = number(said, "number of transactions actually processed: ").unwrap();
        assert!((done - 812.0).abs() < f64::EPSILON);
        assert!((number(said, "tps = ").unwrap() - 81.25).abs() < f64::EPSILON);
        assert!(number(said, "latency = ").is_err());
    }
}
