//! `standfast debug replay`: what a node has decided, decided again by this version.

use crate::exit::ExitCode;
use crate::output;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// Prints every line of the journal with its decision; an error when one is decided differently now.
pub(crate) fn replay(journal: &Path) -> Result<ExitCode> {
    let file = File::open(journal).with_context(|| format!("can't read {}", journal.display()))?;
    let (mut same, mut different) = (0_u32, 0_u32);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("can't read {}", journal.display()))?;
        let number = index + 1;
        let parsed: agent::Line = serde_json::from_str(&line)
            .with_context(|| format!("{}: line {number} is no journal line", journal.display()))?;
        match parsed.replay() {
            Ok(decision) => {
                same += 1;
                output::line(&format!(
                    "{} {}: {}",
                    parsed.time, decision.rule, decision.reason
                ));
            }
            Err((then, now)) => {
                different += 1;
                output::line(&format!(
                    "{} line {number} is decided differently",
                    parsed.time
                ));
                output::line(&format!("  then: {then}"));
                output::line(&format!("  now:  {}", serde_json::to_string(&now)?));
            }
        }
    }
    output::note(&format!("{same} decided as then, {different} differently"));
    Ok(if different == 0 {
        ExitCode::Ok
    } else {
        ExitCode::Error
    })
}
