//! Running PostgreSQL's own programs.
//!
//! **Invariant:** a program whose future is dropped is dead, with all its children; its environment and its arguments
//! hold no secret.

use crate::error::PostgresError;
use crate::process;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// How much of a program's output is kept for an error.
const OUTPUT_KEPT: usize = 8 * 1024;

/// A program to run.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
}

/// What became of it.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new(name: &'static str, path: PathBuf) -> Self {
        Self {
            name,
            path,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    fn start(&self) -> Result<Group, PostgresError> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .envs(environment())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .current_dir("/");
        let child = command.spawn().map_err(|source| PostgresError::Spawn {
            program: self.path.clone(),
            source,
        })?;
        Ok(Group { child })
    }

    /// Runs it to its end, whatever that is, and hands over each line of its output.
    pub(crate) async fn run_lines(&self, line: impl FnMut(&str)) -> Result<(), PostgresError> {
        self.run_with(|_| {}, line, |_| {}).await.map(drop)
    }

    /// Runs it to its end, whatever that is. `started` is told its process, `line` each line of its error output.
    pub(crate) async fn run(
        &self,
        started: impl FnOnce(Running),
        line: impl FnMut(&str),
    ) -> Result<Ended, PostgresError> {
        self.run_with(started, |_| {}, line).await
    }

    async fn run_with(
        &self,
        started: impl FnOnce(Running),
        mut output: impl FnMut(&str),
        mut errors: impl FnMut(&str),
    ) -> Result<Ended, PostgresError> {
        let mut group = self.start()?;
        if let Some(running) = group.running() {
            started(running);
        }
        let stdout = group.child.stdout.take();
        let stderr = group.child.stderr.take();
        let (stdout, stderr) =
            tokio::join!(collect(stdout, &mut output), collect(stderr, &mut errors));
        let status = group
            .child
            .wait()
            .await
            .map_err(|source| PostgresError::Spawn {
                program: self.path.clone(),
                source,
            })?;
        Ok(Ended {
            status,
            stdout,
            stderr,
        })
    }

    /// Runs it; an exit other than 0 is an error with its last output.
    pub(crate) async fn succeed(&self) -> Result<String, PostgresError> {
        self.succeed_as(|_| {}).await
    }

    /// The same; `started` is told its process.
    pub(crate) async fn succeed_as(
        &self,
        started: impl FnOnce(Running),
    ) -> Result<String, PostgresError> {
        let ended = self.run(started, |_| {}).await?;
        if ended.status.success() {
            Ok(ended.stdout)
        } else {
            Err(self.failed(&ended))
        }
    }

    pub(crate) fn failed(&self, ended: &Ended) -> PostgresError {
        let output = if ended.stderr.trim().is_empty() {
            &ended.stdout
        } else {
            &ended.stderr
        };
        let output = output.trim().to_owned();
        if output.contains("No space left on device") {
            return PostgresError::DiskFull {
                detail: format!("{}: {output}", self.name),
            };
        }
        PostgresError::Program {
            program: self.name,
            status: ended.status.to_string(),
            output,
        }
    }
}

/// A program that runs, named so that a later agent can end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

impl Running {
    /// Kills the process group if it is still the one that was started. Says whether it was alive.
    pub(crate) fn kill(self) -> bool {
        let alive = process::start_time(self.pid) == Some(self.start_time);
        if let (true, Some(pid)) = (alive, Pid::from_raw(self.pid)) {
            // It may end by itself in between; a group without members is no error.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        alive
    }
}

/// A child and its process group, killed when dropped.
struct Group {
    child: Child,
}

impl Group {
    fn running(&self) -> Option<Running> {
        let pid = i32::try_from(self.child.id()?).ok()?;
        Some(Running {
            pid,
            start_time: process::start_time(pid)?,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is `None` once it was waited for: then the number may be somebody else's.
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Reads lines (ended by `\n` or `\r`, as progress is printed) and keeps the last of them.
async fn collect(stream: Option<impl AsyncRead + Unpin>, mut line: impl FnMut(&str)) -> String {
    let mut kept = String::new();
    let Some(stream) = stream else { return kept };
    let mut lines = BufReader::new(stream).split(b'\n');
    // A read error is the end of the output; the exit status says the rest.
    while let Ok(Some(bytes)) = lines.next_segment().await {
        for part in String::from_utf8_lossy(&bytes).split('\r') {
            line(part);
            kept.push_str(part);
            kept.push('\n');
        }
        if kept.len() > 2 * OUTPUT_KEPT {
            kept = kept
                .chars()
                .skip(kept.chars().count().saturating_sub(OUTPUT_KEPT))
                .collect();
        }
    }
    kept
}

/// The part of our environment that programs and the server get: nothing of `PG*`, no secrets.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    let wanted = |name: &str| {
        matches!(
            name,
            "PATH" | "HOME" | "USER" | "LOGNAME" | "LANG" | "TZ" | "TZDIR" | "LD_LIBRARY_PATH"
        ) || name.starts_with("LC_")
    };
    std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(wanted))
        .collect()
}
