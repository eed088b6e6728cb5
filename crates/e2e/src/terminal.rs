//! A person at a shell on a host of the lab: what is typed, and what is printed.

use anyhow::{Context, Result, bail, ensure};
use lab::Host;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A shell on a host, in the host's directory.
#[derive(Clone, Debug)]
pub struct Terminal {
    pub host: Arc<Host>,
}

/// What a command left.
#[derive(Clone, Debug)]
pub struct Said {
    pub line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Terminal {
    /// Types a line and waits for its end, however it ends.
    pub fn tries(&self, line: &str) -> Result<Said> {
        let output = self
            .host
            .command("sh")
            .args(["-c", line])
            .stdin(Stdio::null())
            .output()?;
        Ok(Said {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Types a line that must succeed; gives what was printed on stdout.
    pub fn types(&self, line: &str) -> Result<String> {
        let said = self.tries(line)?;
        if said.code != Some(0) {
            bail!(
                "$ {line}\n{}{}(code {:?})",
                said.stdout,
                said.stderr,
                said.code
            );
        }
        Ok(said.stdout)
    }

    /// Types a line with `&` at its end, in a terminal of its own. The lab ends it.
    pub fn leaves_running(&self, line: &str, log: &str) -> Result<Child> {
        let file = File::create(self.host.directory().join(log))?;
        let child = self
            .host
            .command("env")
            .args(["--default-signal=INT", "sh", "-c", &format!("exec {line}")])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("$ {line}"))?;
        hears_ctrl_c(&child)?;
        Ok(child)
    }
}

impl Said {
    /// A refusal that a person can use: the right code, one line `error: …` that names what and
    /// where, nothing on stdout, no panic, no secret.
    pub fn refuses(&self, code: i32, words: &[&str]) -> Result<()> {
        let Self {
            line,
            stdout,
            stderr,
            ..
        } = self;
        ensure!(
            self.code == Some(code),
            "$ {line}\n{stdout}{stderr}(code {:?})",
            self.code
        );
        ensure!(
            stdout.is_empty(),
            "$ {line}: an error belongs on stderr: {stdout}"
        );
        ensure!(
            stderr.lines().any(|line| line.starts_with("error: ")),
            "$ {line}\n{stderr}"
        );
        ensure!(
            !stderr.contains("panicked") && !stderr.contains("planted-"),
            "$ {line}\n{stderr}"
        );
        for word in words {
            ensure!(
                stderr.contains(word),
                "$ {line}: nothing said of {word:?}: {stderr}"
            );
        }
        Ok(())
    }
}

/// Waits until it does. Who runs the tests in the background of a script has a shell that lets them ignore SIGINT, and
/// all that they start, and an agent that does not listen yet would miss it.
fn hears_ctrl_c(child: &Child) -> Result<()> {
    const SIGINT: u64 = 1 << 1;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let ignored = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
        let Some(ignored) = ignored.map(str::trim) else {
            bail!("no SigIgn in {status}");
        };
        if u64::from_str_radix(ignored, 16)? & SIGINT == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("SIGINT is still ignored")
}
