//! What a person should know of and no decision says: it is told with the node, to REST and to the others.
//!
//! **Invariant:** what a program of the user's has printed is for this node's log, and for nobody who reads the store.

use super::{Agent, chain};
use crate::shell::{self, ShellError};
use ha::{Decision, Postgres};
use postgres::PostgresError;

/// Whoever wants to know more looks into the log.
const LONGEST: usize = 400;

impl Agent {
    /// A sentence each.
    pub(super) fn troubles(&self, decision: &Decision, postgres: &Postgres) -> Vec<String> {
        let running = self.memory.running.as_ref().map(|running| &running.action);
        let wanted = running.or_else(|| decision.actions.first());
        // What failed and is not wanted any more is no trouble.
        let failed = self.memory.failure.as_ref();
        let failed = failed.filter(|(action, _)| wanted.map(shell::name) == Some(action));
        let mut troubles: Vec<_> = failed
            .map(|(action, why)| format!("{action} has failed and is tried again: {why}"))
            .into_iter()
            .collect();
        let runs = matches!(postgres, Postgres::Primary(_) | Postgres::Standby(_));
        if let Some((line, why)) = self.shell.instance.hba_refused().filter(|_| runs) {
            troubles.push(format!(
                "Postgres refuses a line of pg_hba.conf and keeps the rules it had: {line:?}: {why}"
            ));
        }
        troubles
    }
}

/// Why an action has failed.
pub(super) fn told(error: &ShellError) -> String {
    let ShellError::Postgres(error) = error else {
        return short(&chain(error));
    };
    match error {
        PostgresError::Program {
            program, status, ..
        } if !error.is_of_postgres() => {
            format!("{program} failed ({status}), its log tells more")
        }
        error => short(&chain(error)),
    }
}

/// In one line.
fn short(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join("; ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(program: &'static str, output: &str) -> String {
        told(&ShellError::Postgres(PostgresError::Program {
            program,
            status: "exit status: 1".to_owned(),
            output: output.to_owned(),
        }))
    }

    #[test]
    fn postgresqls_words_are_told_and_those_of_a_users_program_are_not() {
        assert_eq!(
            check("initdb", "creating\n  initdb: error: no room\n"),
            "initdb failed (exit status: 1): creating; initdb: error: no room"
        );
        let said = check("my-restore", "the password is secret");
        assert_eq!(
            said,
            "my-restore failed (exit status: 1), its log tells more"
        );
        let long = check("initdb", &"ö".repeat(10_000));
        assert_eq!(long.chars().count(), LONGEST + 1);
    }
}
