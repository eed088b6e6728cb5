//! The user's own programs: on a cluster that was just founded (`bootstrap.post_bootstrap`), before a promotion and
//! before a stop (`pre_promote`, `before_stop`).
//!
//! **Invariant:** one whose future is dropped is dead, with all its children, and none runs for ever. What an agent that
//! was killed left running, the next one ends.

use crate::config;
use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::program::{Program, Running};
use crate::quote::conninfo;
use std::path::{Path, PathBuf};
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
        within(program.name, LIMIT, program.succeed()).await
    }
}

/// Runs a program of the user's, which `command` names with its arguments. Nothing to run is a success. While it runs
/// the file `noted` says which process it is; one that is still noted there is ended first.
///
/// # Errors
/// When it can't be run or noted, ends with another status than 0, or takes longer than `limit`.
pub async fn run_users_program(
    name: &'static str,
    command: &[String],
    limit: Duration,
    noted: &Path,
) -> Result<(), PostgresError> {
    let [path, arguments @ ..] = command else {
        return Ok(());
    };
    end_noted_program(noted)?;
    let program = Program::new(name, PathBuf::from(path)).args(arguments);
    let ended = within(name, limit, program.succeed_as(|it| note(it, noted))).await;
    files::remove(noted)?;
    ended
}

/// Ends the program that `noted` names, if it is the same process still.
///
/// # Errors
/// When the file can't be read or removed.
pub fn end_noted_program(noted: &Path) -> Result<(), PostgresError> {
    let Some(text) = files::read_text(noted)? else {
        return Ok(());
    };
    if let Ok(program) = serde_json::from_str::<Running>(&text)
        && program.kill()
    {
        let pid = program.pid;
        tracing::warn!(pid, "ended what an earlier agent had left running");
    }
    files::remove(noted).map(drop)
}

fn note(running: Running, noted: &Path) {
    let written = serde_json::to_vec(&running)
        .map_err(|e| PostgresError::file("write", noted, std::io::Error::other(e)))
        .and_then(|text| files::write_atomic(noted, &text));
    if let Err(error) = written {
        tracing::warn!(%error, "if this agent is killed, nobody ends its program");
    }
}

async fn within<T>(
    doing: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<(), PostgresError> {
    match tokio::time::timeout(limit, work).await {
        Ok(ended) => ended.map(drop),
        Err(_) => Err(PostgresError::Timeout {
            doing,
            after: limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{end_noted_program, run_users_program};
    use crate::error::PostgresError;
    use std::path::Path;
    use std::time::Duration;

    async fn run(script: &str, limit: Duration) -> Result<(), PostgresError> {
        let dir = tempfile::tempdir().unwrap();
        let noted = dir.path().join("hook.json");
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let ended = run_users_program("hook", &command, limit, &noted).await;
        assert!(!noted.exists());
        ended
    }

    /// Until the process whose number the file says is gone.
    async fn until_gone(pid: &Path) {
        let child = std::fs::read_to_string(pid).unwrap();
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

    #[tokio::test]
    async fn a_program_says_yes_or_no_or_is_killed_with_its_children() {
        let long = Duration::from_secs(60);
        let nowhere = Path::new("/nowhere/hook.json");
        run_users_program("hook", &[], long, nowhere).await.unwrap();
        run("exit 0", long).await.unwrap();
        let no = run("echo the other is not dead >&2; exit 3", long).await;
        let said = no.unwrap_err().to_string();
        assert!(
            said.contains("exit status: 3") && said.contains("the other is not dead"),
            "{said}"
        );
        let missing = ["/nowhere/at/all".to_owned()];
        assert!(
            run_users_program("hook", &missing, long, nowhere)
                .await
                .is_err()
        );
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let late = run(&script, Duration::from_millis(300)).await;
        assert!(
            matches!(late, Err(PostgresError::Timeout { .. })),
            "{late:?}"
        );
        until_gone(&pid).await;
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_running_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (noted, pid) = (dir.path().join("hook.json"), dir.path().join("pid"));
        end_noted_program(&noted).unwrap();
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), script];
        let long = Duration::from_secs(60);
        let running = run_users_program("hook", &command, long, &noted);
        let next = async {
            let began = tokio::time::Instant::now();
            while std::fs::read_to_string(&pid).is_ok_and(|it| it.is_empty()) || !pid.exists() {
                assert!(began.elapsed() < long, "it does not begin");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            end_noted_program(&noted).unwrap();
        };
        let (ended, ()) = tokio::join!(running, next);
        assert!(ended.unwrap_err().to_string().contains("signal: 9"));
        until_gone(&pid).await;
        assert!(!noted.exists());
    }
}
