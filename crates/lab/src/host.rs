//! A machine of the lab: a directory, its processes, and (in namespaces) its own network, memory
//! segments and mounts.

use crate::network::{self, Network};
use crate::processes::{Process, Selection};
use crate::{Identity, Place};
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where commands run and what they leave behind.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: String,
    directory: PathBuf,
    home: PathBuf,
    identity: Identity,
    pg_bin: PathBuf,
    selection: Selection,
    inside: Option<Inside>,
}

/// The namespaces of a host, kept open by a process that does nothing else.
#[derive(Debug)]
struct Inside {
    network: PathBuf,
    holder: Child,
}

impl Host {
    pub(crate) fn new(
        name: &str,
        address: &str,
        directory: PathBuf,
        identity: Identity,
        pg_bin: PathBuf,
        network: Option<&Network>,
    ) -> Result<Self> {
        // A machine of its own has a home of its own; on one machine a user has but one.
        let home = match network {
            Some(_) => directory.join("home"),
            None => directory.with_file_name("home"),
        };
        for part in [directory.clone(), home.clone(), directory.join("run")] {
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
            fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
            identity.own(&part)?;
        }
        let (selection, inside) = match network {
            None => (Selection::Directory(directory.clone()), None),
            Some(network) => (network.selection(name)?, Some(Inside::open(network, name)?)),
        };
        Ok(Self {
            name: name.to_owned(),
            address: address.to_owned(),
            directory,
            home,
            identity,
            pg_bin,
            selection,
            inside,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The home of the user on this host.
    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn pg_bin(&self) -> &Path {
        &self.pg_bin
    }

    pub fn place(&self) -> Place {
        if self.inside.is_some() {
            Place::Namespaces
        } else {
            Place::Loopback
        }
    }

    /// Whether the host has mounts of its own.
    pub fn has_own_mounts(&self) -> bool {
        self.inside.is_some()
    }

    /// Where a path of the host is to be found from outside.
    pub fn outside(&self, path: &Path) -> PathBuf {
        match (&self.inside, path.strip_prefix("/")) {
            (Some(inside), Ok(relative)) => {
                Path::new(&format!("/proc/{}/root", inside.holder.id())).join(relative)
            }
            _ => path.to_owned(),
        }
    }

    /// A command on this host, as the user of the lab, in the host's directory, with an
    /// environment that owes nothing to ours.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut words = self.entrance();
        words.extend(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh"].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(&self.directory);
        command.args(self.identity.prefix()).arg(program);
        self.environment(&mut command);
        command
    }

    /// A command inside the host's namespaces, as root.
    pub(crate) fn as_root(&self, program: &str) -> Result<Command> {
        if self.inside.is_none() {
            bail!(
                "{} has no namespaces of its own: this needs root",
                self.name
            );
        }
        let words = self.entrance();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        Ok(command)
    }

    fn entrance(&self) -> Vec<String> {
        match &self.inside {
            None => Vec::new(),
            Some(inside) => vec![
                "nsenter".to_owned(),
                format!("--target={}", inside.holder.id()),
                "--ipc".to_owned(),
                "--mount".to_owned(),
                format!("--net={}", inside.network.display()),
                "--".to_owned(),
            ],
        }
    }

    /// `standfast` lies in the lab's directory, where a person would have it on the PATH.
    fn environment(&self, command: &mut Command) {
        let path = format!(
            "{}:{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            self.directory.parent().unwrap_or(&self.directory).display(),
            self.pg_bin.display()
        );
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.home)
            .env("USER", self.identity.name())
            .env("LC_ALL", "C.UTF-8")
            .env("RUST_BACKTRACE", "1");
    }

    pub fn processes(&self) -> Vec<Process> {
        self.selection.processes()
    }

    /// SIGKILL to everything on the host, until nothing is left.
    pub fn kill_everything(&self) -> Result<()> {
        self.selection
            .kill_all(Duration::from_secs(10))
            .with_context(|| format!("kill everything on {}", self.name))
    }

    /// SIGSTOP to everything on the host.
    pub fn freeze(&self) -> Result<()> {
        self.selection.signal_all(Signal::STOP).map(drop)
    }

    /// SIGCONT to everything on the host.
    pub fn thaw(&self) -> Result<()> {
        self.selection.signal_all(Signal::CONT).map(drop)
    }

    /// Lets every hung disk of the host go on; a process that waits for one can't even be killed.
    pub(crate) fn resume_disks(&self) {
        if let Some(inside) = &self.inside {
            let pid = i32::try_from(inside.holder.id()).unwrap_or_default();
            crate::disk::thaw_frozen_by(pid);
        }
    }

    /// A signal to one process of this host.
    pub fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        crate::processes::signal_if(pid, signal, || {
            self.processes().iter().any(|process| process.pid == pid)
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.resume_disks();
        let _ = self.kill_everything();
        if let Some(inside) = &mut self.inside {
            let _ = inside.holder.kill();
            let _ = inside.holder.wait();
        }
    }
}

impl Inside {
    fn open(network: &Network, name: &str) -> Result<Self> {
        let bridge = network::path_of(&network.bridge());
        // The holder stands in the bridge's network, so that killing the host spares it.
        // Two machines share neither memory segments nor Debian's directory of sockets.
        let script = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm && mkdir -p /run/postgresql \
            && mount -t tmpfs -o mode=1777 tmpfs /run/postgresql \
            && echo ready && exec sleep infinity";
        let mut holder = Command::new("nsenter")
            .arg(format!("--net={}", bridge.display()))
            .args([
                "unshare",
                "--ipc",
                "--mount",
                "--propagation",
                "private",
                "--",
            ])
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the holder of the host's namespaces")?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != "ready" {
            let _ = holder.kill();
            let _ = holder.wait();
            bail!("the namespaces of {name} could not be made (is this root?)");
        }
        Ok(Self {
            network: network::path_of(&network.namespace(name)),
            holder,
        })
    }
}
