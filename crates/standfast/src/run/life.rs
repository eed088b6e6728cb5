//! A node's life: from its configuration to its running parts, and to their end in order.

use super::proxy::NodeProxy;
use super::store::{OwnStore, recover};
use super::threads::{Elsewhere, Threads};
use super::{agreed, certificates, instance, ports};
use crate::config::{BasicAuth, Config, Tags};
use crate::exit::{ExitCode, Failure};
use crate::paths::Homes;
use crate::pidfile::PidFile;
use crate::secret::ClusterSecret;
use crate::systemd::{self, State};
use ::postgres::Instance;
use ::store::layout::{Keys, NodeEntry};
use ::store::{Store, StoreError, Tls};
use agent::{Agent, Ended, Holds, StopOrder, Witness, WitnessOptions};
use anyhow::{Context as _, Result, bail};
use api::client::Trust;
use api::errand::Errand;
use api::holding::Holding;
use api::v1::{Code, Register};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

/// How long the store may take to answer before that is said again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Errands that the agent has not looked at yet.
const ERRANDS_WAITING: usize = 8;

/// A process that hears its signals and is no node yet.
pub(crate) struct Ready {
    threads: Threads,
    signals: Signals,
}

impl Ready {
    /// **Invariant:** comes before the pid file: who finds the process by that may send it any signal.
    pub(crate) fn new() -> Result<Self> {
        let threads = Threads::new()?;
        let signals = threads.with_runtime(Signals::take)?;
        Ok(Self { threads, signals })
    }

    /// Runs the node until it is told to stop. `_pid_file` is held for as long as that.
    pub(crate) fn run(
        self,
        config: Config,
        _pid_file: PidFile,
        log: Option<api::Backlog>,
    ) -> Result<ExitCode> {
        let signals = self.signals;
        self.threads
            .run(|elsewhere| run_node(config, log, elsewhere, signals))
    }
}

/// Makes this node's store member the only one of its cluster, after a majority is gone for good.
pub(crate) async fn recover_store(
    config: &Config,
    _pid_file: PidFile,
    yes: bool,
) -> Result<ExitCode> {
    let Some(raft) = config.raft() else {
        let what = format!("the store of {} is etcd: recover that", config.scope);
        return Err(Failure::usage(what).into());
    };
    if !yes {
        return Err(Failure::refused(format!(
            "the store of {} would go on from this member alone; what only the lost members knew is lost",
            config.scope
        ))
        .hint("if they are gone for good, repeat this with --yes; they must come back with empty store directories")
        .into());
    }
    recover(config, raft).await?;
    crate::output::line(&format!(
        "the store of {} goes on from {} alone",
        config.scope, config.name
    ));
    Ok(ExitCode::Ok)
}

/// What every part of the node's life needs.
struct Life {
    config: Config,
    secret: ClusterSecret,
    identity: String,
    keys: Keys,
    tls: Option<Tls>,
    /// For HTTPS.
    certificate: Option<api::Certificate>,
    /// For asking others by HTTPS.
    trust: Trust,
    own_store: OwnStore,
    store: Arc<dyn Store>,
    /// None: a monitor.
    instance: Option<Instance>,
    /// Where there is an instance.
    holds: Option<Arc<Holds>>,
    elsewhere: Elsewhere,
    log: Option<api::Backlog>,
    /// Told by `POST /reload`.
    reload: Arc<Notify>,
}

async fn run_node(
    config: Config,
    log: Option<api::Backlog>,
    elsewhere: Elsewhere,
    mut signals: Signals,
) -> Result<ExitCode> {
    // It may wait for long, and there is nothing yet that a stop would have to end in order.
    let (life, ports) = tokio::select! {
        prepared = Box::pin(prepare(config, log, elsewhere)) => prepared?,
        () = signals.stop() => {
            tracing::info!("told to stop before it has started");
            return Ok(ExitCode::Ok);
        }
    };
    let mut proxy = NodeProxy::start(&life.config, &life.store, &life.keys)?;
    let (served, shown) = watch::channel(Arc::new(life.first_picture()));
    let (errands, asking) = mpsc::channel(ERRANDS_WAITING);
    let api = api::Api::new(life.api_options(shown, errands));
    ports.serve(life.own_store.member(), &api, &life.elsewhere);
    tracing::info!(
        name = %life.config.name,
        api = %life.config.api_url(),
        "started, meeting the store"
    );
    systemd::tell(State::Ready);
    let result = tokio::select! {
        ended = life.lead(served, asking, proxy.as_ref(), signals) => ended,
        // The member has logged it.
        failure = life.own_store.failed() => Err(failure.into()),
    };
    // Postgres has stopped, if that was asked for: transactions that still run are another node's.
    if let Some(proxy) = &mut proxy
        && result.is_ok()
    {
        proxy.drain().await;
    }
    drop(proxy);
    life.own_store.shutdown().await;
    result
}

/// Everything that the node's life needs.
async fn prepare(
    config: Config,
    log: Option<api::Backlog>,
    elsewhere: Elsewhere,
) -> Result<(Life, ports::Ports)> {
    let secret = agreed::secret(&config, &elsewhere).await?;
    let tls = certificates::load(&config)?;
    let certificate = certificates::rest(&config)?;
    let trust = certificates::trust(&config);
    let identity = crate::create::identity(&config.state_dir)?;
    // First of all: nothing is founded or bound by a node that has no PostgreSQL to run.
    let instance = match &config.postgresql {
        Some(postgresql) => Some(instance::open(&config, postgresql, &secret)?),
        None => None,
    };
    let holds = match &instance {
        Some(_) => Some(Arc::new(Holds::open(&config.state_dir)?)),
        None => None,
    };
    let ports = ports::Ports::bind(&config, &elsewhere).await?;
    let own_store = OwnStore::open(&config, &secret, tls.clone(), &elsewhere).await?;
    let store = own_store.as_store();
    let keys = Keys::new(&config.namespace, &config.scope);
    let life = Life {
        config,
        secret,
        identity,
        keys,
        tls,
        certificate,
        trust,
        own_store,
        store,
        instance,
        holds,
        elsewhere,
        log,
        reload: Arc::default(),
    };
    Ok((life, ports))
}

impl Life {
    /// What is read again by whoever uses it.
    fn reload_certificates(&self, proxy: Option<&NodeProxy>) {
        if let Some(proxy) = proxy {
            proxy.reload();
        }
        certificates::reload(self.tls.as_ref());
        certificates::reload_rest(self.certificate.as_ref());
        self.trust.forget();
    }

    fn first_picture(&self) -> api::Served {
        let database = self
            .config
            .postgresql
            .as_ref()
            .map(|it| it.database.clone());
        api::Served {
            witness: self.config.is_witness(),
            tags: self.config.tags.shown.clone(),
            restores: self.config.bootstrap.restore.is_some(),
            database: database.unwrap_or_else(|| "postgres".to_owned()),
            ..api::Served::new(self.config.scope.clone(), self.config.name.clone())
        }
    }

    fn api_options(
        &self,
        served: watch::Receiver<Arc<api::Served>>,
        errands: mpsc::Sender<Errand>,
    ) -> api::Options {
        api::Options {
            keys: self.keys.clone(),
            store: Arc::clone(&self.store),
            token: self.secret.api_token(),
            basic_auth: self.config.restapi.authentication.as_ref().map(basic_auth),
            served,
            errands: self.instance.is_some().then_some(errands),
            reload: Arc::clone(&self.reload),
            certificate: self.certificate.clone(),
            gate: self.config.restapi.gate.clone(),
            certificates: self.tls.iter().map(|tls| ("store", tls.clone())).collect(),
            holding: self.holds.clone().map(|holds| holds as Arc<dyn Holding>),
            log: self.log.clone(),
            membership: self.own_store.membership(),
            not_taken: self.not_taken(),
        }
    }

    async fn lead(
        &self,
        served: watch::Sender<Arc<api::Served>>,
        asking: mpsc::Receiver<Errand>,
        proxy: Option<&NodeProxy>,
        signals: Signals,
    ) -> Result<ExitCode> {
        match &self.instance {
            None => self.watch_over(served, signals, proxy).await,
            Some(instance) => {
                let options = self.agent_options(instance, served, asking)?;
                Box::pin(self.look_after_postgres(instance, options, signals, proxy)).await
            }
        }
    }

    /// A monitor does not know the major version, and takes every line for one of a version that it does not know yet.
    fn not_taken(&self) -> api::NotTaken {
        let instance = self.instance.as_ref();
        api::NotTaken {
            parameter: postgres::not_the_users,
            pg_hba: postgres::not_a_rule,
            major: instance.map_or(u32::MAX, |instance| instance.binaries().major),
        }
    }

    /// A monitor's reload.
    fn reload_monitor(&self, proxy: Option<&NodeProxy>) {
        systemd::tell(State::Reloading);
        self.reload_certificates(proxy);
        systemd::tell(State::Ready);
    }

    /// A monitor's life.
    async fn watch_over(
        &self,
        served: watch::Sender<Arc<api::Served>>,
        mut signals: Signals,
        proxy: Option<&NodeProxy>,
    ) -> Result<ExitCode> {
        let witness = Witness::new(WitnessOptions {
            name: self.config.name.clone(),
            keys: self.keys.clone(),
            store: Arc::clone(&self.store),
            served,
        });
        let duty = async {
            self.register_when_ready(self.config.tags.clone()).await?;
            witness.run().await;
            Ok(ExitCode::Ok)
        };
        tokio::pin!(duty);
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop(_) => {
                        systemd::tell(State::Stopping);
                        return Ok(ExitCode::Ok);
                    }
                    Asked::Reload => self.reload_monitor(proxy),
                },
                () = self.reload.notified() => self.reload_monitor(proxy),
                result = &mut duty => return result,
            }
        }
    }

    /// A node that is restarted looks after its Postgres at once, whether the store answers or not.
    async fn look_after_postgres(
        &self,
        instance: &Instance,
        options: agent::Options,
        mut signals: Signals,
        proxy: Option<&NodeProxy>,
    ) -> Result<ExitCode> {
        let (agent, handle) = Agent::start(options)?;
        let mut tags = self.config.tags.clone();
        let register = self.register_when_ready(tags.clone());
        let running = agent.run();
        tokio::pin!(register, running);
        let (mut registered, mut stopping, mut refused) = (false, false, None);
        let (mut joined, mut asked_again) = (false, false);
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop(how) => {
                        systemd::tell(State::Stopping);
                        stopping = true;
                        handle.stop(how);
                    }
                    Asked::Reload => asked_again = true,
                },
                () = self.reload.notified() => asked_again = true,
                result = &mut register, if !registered && !stopping => {
                    registered = true;
                    if let Err(error) = result {
                        if joined {
                            tracing::error!(%error, "the changed tags were not taken");
                            continue;
                        }
                        // Nothing is left running that nobody looks after.
                        stopping = true;
                        refused = Some(error);
                        handle.stop(StopOrder::InOrder);
                    } else {
                        joined = true;
                    }
                }
                ended = &mut running => {
                    if ended == Ended::Dropped {
                        self.leave_store().await;
                    }
                    return refused.map_or(Ok(ExitCode::Ok), Err);
                }
            }
            if std::mem::take(&mut asked_again) {
                systemd::tell(State::Reloading);
                self.reload_certificates(proxy);
                let now = self.reload(instance, &handle).await;
                systemd::tell(State::Ready);
                if let Some(now) = now.filter(|now| *now != tags) {
                    tags = now;
                    // What may lead and whose commits count stands in the cluster's list of nodes.
                    register.set(self.register_when_ready(tags.clone()));
                    registered = false;
                    handle.retag(tags.shown.clone());
                }
            }
        }
    }

    fn agent_options(
        &self,
        instance: &Instance,
        served: watch::Sender<Arc<api::Served>>,
        errands: mpsc::Receiver<Errand>,
    ) -> Result<agent::Options> {
        let config = &self.config;
        let postgresql = config
            .postgresql
            .as_ref()
            .context("no postgresql: section")?;
        Ok(agent::Options {
            name: config.name.clone(),
            keys: self.keys.clone(),
            store: Arc::clone(&self.store),
            instance: instance.clone(),
            state_dir: config.state_dir.clone(),
            host: postgresql.connect_address.host.clone(),
            port: postgresql.connect_address.port,
            proxy_url: postgresql.proxy_url(),
            api_url: format!("{}/patroni", config.api_url()),
            identity: self.identity.clone(),
            tags: config.tags.shown.clone(),
            bootstrap: config.bootstrap.dcs.clone(),
            post_bootstrap: config.bootstrap.post_bootstrap.clone(),
            scope: config.scope.clone(),
            callbacks: postgresql.callbacks.clone(),
            hooks: postgresql.hooks.clone(),
            served,
            errands,
            holds: Arc::clone(self.holds.as_ref().context("no postgresql: section")?),
            token: self.secret.api_token(),
            client: api::client::Client::new(self.trust.clone()),
            keeper_on: self.elsewhere.store.clone(),
            watchdog: config.watchdog.as_ref().map(|it| agent::Watchdog {
                device: it.device.clone(),
                required: it.required,
                margin: it.margin,
            }),
        })
    }

    /// Reads the configuration again. What can change while the node runs is taken; a broken file changes nothing.
    /// Returns the tags that were read.
    async fn reload(&self, instance: &Instance, handle: &agent::Handle) -> Option<Tags> {
        let loaded = Config::load(&self.config.file, &Homes::from_env());
        let (postgresql, tags) = match loaded {
            Ok((config, warnings)) => {
                for warning in warnings {
                    tracing::warn!("{}: {warning}", config.file.display());
                }
                (config.postgresql, config.tags)
            }
            Err(error) => {
                tracing::error!(%error, "the configuration can't be read, the old one stays in force");
                return None;
            }
        };
        let Some(new) = postgresql else {
            return Some(tags);
        };
        match instance
            .configure(new.parameters, new.pg_hba, new.pg_ident)
            .await
        {
            Ok(()) => {
                handle.reloaded();
                tracing::info!(
                    "reloaded: tags, postgresql.parameters, pg_hba and pg_ident; the rest counts from the next start"
                );
            }
            Err(error) => tracing::error!(%error, "the reloaded configuration was not taken"),
        }
        Some(tags)
    }

    async fn leave_store(&self) {
        tracing::info!("this node was dropped from the cluster");
        if let Err(error) = self.own_store.forget(&self.config.name).await {
            tracing::warn!(%error, "this node is still a member of the store");
        }
    }

    /// Enters the node in the cluster's list, as soon as the store answers.
    async fn register_when_ready(&self, tags: Tags) -> Result<()> {
        while let Err(error) = self.own_store.ready(PATIENCE).await {
            match error {
                StoreError::Denied(why) => bail!("the store refuses this node: {why}"),
                error => tracing::info!(%error, "waiting for the store"),
            }
        }
        let asked = self.registration(&tags);
        let mut refused = 0;
        loop {
            let scope = &self.config.scope;
            match api::register(self.store.as_ref(), &self.keys, scope, &asked).await {
                Ok(registered) => {
                    tracing::info!(id = registered.id, name = %registered.name, "registered");
                    return Ok(());
                }
                Err(refusal) => {
                    if self.is_dropped().await {
                        tracing::info!("this node was dropped: it leaves the cluster");
                        return Ok(());
                    }
                    refused += u32::from(refusal.code != Code::Unavailable);
                    if refused > 2 {
                        bail!("{refusal}");
                    }
                    tracing::info!(%refusal, "not registered yet");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn is_dropped(&self) -> bool {
        let key = self.keys.node(&self.config.name);
        let Ok(snapshot) = self.store.read(&key).await else {
            return false;
        };
        let entry = snapshot
            .value(&key)
            .and_then(|text| serde_json::from_str::<NodeEntry>(text).ok());
        entry.is_some_and(|entry| entry.dropped && entry.identity == self.identity)
    }

    /// Tags in the configuration win over what was set by command.
    fn registration(&self, tags: &Tags) -> Register {
        let config = &self.config;
        let postgres = config.postgresql.as_ref().map(|it| &it.connect_address);
        let address = postgres.unwrap_or(&config.restapi.connect_address);
        let preferred = tags.nofailover || tags.failover_priority.is_some();
        Register {
            name: Some(config.name.clone()),
            host: address.host.clone(),
            port: address.port,
            api_url: config.api_url(),
            identity: self.identity.clone(),
            priority: preferred.then(|| tags.priority()),
            quorum: tags.nosync.then_some(false),
            witness: config.is_witness(),
            ahead: false,
        }
    }
}

/// The signals that a node listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
}

/// What a signal asks for.
enum Asked {
    Stop(StopOrder),
    Reload,
}

impl Signals {
    fn take() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Until it is told to stop. What it would read again, it reads just now.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Asked::Stop(_)) {}
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop(StopOrder::UnlessPaused),
            _ = self.interrupt.recv() => Asked::Stop(StopOrder::InOrder),
            _ = self.quit.recv() => Asked::Stop(StopOrder::AtOnce),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

fn basic_auth(auth: &BasicAuth) -> api::BasicAuth {
    api::BasicAuth::new(&auth.username, auth.password.expose())
}
