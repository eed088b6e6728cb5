//! Asking before what can't be undone.

use crate::exit::Failure;
use crate::output;
use rustix::termios::isatty;
use std::io::BufRead as _;

/// Goes on only with a person's yes: typed at a terminal, or given as `--yes`.
pub(crate) fn confirm(what: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !isatty(std::io::stdin()) {
        let failure = Failure::refused(format!(
            "this would {what}, and nobody is there to be asked"
        ));
        return Err(failure
            .hint(format!("repeat it with --yes: {} --yes", command_line()))
            .into());
    }
    output::note(&format!("This will {what}. Type yes to go on:"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("yes") {
        Ok(())
    } else {
        Err(Failure::refused("nothing was done").into())
    }
}

fn command_line() -> String {
    let words = std::env::args_os()
        .skip(1)
        .map(|word| crate::create::quoted(word.as_ref()));
    std::iter::once("standfast".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}
