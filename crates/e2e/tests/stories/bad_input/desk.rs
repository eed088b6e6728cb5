//! One machine with everything on it, the person who sits there, and the agents that they start.

use anyhow::{Context, Result, ensure};
use e2e::{Said, Terminal, settle_deadline};
use lab::{Host, Lab, Place, eventually, free_ports, until};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

/// One machine with everything on it, and the ports of its nodes.
pub(super) struct Desk {
    pub(super) terminal: Terminal,
    pub(super) monitor: u16,
    pub(super) node: u16,
}

impl Desk {
    pub(super) fn set_up(lab: &mut Lab) -> Result<Self> {
        let host = lab.add_host("desk", 11)?;
        let (monitor, node) = match lab.place() {
            Place::Loopback => (free_ports(1)?, free_ports(1)?),
            Place::Namespaces => (6000, 6010),
        };
        Ok(Self {
            terminal: Terminal { host },
            monitor,
            node,
        })
    }

    pub(super) fn create_monitor(&self) -> String {
        format!(
            "standfast create monitor --pgdata ./monitor --pgport {} --hostname 127.0.0.1",
            self.monitor
        )
    }

    pub(super) fn create_node(&self, directory: &str) -> String {
        format!(
            "standfast create postgres --pgdata {directory} --pgport {} --hostname 127.0.0.1 \
             --pgctl $(which pg_ctl) --monitor 127.0.0.1:{}",
            self.node, self.monitor
        )
    }

    pub(super) async fn start_monitor(&self) -> Result<()> {
        self.terminal.types(&self.create_monitor())?;
        self.terminal
            .leaves_running("standfast run --pgdata ./monitor", "monitor.log")?;
        eventually("the monitor answers", settle_deadline(), async || {
            self.terminal
                .types("standfast show state --pgdata ./monitor")
                .map(drop)
        })
        .await
    }

    /// A path of the desk.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.terminal.host.directory().join(name)
    }

    pub(super) fn is_untouched(&self, directory: &str, file: &str, text: &str) -> Result<()> {
        let directory = self.path(directory);
        let names: Vec<_> = fs::read_dir(&directory)?
            .flatten()
            .map(|it| it.file_name())
            .collect();
        ensure!(
            names == [file],
            "{} was touched: {names:?}",
            directory.display()
        );
        ensure!(
            fs::read_to_string(directory.join(file))? == text,
            "{file} was changed"
        );
        Ok(())
    }

    /// A directory of the user's with one file in it.
    pub(super) fn leave(&self, directory: &str, file: &str, text: &str) -> Result<()> {
        let path = self.path(directory);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        fs::write(path.join(file), text)?;
        self.terminal.host.identity().own(&path.join(file))?;
        self.terminal.host.identity().own(&path)
    }
}

impl Desk {
    /// Starts the agent of `directory` in a terminal of its own.
    pub(super) fn runs(&self, directory: &str) -> Result<Running> {
        Running::start(
            &self.terminal,
            &format!("standfast run --pgdata {directory}"),
        )
    }

    /// The configuration file that `create` wrote for a directory of the desk.
    pub(super) fn configuration(&self, directory: &str) -> PathBuf {
        let path = self.path(directory);
        let below = path.strip_prefix("/").unwrap_or(&path);
        let home = self.terminal.host.home().join(".config/standfast");
        home.join(below).join("standfast.yml")
    }

    /// Waits until the monitor shows as many nodes as there are `states`, reported and
    /// assigned in these states.
    pub(super) async fn sees(&self, states: &[&str]) -> Result<()> {
        eventually(
            &format!("the states {states:?}"),
            settle_deadline(),
            async || {
                let table = self
                    .terminal
                    .types("standfast show state --pgdata ./monitor")?;
                let rows: Vec<&str> = table.trim().lines().skip(2).collect();
                let fits = rows.len() == states.len()
                    && rows
                        .iter()
                        .zip(states)
                        .all(|(row, state)| row.matches(state).count() == 2);
                ensure!(fits, "{table}");
                Ok(())
            },
        )
        .await
    }
}

/// Writes a file of the lab's user that nobody else may read.
pub(super) fn write_private(host: &Host, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    host.identity().own(file)
}

/// A command line that must be refused; one that goes on running instead is ended.
pub(super) fn refused(terminal: &Terminal, line: &str, code: i32, words: &[&str]) -> Result<Said> {
    let said = terminal.tries(&format!("timeout --signal=INT 20 {line}"))?;
    said.refuses(code, words)?;
    Ok(said)
}

/// An agent that was left running. It is killed when this is dropped.
pub(super) struct Running {
    child: Child,
    log: PathBuf,
    host: Arc<Host>,
}

impl Running {
    pub(super) fn start(terminal: &Terminal, line: &str) -> Result<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = format!("run-{number}.log");
        Ok(Self {
            child: terminal.leaves_running(line, &log)?,
            log: terminal.host.directory().join(log),
            host: Arc::clone(&terminal.host),
        })
    }

    pub(super) fn log(&self) -> String {
        fs::read(&self.log)
            .map(|raw| String::from_utf8_lossy(&raw).into_owned())
            .unwrap_or_default()
    }

    /// Waits until every one of `words` stands in its log.
    pub(super) async fn says(&self, words: &[&str]) -> Result<()> {
        eventually(
            &format!("the log says {words:?}"),
            settle_deadline(),
            async || {
                let log = self.log();
                let silent: Vec<_> = words.iter().filter(|word| !log.contains(**word)).collect();
                ensure!(silent.is_empty(), "nothing said of {silent:?}: {log}");
                Ok(())
            },
        )
        .await
    }

    /// Ctrl-C, and its exit code; an agent that was stopped in order ends with 0, one that had not
    /// yet begun to listen by the signal.
    pub(super) async fn interrupt(mut self) -> Result<Option<i32>> {
        let pid = i32::try_from(self.child.id())?;
        self.host.signal(pid, Signal::INT)?;
        let mut ended = None;
        until("the agent ends after Ctrl-C", settle_deadline(), || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })
        .await
        .with_context(|| self.log())?;
        let log = self.log();
        ensure!(!log.contains("panicked"), "{log}");
        Ok(ended.and_then(|status| status.code()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
