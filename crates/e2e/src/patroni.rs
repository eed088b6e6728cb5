//! Patroni's own programs, as `scripts/patroni.sh` fetched them into `target/patroni`. A test fetches nothing itself.

use crate::{Said, Terminal, World, settle_deadline};
use anyhow::{Context, Result, ensure};
use lab::{Etcd, Host, Lab, Passwords, eventually};
use rustix::process::Signal;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{NoTls, SimpleQueryMessage};

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
        let etcd = world.etcd()?.addresses();
        let host = world.cluster.nodes.first().context("a node")?.host.clone();
        Self::theirs_on(world.lab, host, &etcd)
    }

    /// The same on a host without a world.
    pub fn theirs_on(lab: &Lab, host: Arc<Host>, etcd: &[String]) -> Result<Self> {
        let program = patroni_programs()?.join("patronictl");
        let etcd = format!("etcd3: {{hosts: [\"{}\"]}}\n", etcd.join("\", \""));
        Self::of(lab, host, &program.display().to_string(), "theirs", &etcd)
    }

    /// Ours under that name, on a host without a world.
    pub fn ours_on(lab: &Lab, host: Arc<Host>, etcd: &[String]) -> Result<Self> {
        let link = lab.path().join("patronictl");
        if !link.exists() {
            symlink(lab.binary(), &link)?;
        }
        let etcd = format!("etcd3: {{hosts: '{}'}}\n", etcd.join(","));
        Self::of(lab, host, &link.display().to_string(), "ours", &etcd)
    }

    /// Ours under that name, with etcd where the world has one, else by the last node's REST interface.
    pub fn ours(world: &mut World<'_>) -> Result<Self> {
        let link = world.lab.path().join("patronictl");
        if !link.exists() {
            symlink("standfast", &link)?;
        }
        let (program, etcd) = match world.etcd() {
            Ok(etcd) => {
                let etcd = format!("etcd3: {{hosts: '{}'}}\n", etcd.addresses().join(","));
                ("patronictl".to_owned(), etcd)
            }
            Err(_) => {
                let last = world.cluster.nodes.last().context("a node")?;
                (format!("patronictl -d http://{}", last.api), String::new())
            }
        };
        let host = world.cluster.nodes.first().context("a node")?.host.clone();
        Self::of(world.lab, host, &program, "ours", &etcd)
    }

    fn of(lab: &Lab, host: Arc<Host>, program: &str, name: &str, etcd: &str) -> Result<Self> {
        let text = format!(
            "scope: lab\n{etcd}ctl: {{authentication: {{username: admin, password: {}}}}}\n",
            Passwords::default().rest
        );
        let file = lab.path().join(format!("{name}.yml"));
        write_private(lab, &file, &text)?;
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
        self.tries_with("", words)
    }

    /// With variables of the shell's before it.
    pub fn tries_with(&self, variables: &str, words: &str) -> Result<Said> {
        let program = &self.program;
        self.terminal
            .tries(&format!("{variables}{program} {words}"))
    }
}

/// A node that Patroni runs, from a file that `standfast run` takes as well.
#[derive(Debug)]
pub struct PatroniNode {
    pub host: Arc<Host>,
    file: PathBuf,
    agent: Option<Child>,
}

impl PatroniNode {
    /// Not started.
    pub fn new(lab: &mut Lab, name: &str, number: u8, etcd: &Etcd) -> Result<Self> {
        let host = lab.add_host(name, number)?;
        let (base, address) = (host.directory().to_owned(), host.address());
        let passwords = Passwords::default();
        let text = format!(
            "scope: lab
name: {name}
etcd3: {{hosts: '{etcd}'}}
restapi: {{listen: '{address}:8008', connect_address: '{address}:8008', authentication: {{username: admin, password: {rest}}}}}
bootstrap:
  dcs: {{ttl: 20, loop_wait: 1, retry_timeout: 3, postgresql: {{use_pg_rewind: true}}}}
  initdb: [{{encoding: UTF8}}, data-checksums]
postgresql:
  listen: '{address}:5432'
  connect_address: '{address}:5432'
  data_dir: {base}/data
  bin_dir: {bin}
  pgpass: {base}/pgpass
  pg_hba: ['local all all trust', 'host replication all 0.0.0.0/0 scram-sha-256', 'host all all 0.0.0.0/0 scram-sha-256']
  authentication: {{superuser: {{username: postgres, password: {superuser}}}, replication: {{username: replicator, password: {replication}}}, rewind: {{username: rewind, password: {rewind}}}}}
  parameters: {{unix_socket_directories: {base}/run}}
",
            etcd = etcd.addresses().join(","),
            base = base.display(),
            bin = host.pg_bin().display(),
            rest = passwords.rest,
            superuser = passwords.superuser,
            replication = passwords.replication,
            rewind = passwords.rewind,
        );
        let file = base.join("patroni.yml");
        write_private(lab, &file, &text)?;
        Ok(Self {
            host,
            file,
            agent: None,
        })
    }

    pub fn start_patroni(&mut self) -> Result<()> {
        let program = patroni_programs()?.join("patroni");
        let mut command = self.host.command(program);
        command.arg(&self.file);
        self.start(command, "patroni.log")
    }

    pub fn start_standfast(&mut self, lab: &Lab) -> Result<()> {
        let mut command = self.host.command(lab.binary());
        command.arg("run").arg(&self.file);
        self.start(command, "standfast.log")
    }

    fn start(&mut self, mut command: Command, log: &str) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.host.directory().join(log))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.agent = Some(command.spawn()?);
        Ok(())
    }

    /// As a service manager stops it: the agent, which stops its Postgres.
    pub async fn stop(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("it does not run")?;
        let pid = i32::try_from(agent.id())?;
        self.host.signal(pid, Signal::TERM)?;
        eventually("the agent has stopped", settle_deadline(), async || {
            agent.try_wait()?.context("it runs").map(drop)
        })
        .await
    }

    /// SIGKILL to all of it.
    pub fn kill(&mut self) -> Result<()> {
        self.host.kill_everything()?;
        if let Some(mut agent) = self.agent.take() {
            agent.wait()?;
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Where clients reach its Postgres.
    pub fn target(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.host.address())
            .user("postgres")
            .password(Passwords::default().superuser)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(2));
        config
    }

    pub fn log(&self) -> String {
        let log = self.host.directory().join("standfast.log");
        fs::read_to_string(log).unwrap_or_default()
    }

    /// One value, as the superuser.
    pub async fn ask(&self, sql: &str) -> Result<String> {
        let (client, connection) = self.target().connect(NoTls).await?;
        let running = tokio::spawn(connection);
        let rows = client.simple_query(sql).await;
        running.abort();
        let value = rows?.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    }
}

impl Drop for PatroniNode {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn write_private(lab: &Lab, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    lab.identity().own(file)
}
