//! Nodes for the tests: real servers on loopback, in directories that go with them.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper fails as its test does; figures are for whoever reads the output"
)]
#![allow(unreachable_pub, reason = "a module of tests")]

use ha::NodeName;
use postgres::{
    Access, CloneProgress, Instance, Login, Options, Probe, Replace, Started, Stop, SyncNames,
    Upstream,
};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_postgres::{Client, NoTls};

/// Long enough for a busy machine; nothing waits for it to pass.
pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const PASSWORD: &str = "it's a \\ \"secret\" 4711";

/// Runs a test as a user that PostgreSQL accepts: root runs it again as `postgres`.
pub(crate) fn run(name: &str, test: impl Future<Output = ()>) {
    if rustix::process::geteuid().is_root() {
        return run_as_postgres(name, &[]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

pub(crate) fn run_as_postgres(name: &str, env: &[(&str, &str)]) {
    let status = Command::new("setpriv")
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .envs(env.iter().copied())
        .current_dir("/tmp")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed as the user postgres");
}

/// A port that nobody has: below the range that the kernel gives to clients, so that none takes it later.
fn free_port() -> u16 {
    let begin = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (begin..32_000)
        .find(|port| {
            let free = TcpListener::bind(("127.0.0.1", *port)).is_ok();
            // Held by name until the server has it: two tests must not choose the same.
            free && std::fs::create_dir(format!("/tmp/standfast-port-{port}")).is_ok()
        })
        .unwrap()
}

/// A node; dropped, its processes are killed and its directories removed.
pub(crate) struct Node {
    pub(crate) instance: Instance,
    pub(crate) options: Options,
    dir: TempDir,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sf-pg-")
            .tempdir_in("/tmp")
            .unwrap();
        Self::in_dir(name, dir)
    }

    pub(crate) fn in_dir(name: &str, dir: TempDir) -> Self {
        let options = Self::options(name, &dir);
        Self::with_options(options, dir)
    }

    pub(crate) fn with_options(options: Options, dir: TempDir) -> Self {
        let instance = Instance::open(options.clone()).unwrap();
        Self {
            instance,
            options,
            dir,
        }
    }

    /// With the options as they are now; nothing has been started yet.
    pub(crate) fn again(mut self) -> Self {
        self.instance = Instance::open(self.options.clone()).unwrap();
        self
    }

    pub(crate) fn options(name: &str, dir: &TempDir) -> Options {
        let guard = PathBuf::from(env!("CARGO_BIN_EXE_postgres-guard-test"));
        let node = NodeName::new(name).unwrap();
        let mut options = Options::new(
            node,
            dir.path().join("data"),
            dir.path().join("state"),
            guard,
        );
        options.port = free_port();
        // Another version's programs, to run all of this on.
        options.bin_dir = std::env::var_os("STANDFAST_PG_BIN").map(PathBuf::from);
        options.superuser = Login::new("postgres", PASSWORD);
        options.replication = Login::new("replicator", PASSWORD);
        options.rewind = Login::new("rewind user", PASSWORD);
        options.initdb_args = vec!["--no-sync".to_owned()];
        options.basebackup_args = vec!["--no-sync".to_owned()];
        for (name, value) in [("shared_buffers", "16MB"), ("max_connections", "30")] {
            options.parameters.insert(name.to_owned(), value.to_owned());
        }
        let socket_dir = dir.path().display().to_string();
        options
            .parameters
            .insert("unix_socket_directories".to_owned(), socket_dir);
        options.pg_hba = vec![
            "host all app 127.0.0.1/32 trust".to_owned(),
            "local all app trust".to_owned(),
        ];
        options
    }

    pub(crate) fn name(&self) -> NodeName {
        self.options.node.clone()
    }

    /// A new primary that lets clients in.
    pub(crate) async fn primary(name: &str) -> Self {
        Self::started(Self::new(name)).await
    }

    /// The same of this node.
    pub(crate) async fn started(node: Self) -> Self {
        node.instance.init().await.unwrap();
        let started = node.instance.start_primary(LONG).await.unwrap();
        assert_eq!(started, Started::Accepting);
        node.instance.ensure_roles(LONG).await.unwrap();
        node.sql("CREATE ROLE app LOGIN").await;
        node.sql("CREATE TABLE t (n bigint)").await;
        node.sql("GRANT ALL ON t TO app").await;
        node.instance.access(Access::Open).await.unwrap();
        node
    }

    /// A standby of `primary` that streams.
    pub(crate) async fn standby(name: &str, primary: &Self) -> Self {
        let node = Self::new(name);
        node.clone_of(primary).await;
        node.start_following(primary).await;
        node
    }

    pub(crate) async fn clone_of(&self, primary: &Self) {
        let (tell, _) = watch::channel(CloneProgress::default());
        self.instance
            .clone_from(&primary.upstream(), Replace::Refuse, tell)
            .await
            .unwrap();
    }

    pub(crate) async fn start_following(&self, primary: &Self) {
        let started = self
            .instance
            .start_standby(Some(primary.upstream()), LONG)
            .await
            .unwrap();
        assert_eq!(started, Started::Accepting);
        self.instance.access(Access::Open).await.unwrap();
        self.streams().await;
    }

    /// How others reach this node.
    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            name: self.name(),
            host: "127.0.0.1".to_owned(),
            port: self.options.port,
            slot: None,
            remote: None,
            timeline: None,
        }
    }

    pub(crate) async fn probe(&self) -> Probe {
        self.instance.probe(LONG).await.unwrap()
    }

    pub(crate) async fn streams(&self) {
        wait("streaming", async || {
            self.probe()
                .await
                .receiver
                .filter(|receiver| receiver.status == "streaming")
        })
        .await;
    }

    /// A session of the application.
    pub(crate) async fn client(&self) -> Client {
        self.try_client("app", None).await.unwrap()
    }

    pub(crate) async fn try_client(
        &self,
        user: &str,
        password: Option<&str>,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.options.port)
            .user(user)
            .dbname("postgres");
        if let Some(password) = password {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// As the superuser, over the private socket.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.options.state_dir.join("socket"))
            .port(self.options.port);
        config.user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let messages = client.simple_query(sql).await.unwrap();
        let value = |message: &tokio_postgres::SimpleQueryMessage| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some(row.get(0).unwrap_or_default().to_owned())
            }
            _ => None,
        };
        messages.iter().filter_map(value).collect()
    }

    pub(crate) async fn count(&self) -> i64 {
        self.sql("SELECT count(*) FROM t").await[0].parse().unwrap()
    }

    pub(crate) async fn insert(&self, n: i64) {
        self.client()
            .await
            .execute("INSERT INTO t VALUES ($1)", &[&n])
            .await
            .unwrap();
    }

    pub(crate) fn any_one(names: &[&Self]) -> SyncNames {
        SyncNames::any(1, names.iter().map(|node| node.name()))
    }

    pub(crate) async fn stop(&self, how: Stop) {
        self.instance.stop(how, LONG).await.unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.options.state_dir.join("postgres.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(guard) = self.instance.guard() {
            guard.fence();
        }
        let _ = guard::kill_leftovers(&self.options.data_dir, LONG);
        let _ = std::fs::remove_dir(format!("/tmp/standfast-port-{}", self.options.port));
        if std::thread::panicking() {
            let log = self.log();
            let begin = log.len().saturating_sub(6000);
            println!("--- log of {} ---\n{}", self.options.node, &log[begin..]);
        }
    }
}

/// Waits for something to be true, with a limit.
pub(crate) async fn wait<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(value) = done().await {
            return value;
        }
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
