//! The user's own programs: on a cluster that was just founded (`bootstrap.post_bootstrap`), before a promotion and
//! before a stop (`pre_promote`, `before_stop`).
//!
//! **Invariant:** one whose future is dropped is dead, with all its children, and none runs for ever.

use crate::config;
use crate::error::PostgresError;
use crate::instance::Instance;
use crate::program::Program;
use crate::quote::conninfo;
use std::path::PathBuf;
use std::time::Duration;

/// One that never ends must not keep the cluster from being founded.
const LIMIT: Duration = Duration::from_secs(600);

impl Instance {
    /// Runs the program; its last argument is how to connect, as superuser over the private socket.
    ///
    /// # Errors
    /// When it can't be run, fails, or takes too long.
    pub async fn after_init(&self, command: &[String]) -> Result<(), PostgresError> {
        let [path, arguments @ ..] = command else {
            return Ok(());
        };
        let options = self.options();
        let socket = config::Paths::new(&options.state_dir).socket_dir;
        let (socket, port) = (socket.display().to_string(), options.port.to_string());
        let connection = conninfo([
            ("host", socket.as_str()),
            ("port", port.as_str()),
            ("user", options.superuser.user.as_str()),
            ("dbname", options.database.as_str()),
        ]);
        let program = Program::new("post_bootstrap", PathBuf::from(path))
            .args(arguments)
            .arg(connection);
        run_within(&program, LIMIT).await
    }
}

/// Runs a program of the user's, which `command` names with its arguments. Nothing to run is a success.
///
/// # Errors
/// When it can't be run, ends with another status than 0, or takes longer than `limit`.
pub async fn run_users_program(
    name: &'static str,
    command: &[String],
    limit: Duration,
) -> Result<(), PostgresError> {
    let [path, arguments @ ..] = command else {
        return Ok(());
    };
    let program = Program::new(name, PathBuf::from(path)).args(arguments);
    run_within(&program, limit).await
}

async fn run_within(program: &Program, limit: Duration) -> Result<(), PostgresError> {
    match tokio::time::timeout(limit, program.succeed()).await {
        Ok(ended) => ended.map(drop),
        Err(_) => Err(PostgresError::Timeout {
            doing: program.name,
            after: limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::run_users_program;
    use crate::error::PostgresError;
    use std::time::Duration;

    async fn run(script: &str, limit: Duration) -> Result<(), PostgresError> {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        run_users_program("hook", &command, limit).await
    }

    #[tokio::test]
    async fn a_program_says_yes_or_no_or_is_killed_with_its_children() {
        let long = Duration::from_secs(60);
        run_users_program("hook", &[], long).await.unwrap();
        run("exit 0", long).await.unwrap();
        let no = run("echo the other is not dead >&2; exit 3", long).await;
        let said = no.unwrap_err().to_string();
        assert!(
            said.contains("exit status: 3") && said.contains("the other is not dead"),
            "{said}"
        );
        let missing = ["/nowhere/at/all".to_owned()];
        assert!(run_users_program("hook", &missing, long).await.is_err());
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let late = run(&script, Duration::from_millis(300)).await;
        assert!(
            matches!(late, Err(PostgresError::Timeout { .. })),
            "{late:?}"
        );
        let child = std::fs::read_to_string(&pid).unwrap();
        let status = format!("/proc/{}/stat", child.trim());
        let gone = async {
            // A zombie is dead; whoever adopted it may take its time.
            while std::fs::read_to_string(&status).is_ok_and(|it| !it.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("its child dies with it");
    }
}
