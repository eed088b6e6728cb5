//! One node: its configuration file, its agent, its Postgres, its log.

use crate::http::request_by_https;
use crate::{Answer, Host, eventually, request};
use anyhow::{Context, Result, bail, ensure};
use api::client::{Client, Method};
use rustix::process::Signal;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::NoTls;

/// The passwords of the lab's roles. They begin with `planted-`, so that a log that shows one is
/// found out.
#[derive(Clone, Debug)]
pub struct Passwords {
    pub superuser: String,
    pub replication: String,
    pub rewind: String,
    /// Of `admin`, for what changes something through the REST interface.
    pub rest: String,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            superuser: "planted-superuser-4711".to_owned(),
            replication: "planted-replication-4712".to_owned(),
            rewind: "planted-rewind-4713".to_owned(),
            rest: "planted-rest-4714".to_owned(),
        }
    }
}

/// A node of a cluster; a monitor is one without Postgres.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub host: Arc<Host>,
    /// host:port of its REST interface.
    pub api: String,
    /// The port of its Postgres, if it has one.
    pub pg_port: Option<u16>,
    pub data_dir: PathBuf,
    /// What its agent is started with.
    pub(crate) run: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) binary: PathBuf,
    pub(crate) superuser: String,
    pub(crate) password: Option<String>,
    pub(crate) agent: Option<Child>,
    /// Where its REST interface speaks HTTPS.
    pub(crate) https: Option<Client>,
}

impl Node {
    /// A Postgres that somebody else looks after, as far as SQL and signals go.
    pub fn plain(name: &str, host: Arc<Host>, pg_port: u16, data_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            api: String::new(),
            pg_port: Some(pg_port),
            data_dir,
            run: Vec::new(),
            environment: Vec::new(),
            binary: PathBuf::new(),
            superuser: "postgres".to_owned(),
            password: None,
            agent: None,
            https: None,
            host,
        }
    }

    /// A command of the node's `standfast`, as its user would type it on that host.
    pub fn standfast(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(&self.binary);
        command
            .args(arguments)
            .envs(self.environment.iter().cloned());
        command
    }

    pub fn log_path(&self) -> PathBuf {
        self.host.directory().join(format!("{}.log", self.name))
    }

    /// Everything that its agent has logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|raw| String::from_utf8_lossy(&raw).into_owned())
            .unwrap_or_default()
    }

    /// The log that its Postgres writes.
    pub fn postgres_log(&self) -> String {
        let data = self.host.outside(&self.data_dir);
        ["log", "pg_log"]
            .iter()
            .filter_map(|directory| fs::read_dir(data.join(directory)).ok())
            .flatten()
            .filter_map(|entry| fs::read(entry.ok()?.path()).ok())
            .map(|raw| String::from_utf8_lossy(&raw).into_owned())
            .collect()
    }

    /// Adds lines to the file that its agent was started with.
    pub fn write_to_its_file(&self, text: &str) -> Result<()> {
        let file = self.run.last().context("a file that it was started with")?;
        let file = self.host.outside(Path::new(file));
        let opened = OpenOptions::new().append(true).open(&file);
        let mut opened = opened.with_context(|| format!("open {}", file.display()))?;
        opened.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Starts the agent. It must not be running.
    pub fn start(&mut self) -> Result<()> {
        ensure!(
            !self.is_running(),
            "the agent of {} runs already",
            self.name
        );
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let arguments: Vec<&str> = self.run.iter().map(String::as_str).collect();
        let child = self
            .standfast(&arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at our terminal is not meant for it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start the agent of {}", self.name))?;
        self.agent = Some(child);
        Ok(())
    }

    /// Whether the agent runs; a dead one is reaped.
    pub fn is_running(&mut self) -> bool {
        match &mut self.agent {
            None => false,
            Some(child) => {
                let runs = matches!(child.try_wait(), Ok(None));
                if !runs {
                    self.agent = None;
                }
                runs
            }
        }
    }

    pub fn agent_pid(&self) -> Result<i32> {
        let child = self.agent.as_ref();
        let child = child.with_context(|| format!("the agent of {} does not run", self.name))?;
        i32::try_from(child.id()).context("a pid that fits")
    }

    /// A signal to the agent alone.
    pub fn signal_agent(&self, signal: Signal) -> Result<()> {
        self.host.signal(self.agent_pid()?, signal)
    }

    /// SIGKILL to the agent alone; guard and Postgres live on.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.signal_agent(Signal::KILL)?;
        if let Some(mut child) = self.agent.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and the agent's own exit status.
    pub async fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal_agent(Signal::TERM)?;
        let mut child = self.agent.take().context("the agent does not run")?;
        let what = format!("the agent of {} ends after SIGTERM", self.name);
        eventually(&what, deadline, async || {
            child.try_wait()?.context("it still runs")
        })
        .await
    }

    /// Kills everything on the node's host; a power cut without the loss of what is on disk.
    pub fn kill_everything(&mut self) -> Result<()> {
        self.host.kill_everything()?;
        if let Some(mut child) = self.agent.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// The pid of the postmaster, as its own pid file says it, if that process lives.
    pub fn postmaster_pid(&self) -> Result<i32> {
        let file = self.host.outside(&self.data_dir.join("postmaster.pid"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let first = text.lines().next().unwrap_or_default().trim();
        let pid: i32 = first
            .parse()
            .with_context(|| format!("{first:?} is no pid"))?;
        if !crate::processes::is_alive(pid) {
            bail!("the postmaster {pid} of {} is dead", self.name);
        }
        Ok(pid)
    }

    /// SIGKILL to the postmaster alone; its backends find out by themselves.
    pub fn kill_postmaster(&self) -> Result<()> {
        self.host.signal(self.postmaster_pid()?, Signal::KILL)
    }

    /// GET of a path of its REST interface.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.rest(Method::GET, path, None, None, Duration::from_millis(800))
            .await
    }

    /// Any request to it, with a JSON body and a token if they are given.
    pub(crate) async fn rest(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
        bearer: Option<&str>,
        deadline: Duration,
    ) -> Result<Answer> {
        let api = &self.api;
        match &self.https {
            None => request(method.as_str(), api, path, body, bearer, deadline).await,
            Some(client) => {
                request_by_https(client, method, api, path, body, bearer, deadline).await
            }
        }
    }

    /// Waits until its REST interface answers at all.
    pub async fn wait_for_api(&mut self) -> Result<()> {
        let what = format!("{} answers on {}", self.name, self.api);
        eventually(&what, Duration::from_secs(20), async || {
            ensure!(self.is_running(), "its agent has ended: {}", self.log());
            self.get("/liveness").await.map(drop)
        })
        .await
    }

    /// Waits until it answers from the store.
    pub async fn wait_for_store(&self) -> Result<()> {
        let what = format!("{} answers from the store", self.name);
        eventually(&what, Duration::from_secs(20), async || {
            let answer = self.get("/api/v1/state").await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
            Ok(())
        })
        .await
    }

    /// Whether the node says of itself that it is the open primary.
    pub async fn is_primary(&self) -> bool {
        self.pg_port.is_some()
            && self
                .get("/primary")
                .await
                .is_ok_and(|answer| answer.status == 200)
    }

    /// How to reach its Postgres.
    pub fn sql_config(&self) -> Result<tokio_postgres::Config> {
        let port = self
            .pg_port
            .with_context(|| format!("{} has no Postgres", self.name))?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.host.address())
            .port(port)
            .user(&self.superuser)
            .dbname("postgres")
            .application_name("standfast-lab")
            .connect_timeout(Duration::from_secs(1));
        if let Some(password) = &self.password {
            config.password(password);
        }
        Ok(config)
    }

    /// A connection of its own to this node's Postgres.
    pub async fn sql(&self) -> Result<tokio_postgres::Client> {
        let config = self.sql_config()?;
        let connecting = tokio::time::timeout(Duration::from_secs(2), config.connect(NoTls));
        let (client, connection) = connecting
            .await
            .with_context(|| format!("connect to {}: no answer", self.name))?
            .with_context(|| format!("connect to {}", self.name))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// One value of one row.
    pub async fn ask<T>(&self, question: &str) -> Result<T>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let client = self.sql().await?;
        let asking = tokio::time::timeout(Duration::from_secs(5), client.query_one(question, &[]));
        let row = asking
            .await
            .with_context(|| format!("{question}: no answer"))??;
        row.try_get(0).with_context(|| question.to_owned())
    }
}

impl Node {
    /// Lets the agent live on when this is dropped.
    pub fn leave_running(&mut self) {
        self.agent = None;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.agent.take() {
            self.host.resume_disks();
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
