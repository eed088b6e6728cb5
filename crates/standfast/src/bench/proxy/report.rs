//! The figures: medians over the rounds, of ratios within a round.

use super::contestant::{Contestant, Kind};
use super::pgbench::{Figures, Load};
use crate::bench::machine::Machine;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One load, and what all contestants made of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cell {
    load: Load,
    rounds: BTreeMap<Kind, Vec<Figures>>,
    /// Those that kept a server connection for each client where others pooled.
    by_session: Vec<Kind>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    rounds: u32,
    seconds: u32,
    cells: Vec<Cell>,
}

impl Cell {
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            rounds: BTreeMap::new(),
            by_session: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, contestant: &Contestant, figures: Figures) {
        let kind = contestant.kind;
        self.rounds.entry(kind).or_default().push(figures);
        if contestant.by_session && kind == Kind::PgBouncer && !self.by_session.contains(&kind) {
            self.by_session.push(kind);
        }
    }

    /// The median over the rounds.
    fn of(&self, kind: Kind, figure: fn(&Figures) -> Option<f64>) -> Option<f64> {
        let rounds = self.rounds.get(&kind)?;
        median(rounds.iter().filter_map(figure).collect())
    }

    /// The median over the rounds of what is made of two contestants' figures of one round.
    fn between(
        &self,
        [one, other]: [Kind; 2],
        figure: fn(&Figures) -> Option<f64>,
        make: fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let pairs = self.rounds.get(&one)?.iter().zip(self.rounds.get(&other)?);
        let made = pairs.filter_map(|(one, other)| Some(make(figure(one)?, figure(other)?)));
        median(made.collect())
    }

    fn ratio(&self, kinds: [Kind; 2], figure: fn(&Figures) -> Option<f64>) -> Option<f64> {
        self.between(kinds, figure, |one, other| one / other)
    }

    fn added(&self, kind: Kind, figure: fn(&Figures) -> Option<f64>) -> Option<f64> {
        self.between([kind, Kind::Direct], figure, |one, direct| one - direct)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

const PROXIES: [Kind; 3] = [Kind::PgBouncer, Kind::HaProxy, Kind::Standfast];
const OURS_TO_PGBOUNCER: [Kind; 2] = [Kind::Standfast, Kind::PgBouncer];

/// A line for whoever waits.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = |kind| text(self.of(kind, |it| it.cpu_us), 1);
        write!(
            f,
            "{}: CPU µs a transaction: PgBouncer {}, HAProxy {}, Standfast {}",
            self.load,
            cpu(Kind::PgBouncer).trim(),
            cpu(Kind::HaProxy).trim(),
            cpu(Kind::Standfast).trim()
        )
    }
}

impl Report {
    pub(super) fn new(machine: Machine, rounds: u32, seconds: u32, cells: Vec<Cell>) -> Self {
        Self {
            machine,
            rounds,
            seconds,
            cells,
        }
    }

    pub(super) fn tables(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "standfast {}, {}, Linux {}, {} × {}, {} MB\n\
             medians of {} rounds of {} s; ratios and differences within a round\n",
            machine.standfast,
            machine.postgres,
            machine.kernel,
            machine.cores,
            machine.cpu,
            machine.memory_mb,
            self.rounds,
            self.seconds
        );
        text += &self.table(
            "CPU time of the proxy for a transaction, µs",
            |cell, kind| cell.of(kind, |it| it.cpu_us),
            |cell| cell.ratio(OURS_TO_PGBOUNCER, |it| it.cpu_us),
            1,
        );
        text += &self.table(
            "throughput, share of the direct one",
            |cell, kind| cell.ratio([kind, Kind::Direct], |it| Some(it.tps)),
            |cell| cell.ratio(OURS_TO_PGBOUNCER, |it| Some(it.tps)),
            2,
        );
        text += &self.table(
            "added latency, median, µs",
            |cell, kind| cell.added(kind, |it| Some(it.p50_us)),
            |_| None,
            0,
        );
        text += &self.table(
            "added latency, 99th percentile, µs",
            |cell, kind| cell.added(kind, |it| Some(it.p99_us)),
            |_| None,
            0,
        );
        if self.cells.iter().any(|cell| !cell.by_session.is_empty()) {
            text += "\n* PgBouncer in session mode: this version can't prepare statements in transaction mode\n";
        }
        text
    }

    fn table(
        &self,
        title: &str,
        figure: impl Fn(&Cell, Kind) -> Option<f64>,
        ratio: impl Fn(&Cell) -> Option<f64>,
        digits: usize,
    ) -> String {
        let mut out = format!("\n{title}\n\n| transactions, protocol, clients |");
        for kind in PROXIES {
            out += &format!(" {kind:>9} |");
        }
        out += &format!(" Standfast / PgBouncer |\n|---|{}---|\n", "---|".repeat(3));
        for cell in &self.cells {
            let mark = if cell.by_session.is_empty() { ' ' } else { '*' };
            out += &format!("| {}{mark} |", cell.load);
            for kind in PROXIES {
                out += &format!(" {} |", text(figure(cell, kind), digits));
            }
            out += &format!(" {} |\n", text(ratio(cell), 2));
        }
        out
    }
}

fn text(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(
        || format!("{:>9}", ""),
        |value| format!("{value:>9.digits$}"),
    )
}
