//! Questions to the person, as patronictl puts them: on standard output, answered by a line.

use crate::exit::Failure;
use crate::output;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead as _, Write as _};

/// A line of text; an empty one means `default`, and without a default the question is put again.
pub(super) fn text(question: &str, default: Option<&str>) -> Result<String, Failure> {
    let suggestion = match default {
        Some(default) if !default.is_empty() => format!(" [{default}]"),
        _ => String::new(),
    };
    loop {
        output::print(&format!("{question}{suggestion}: "));
        let typed = line()?;
        match (typed.is_empty(), default) {
            (false, _) => return Ok(typed),
            (true, Some(default)) => return Ok(default.to_owned()),
            (true, None) => {}
        }
    }
}

/// What nobody shall read over a shoulder. Asked on standard error, as the answer to come may be data.
pub(super) fn secret(question: &str) -> Result<String, Failure> {
    eprint(&format!("{question}: "));
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &silent);
    }
    let typed = line();
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, before);
    }
    eprint("\n");
    typed
}

fn eprint(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Yes or no; no if nothing is said.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    loop {
        output::print(&format!("{question} [y/N]: "));
        match line()?.to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" | "" => return Ok(false),
            _ => output::line("Error: invalid input"),
        }
    }
}

/// Nobody is there to answer: nothing is done.
fn line() -> Result<String, Failure> {
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    match read {
        Ok(0) | Err(_) => {
            output::line("");
            Err(Failure::refused("Aborted!").hint("--force answers every question with yes"))
        }
        Ok(_) => Ok(typed.trim().to_owned()),
    }
}
