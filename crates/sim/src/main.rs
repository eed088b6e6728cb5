//! Runs seeded worlds: one with its trace, or many one after the other.

use sim::{Break, Options, Report, run};
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "usage: sim [--seed N] [--worlds COUNT] [--break NAME] [--trace]";

struct Flags {
    first: u64,
    worlds: u64,
    broken: Option<Break>,
    trace: bool,
}

fn main() -> ExitCode {
    match flags(std::env::args().skip(1)) {
        Ok(flags) => match simulate(&flags) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) | Err(_) => ExitCode::FAILURE,
        },
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn flags(mut arguments: impl Iterator<Item = String>) -> Result<Flags, String> {
    let mut flags = Flags {
        first: 1,
        worlds: 1,
        broken: None,
        trace: false,
    };
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))
        };
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|_| format!("{text:?} is no number"))
        };
        match flag.as_str() {
            "--seed" => flags.first = number(value()?)?,
            "--worlds" => flags.worlds = number(value()?)?,
            "--break" => {
                let name = value()?;
                let known = || Break::ALL.map(|(_, name)| name).join(", ");
                let found = Break::named(&name);
                flags.broken = Some(found.ok_or_else(|| format!("breaks are: {}", known()))?);
            }
            "--trace" => flags.trace = true,
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(flags)
}

/// Whether every world held.
fn simulate(flags: &Flags) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    let (mut failed, mut acknowledged, mut lost, mut promotions) = (0_u64, 0, 0, 0);
    for seed in flags.first..flags.first + flags.worlds {
        let report = run(Options {
            seed,
            broken: flags.broken,
            trace: flags.trace,
        });
        if flags.trace {
            write!(out, "{}", report.trace)?;
        }
        acknowledged += report.acknowledged;
        lost += report.lost;
        promotions += report.promotions;
        if let Some(text) = failure(&report, flags) {
            failed += 1;
            writeln!(out, "{text}")?;
        } else if flags.worlds == 1 {
            writeln!(
                out,
                "seed {seed} held for {} ms, {} decisions, {} events, digest {:016x}",
                report.lasted_ms, report.decisions, report.events, report.digest
            )?;
        }
    }
    writeln!(
        out,
        "{} worlds, {failed} failed; {promotions} promotions, {acknowledged} commits acknowledged, {lost} of them \
         lost (asynchronous)",
        flags.worlds
    )?;
    Ok(failed == 0)
}

fn failure(report: &Report, flags: &Flags) -> Option<String> {
    let violation = report.violation.as_ref()?;
    let broken = flags
        .broken
        .map_or_else(String::new, |by| format!(" --break {}", by.name()));
    Some(format!(
        "seed {}: {} at {} ms: {}\n  cargo run -p sim -- --seed {}{broken} --trace",
        report.seed, violation.invariant, violation.at_ms, violation.text, report.seed
    ))
}
