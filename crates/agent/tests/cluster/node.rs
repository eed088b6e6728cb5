//! A node of the cluster in this process: its agent, its Postgres, and what is asked of them.

use agent::{Agent, Handle, Options};
use ha::{NodeName, Postgres};
use postgres::{Instance, Login};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::layout::{ConfigRecord, Keys};
use store::{MemoryStore, Store};
use tokio::sync::watch;

/// Ports of 127.0.0.1 that nobody uses.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let count = u16::try_from(N).expect("a few");
    let first = lab::free_ports(count).expect("free ports");
    std::array::from_fn(|n| first + u16::try_from(n).expect("a few"))
}

/// A node of the cluster, in this process.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) port: u16,
    pub(crate) instance: Instance,
    pub(crate) shown: watch::Receiver<Arc<api::Served>>,
    pub(crate) errands: tokio::sync::mpsc::Sender<api::errand::Errand>,
    pub(crate) handle: Handle,
    pub(crate) task: tokio::task::JoinHandle<agent::Ended>,
}

pub(crate) async fn start(
    root: &Path,
    store: &MemoryStore,
    keys: &Keys,
    name: &str,
    port: u16,
) -> Node {
    let wishes = Wishes {
        tags: serde_json::json!({ "zone": name }),
        ..Wishes::default()
    };
    wishing(root, store, keys, name, port, wishes).await
}

/// What a node has that others have not.
#[derive(Default)]
pub(crate) struct Wishes {
    pub(crate) tags: serde_json::Value,
    pub(crate) watchdog: Option<agent::Watchdog>,
    pub(crate) bin_dir: Option<PathBuf>,
    pub(crate) bootstrap: serde_json::Value,
    pub(crate) parameters: Vec<(&'static str, &'static str)>,
    pub(crate) copies: Vec<postgres::Copying>,
    /// Another installation by this name, which nobody has registered.
    pub(crate) twin: bool,
}

/// The same with these wishes. A watchdog device is a pipe.
pub(crate) async fn wishing(
    root: &Path,
    store: &MemoryStore,
    keys: &Keys,
    name: &str,
    port: u16,
    wishes: Wishes,
) -> Node {
    let name = NodeName::new(name).expect("a plain name");
    let identity = match wishes.twin {
        true => format!("{name}-twin"),
        false => name.to_string(),
    };
    let dir = root.join(&identity);
    let exe = std::env::current_exe().expect("this program");
    let mut options =
        postgres::Options::new(name.clone(), dir.join("data"), dir.join("state"), exe);
    options.guard_args = vec!["guard".into()];
    options.watchdog = wishes.watchdog.as_ref().map(|it| guard::Watchdog {
        device: it.device.clone(),
        plain: true,
    });
    options.port = port;
    options.superuser = Login::new("postgres", "super");
    options.replication = Login::new("replicator", "rep");
    options.rewind = Login::new("rewind", "rew");
    options.pg_hba = vec![
        "local all all trust".into(),
        "host all all 127.0.0.1/32 trust".into(),
    ];
    options.parameters.insert("fsync".into(), "on".into());
    for (name, value) in wishes.parameters {
        options.parameters.insert(name.into(), value.into());
    }
    options.bin_dir = wishes.bin_dir;
    options.copies = wishes.copies;
    let instance = Instance::open(options).expect("an instance");
    let (errands, asked) = tokio::sync::mpsc::channel(1);
    let (served, shown) = watch::channel(Arc::new(api::Served::new("test", name.clone())));
    let store: Arc<dyn Store> = Arc::new(store.handle());
    let register = api::v1::Register {
        name: Some(name.clone()),
        host: "127.0.0.1".into(),
        port,
        api_url: "http://127.0.0.1:1".into(),
        identity: identity.clone(),
        priority: None,
        quorum: None,
        witness: false,
        ahead: false,
    };
    let registered = api::register(store.as_ref(), keys, "test", &register).await;
    assert_eq!(registered.is_ok(), !wishes.twin, "{registered:?}");
    let (agent, handle) = Agent::start(Options {
        name: name.clone(),
        keys: keys.clone(),
        store,
        instance: instance.clone(),
        state_dir: dir.join("state"),
        host: "127.0.0.1".into(),
        port,
        proxy_url: None,
        api_url: "http://127.0.0.1:1/patroni".into(),
        identity,
        tags: wishes.tags.as_object().cloned().unwrap_or_default(),
        bootstrap: ConfigRecord(wishes.bootstrap.as_object().cloned().unwrap_or_default()),
        post_bootstrap: Vec::new(),
        scope: "test".to_owned(),
        callbacks: agent::Programs::new(),
        hooks: agent::Hooks::default(),
        served,
        errands: asked,
        holds: Arc::new(agent::Holds::open(&dir.join("state")).expect("no word was given")),
        token: api::Token::derive(b"test"),
        client: api::client::Client::default(),
        keeper_on: tokio::runtime::Handle::current(),
        watchdog: wishes.watchdog,
    })
    .expect("an agent");
    let task = tokio::spawn(agent.run());
    Node {
        name,
        port,
        instance,
        shown,
        errands,
        handle,
        task,
    }
}

impl Node {
    pub(crate) fn state(&self) -> Option<ha::NodeState> {
        self.shown
            .borrow()
            .decision
            .as_ref()
            .map(|decision| decision.state)
    }

    pub(crate) fn is_open_primary(&self) -> bool {
        let served = self.shown.borrow();
        matches!(served.me.as_ref().map(|me| &me.postgres), Some(Postgres::Primary(it)) if it.open)
    }

    pub(crate) fn psql(&self, sql: &str) -> Option<String> {
        let output = Command::new("psql")
            .args(["-X", "-At", "-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(self.port.to_string())
            .args(["-c", sql, "postgres"])
            .env("PGCONNECT_TIMEOUT", "2")
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(crate) fn kill_postmaster(&self) {
        let pid = std::fs::read_to_string(self.instance.options().data_dir.join("postmaster.pid"))
            .expect("a pid file");
        let pid = pid.lines().next().and_then(|line| line.parse().ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let kill = rustix::process::Signal::KILL;
        let _ = rustix::process::kill_process(pid.expect("a pid"), kill);
    }
}

pub(crate) async fn until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{what}: {:?}", began.elapsed());
    began.elapsed()
}
