//! Patroni's own programs, as `scripts/patroni.sh` fetched them into `target/patroni`. A test fetches nothing itself.

use crate::{Said, Terminal, World};
use anyhow::{Context, Result, ensure};
use lab::Passwords;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The directory of Patroni's programs; the error says how to get them.
pub fn patroni_programs() -> Result<PathBuf> {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/patroni/bin");
    let bin = bin.canonicalize().unwrap_or(bin);
    ensure!(
        bin.join("patronictl").is_file(),
        "no Patroni here: run `scripts/patroni.sh`"
    );
    Ok(bin)
}

/// `patronictl` with its configuration file, on the first host of a world.
#[derive(Clone, Debug)]
pub struct Patronictl {
    terminal: Terminal,
    program: String,
}

impl Patronictl {
    /// Patroni's own, for a world on etcd.
    pub fn theirs(world: &mut World<'_>) -> Result<Self> {
        let program = patroni_programs()?.join("patronictl");
        let hosts = world.etcd()?.addresses().join("\", \"");
        let etcd = format!("etcd3: {{hosts: [\"{hosts}\"]}}\n");
        Self::of(world, &program.display().to_string(), "theirs", &etcd)
    }

    /// Ours under that name, with etcd where the world has one, else by the last node's REST interface.
    pub fn ours(world: &mut World<'_>) -> Result<Self> {
        let link = world.lab.path().join("patronictl");
        if !link.exists() {
            symlink("standfast", &link)?;
        }
        match world.etcd() {
            Ok(etcd) => {
                let etcd = format!("etcd3: {{hosts: '{}'}}\n", etcd.addresses().join(","));
                Self::of(world, "patronictl", "ours", &etcd)
            }
            Err(_) => {
                let last = world.cluster.nodes.last().context("a node")?;
                let program = format!("patronictl -d http://{}", last.api);
                Self::of(world, &program, "ours", "")
            }
        }
    }

    fn of(world: &mut World<'_>, program: &str, name: &str, etcd: &str) -> Result<Self> {
        let text = format!(
            "scope: lab\n{etcd}ctl: {{authentication: {{username: admin, password: {}}}}}\n",
            Passwords::default().rest
        );
        let file = world.lab.path().join(format!("{name}.yml"));
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        world.lab.identity().own(&file)?;
        let host = world.cluster.nodes.first().context("a node")?.host.clone();
        Ok(Self {
            terminal: Terminal { host },
            program: format!("{program} -c {}", file.display()),
        })
    }

    /// What it prints when it succeeds.
    pub fn types(&self, words: &str) -> Result<String> {
        self.terminal.types(&format!("{} {words}", self.program))
    }

    /// The same with lines typed while it runs.
    pub fn reads(&self, lines: &str, words: &str) -> Result<String> {
        let line = format!("printf '%s\\n' '{lines}' | {} {words}", self.program);
        self.terminal.types(&line)
    }

    /// However it ends.
    pub fn tries(&self, words: &str) -> Result<Said> {
        self.terminal.tries(&format!("{} {words}", self.program))
    }
}
