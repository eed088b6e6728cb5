//! A program that serves on a host beside the cluster, as a load balancer or a monitoring server does.

use crate::Host;
use anyhow::{Context, Result, ensure};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

/// Started, and killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    host: Arc<Host>,
    process: Child,
    log: PathBuf,
}

impl Service {
    /// `program arguments…` on `host`, in its directory. It has a session of its own, as a service has one: Linux
    /// shares out the processors by sessions first (`sched_autogroup`), and a service gets no part of its client's.
    pub fn start(host: &Arc<Host>, program: &str, arguments: &[&str]) -> Result<Self> {
        let log = host.directory().join(format!("{program}.log"));
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let process = host
            .command("setsid")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {program} on {}", host.name()))?;
        Ok(Self {
            host: Arc::clone(host),
            process,
            log,
        })
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// That it has not ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "it ended: {ended:?}: {}", self.log());
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.host.kill_everything();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A file in the host's directory; gives its path.
pub fn file_of(host: &Host, name: &str, text: &str) -> Result<PathBuf> {
    let path = host.directory().join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    readable(&path)?;
    Ok(path)
}

fn readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o644),
    )?)
}
