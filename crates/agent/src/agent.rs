//! The loop: observe, decide, act.
//!
//! **Invariant:** the loop never waits for an action, a store or Postgres; it waits for events, and for `loop_wait`.
//! **Invariant:** a decision is made only on an observation that began after the last action ended.

use crate::clock::now;
use crate::contact::Signs;
use crate::events::Events;
use crate::journal::Journal;
use crate::keeper::{Arm, Keeper, Said};
use crate::note::{Marker, Note, NoteError};
use crate::observe::{Observation, Observer, Streams, watch_storage};
use crate::serve::Shown;
use crate::shell::{self, Basis, Report, Shell, ShellError};
use crate::tenure::Tenure;
use ha::quorum::Applied;
use ha::{
    Action, Cluster, ClusterView, Decision, Epoch, Instant, Job, NodeName, NodeView, Postgres,
    Storage, Walsender,
};
use postgres::Instance;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::layout::{ConfigRecord, Keys, read_cluster};
use store::{Snapshot, Store, View};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

/// How long a start under way is waited for when the agent stops.
const START_ENDS: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(250);

/// A kill that takes longer than this is stuck in the kernel.
const UNKILLABLE: Duration = Duration::from_millis(500);

/// What the agent is made of.
#[derive(Debug)]
pub struct Options {
    pub name: NodeName,
    pub keys: Keys,
    pub store: Arc<dyn Store>,
    pub instance: Instance,
    /// For the note and the journal; outside of the data directory.
    pub state_dir: PathBuf,
    /// What peers and clients reach this node's Postgres by.
    pub host: String,
    pub port: u16,
    /// `http://host:port/patroni`.
    pub api_url: String,
    /// Tells installations with one name apart.
    pub identity: String,
    pub tags: serde_json::Map<String, serde_json::Value>,
    pub bootstrap: ConfigRecord,
    pub served: watch::Sender<Arc<api::Served>>,
}

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Asked to stop: Postgres is stopped, the leadership handed over.
    Stopped,
    /// The node was dropped from the cluster.
    Dropped,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("http client")]
    Http(#[from] reqwest::Error),
}

/// How an agent is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOrder {
    /// A leader hands over: checkpoint, clean stop, standbys get everything.
    InOrder,
    /// Postgres is killed, as by a crash; the leadership is let go once nothing of it is left.
    AtOnce,
}

/// Asks a running agent for something.
#[derive(Clone, Debug)]
pub struct Handle {
    stop: watch::Sender<Option<StopOrder>>,
    wake: Arc<Notify>,
}

impl Handle {
    /// Stops Postgres and ends.
    pub fn stop(&self, how: StopOrder) {
        self.stop.send_replace(Some(how));
        self.wake.notify_one();
    }
}

/// One running action, or none.
struct Running {
    number: u64,
    job: Job,
    task: JoinHandle<()>,
}

/// The agent of one node.
pub struct Agent {
    name: NodeName,
    started: Instant,
    shell: Shell,
    view: View,
    tenure: Arc<Tenure>,
    observed: watch::Receiver<Option<Observation>>,
    storage: watch::Receiver<Storage>,
    poke: Arc<Notify>,
    changing: Arc<AtomicBool>,
    wake: Arc<Notify>,
    stop: watch::Receiver<Option<StopOrder>>,
    said: watch::Sender<Said>,
    done: mpsc::UnboundedReceiver<Done>,
    report: mpsc::UnboundedSender<Done>,
    signs: Signs,
    journal: Journal,
    events: Events,
    shown: Shown,
    memory: Memory,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct Done {
    number: u64,
    action: Action,
    result: Result<Report, ShellError>,
}

/// What the loop remembers between two decisions.
#[derive(Default)]
struct Memory {
    running: Option<Running>,
    /// How many actions were begun.
    begun: u64,
    applied: Option<Applied>,
    vacant_since: Option<Instant>,
    promised: Option<(Epoch, Instant)>,
    down_since: Option<Instant>,
    primary_since: Option<Instant>,
    start_failures: u32,
    /// Observations from before this moment are out of date.
    fresh_from: Instant,
    last: Option<Decision>,
    slots: Option<(Vec<String>, Instant)>,
    /// The action that failed last, how often in a row, and until when it is not tried again.
    trouble: Option<(&'static str, u32, Instant)>,
    left: bool,
}

impl Agent {
    /// Starts the agent's tasks. Must be called inside a runtime.
    pub fn start(options: Options) -> Result<(Self, Handle), AgentError> {
        let note = Arc::new(Note::open(&options.state_dir)?);
        let tenure = Arc::new(Tenure::default());
        let streams = Arc::new(Streams::default());
        let view = options.store.view(options.keys.prefix());
        let (poke, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let changing = Arc::new(AtomicBool::new(true));
        let (said, said_to) = watch::channel(Said::default());
        let (report, done) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(None);
        let (observed_by, observed) = watch::channel(None);
        let (storage_by, storage) = watch::channel(Storage::Healthy);
        let observer = Observer::new(
            options.instance.clone(),
            Arc::clone(&poke),
            Arc::clone(&changing),
            Arc::clone(&streams),
        );
        let keeper = Keeper {
            store: Arc::clone(&options.store),
            keys: options.keys.clone(),
            me: options.name.clone(),
            tenure: Arc::clone(&tenure),
            said: said_to,
            arm: arm(options.instance.clone()),
            wake: Arc::clone(&wake),
        };
        let events = Events::new(&options);
        let tasks = vec![
            tokio::spawn(observer.run(observed_by)),
            tokio::spawn(keeper.run()),
            tokio::spawn(watch_storage(
                options.instance.clone(),
                Arc::clone(&streams),
                storage_by,
                Arc::clone(&wake),
            )),
        ];
        let shell = Shell {
            me: options.name.clone(),
            keys: options.keys.clone(),
            store: Arc::clone(&options.store),
            view: view.clone(),
            instance: options.instance.clone(),
            tenure: Arc::clone(&tenure),
            note,
            streams,
            roles_missing: Marker::new(options.state_dir.join("roles-missing")),
            promotion_ordered: Marker::new(options.state_dir.join("promotion-ordered")),
            bootstrap: options.bootstrap.clone(),
        };
        let client = reqwest::Client::builder().no_proxy().build()?;
        let agent = Self {
            name: options.name.clone(),
            started: now(),
            shell,
            view,
            tenure,
            observed,
            storage,
            poke,
            changing,
            wake: Arc::clone(&wake),
            stop: stopping,
            said,
            done,
            report,
            signs: Signs::new(client),
            journal: Journal::open(&options.state_dir),
            events,
            shown: Shown::new(options),
            memory: Memory::default(),
            tasks,
        };
        Ok((agent, Handle { stop, wake }))
    }

    /// Runs until it is stopped or the node is dropped.
    pub async fn run(mut self) -> Ended {
        self.take_up();
        let ended = loop {
            if self.memory.left {
                break Ended::Dropped;
            }
            let order = *self.stop.borrow();
            if let Some(how) = order {
                self.hand_over_and_stop(how).await;
                break Ended::Stopped;
            }
            let rest = self.turn();
            tokio::select! {
                changed = self.view.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep(rest).await;
                    }
                }
                changed = self.observed.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep(rest).await;
                    }
                }
                Some(done) = self.done.recv() => self.finish(done),
                () = self.wake.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        };
        for task in &self.tasks {
            task.abort();
        }
        ended
    }

    /// What an agent before this one wrote for Postgres, it may not have had read: once, everything is written and read
    /// again.
    fn take_up(&self) {
        let instance = self.shell.instance.clone();
        if !matches!(
            instance.liveness(),
            postgres::Liveness::Up { guarded: true, .. }
        ) {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = instance.repair_overrides().await {
                tracing::warn!(
                    error = chain(&error),
                    "the configuration was not read again"
                );
            }
        });
    }

    /// Looks once, decides once, starts at most one action. Returns how long to rest without an event.
    fn turn(&mut self) -> Duration {
        let at = now();
        self.tenure.turned(at);
        let snapshot = Arc::clone(&self.view.borrow_and_update());
        let cluster = match read_cluster(&self.shell.keys, &snapshot) {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::error!(%error, "the store's content can't be read: nothing is decided on it");
                self.memory.last = None;
                return Duration::from_secs(1);
            }
        };
        self.notice_a_dead_action();
        let rest = cluster.settings.loop_wait;
        let Some(observation) = self.observed.borrow_and_update().clone() else {
            return rest;
        };
        let view = self.cluster_view(cluster, at);
        let me = self.node_view(&view, &snapshot, &observation, at);
        let mut decision = ha::decide(&view, &me, at);
        if let Some(stop) = stop_unguarded(&view, &me, &observation) {
            decision.actions = vec![Action::Stop];
            decision.rule = "unguarded";
            decision.reason = stop.to_owned();
        }
        self.give_up_on_the_unkillable(&me, at);
        // On an observation from before the last action ended, only what never waits is done.
        let stale = observation.at < self.memory.fresh_from;
        let urgent = matches!(me.postgres, Postgres::Primary(_))
            && decision.actions.first() == Some(&Action::Fence);
        if !stale || urgent {
            self.journal.note(at, &view, &me, &decision);
            self.announce(&decision, &view);
            self.begin(&decision, &view, &snapshot);
        }
        self.housekeep(&view, &me, at);
        self.tell_keeper(&view, &me, &observation, &decision);
        let changing = self.memory.running.is_some() || stale || is_changing(&view, &me, &decision);
        self.changing.store(changing, Ordering::Relaxed);
        self.shown.publish(
            &view,
            &snapshot,
            me,
            decision,
            &observation,
            self.tenure.last_heard(),
        );
        if stale || self.memory.running.is_some() {
            Duration::from_millis(50)
        } else {
            rest
        }
    }

    /// Without an answer for a whole lease, what the store said no longer permits anything.
    fn cluster_view(&self, cluster: Cluster, at: Instant) -> ClusterView {
        let heard = self.tenure.last_heard();
        let silent = heard.is_none_or(|heard| at.since(heard) > cluster.settings.ttl);
        if silent {
            return ClusterView::Silent {
                since: heard.unwrap_or(self.started),
            };
        }
        ClusterView::Known(Box::new(cluster))
    }

    fn node_view(
        &mut self,
        view: &ClusterView,
        snapshot: &Snapshot,
        observation: &Observation,
        at: Instant,
    ) -> NodeView {
        self.remember(view, observation, at);
        let contact = match view {
            ClusterView::Known(cluster) => {
                let status = snapshot.entries.get(&self.shell.keys.status());
                let received = match &observation.postgres {
                    Postgres::Standby(standby) => standby.received,
                    _ => ha::Lsn::ZERO,
                };
                let beat = status.map(|entry| entry.modified);
                let contact = self
                    .signs
                    .contact(cluster, beat, received, observation.stream_heard);
                if cluster
                    .leader
                    .as_ref()
                    .is_some_and(|leader| *leader != self.name)
                {
                    self.signs.probe_if_silent(cluster);
                }
                contact
            }
            ClusterView::Silent { .. } => ha::Contact {
                since: at,
                ..ha::Contact::default()
            },
        };
        let epoch = match view {
            ClusterView::Known(cluster) => cluster.current_epoch(),
            ClusterView::Silent { .. } => Epoch::NONE,
        };
        NodeView {
            name: self.name.clone(),
            data: observation.data.clone(),
            postgres: self.with_absent_standbys(view, &observation.postgres, at),
            lineage: self.shell.note.read(),
            lease: self.tenure.lease(),
            job: self.memory.running.as_ref().map(|running| running.job),
            contact,
            applied: self.memory.applied.clone(),
            storage: self.storage.borrow().clone(),
            vacant_since: self.memory.vacant_since,
            promised_at: self
                .memory
                .promised
                .filter(|(of, _)| *of == epoch)
                .map(|(_, at)| at),
            down_since: self.memory.down_since,
            start_failures: self.memory.start_failures,
            stream_broken: observation.stream_broken,
        }
    }

    /// A new primary gives the standbys of its setting the time to come: each counts as seen when it was promoted.
    fn with_absent_standbys(
        &mut self,
        view: &ClusterView,
        postgres: &Postgres,
        at: Instant,
    ) -> Postgres {
        let (Postgres::Primary(primary), ClusterView::Known(cluster)) = (postgres, view) else {
            self.memory.primary_since = None;
            return postgres.clone();
        };
        let since = *self.memory.primary_since.get_or_insert(at);
        let mut primary = primary.clone();
        let named = cluster.sync.iter().flat_map(|sync| &sync.newest().standbys);
        for name in named {
            let absent = Walsender {
                streaming: false,
                flushed: ha::Lsn::ZERO,
                seen: since,
            };
            let walsender = primary.standbys.entry(name.clone()).or_insert(absent);
            walsender.seen = walsender.seen.max(since);
        }
        Postgres::Primary(primary)
    }

    fn remember(&mut self, view: &ClusterView, observation: &Observation, at: Instant) {
        if let ClusterView::Known(cluster) = view {
            // Also a promise whose acknowledgement was lost, or that this agent's predecessor made.
            let epoch = cluster.current_epoch();
            let stands = cluster
                .promises
                .get(&self.name)
                .is_some_and(|it| it.epoch == epoch);
            if stands && self.memory.promised.is_none_or(|(of, _)| of != epoch) {
                self.memory.promised = Some((epoch, at));
            }
        }
        match view {
            ClusterView::Known(cluster) if cluster.leader.is_none() => {
                self.memory.vacant_since.get_or_insert(at);
            }
            ClusterView::Known(_) | ClusterView::Silent { .. } => self.memory.vacant_since = None,
        }
        match &observation.postgres {
            Postgres::Down { .. } | Postgres::Starting => {
                self.memory.down_since.get_or_insert(at);
                self.memory.applied = None;
            }
            Postgres::Standby(_) => {
                self.memory.down_since = None;
                self.memory.start_failures = 0;
                self.memory.applied = None;
            }
            Postgres::Primary(_) => {
                self.memory.down_since = None;
                self.memory.start_failures = 0;
            }
            Postgres::Unresponsive { .. } => {}
        }
    }

    /// Says a new decision once, in the log and in the events.
    fn announce(&mut self, decision: &Decision, view: &ClusterView) {
        // Waiting for one's own action is no news: the action was.
        if self.memory.running.is_some() && decision.actions.is_empty() {
            return;
        }
        let news = self.memory.last.as_ref().is_none_or(|last| {
            last.rule != decision.rule
                || last.actions != decision.actions
                || last.state != decision.state
                || last.assigned != decision.assigned
        });
        if news {
            tracing::info!(
                rule = decision.rule,
                state = %decision.state,
                assigned = %decision.assigned,
                "{}",
                decision.reason
            );
            let epoch = match view {
                ClusterView::Known(cluster) => cluster.current_epoch(),
                ClusterView::Silent { .. } => Epoch::NONE,
            };
            self.events
                .decided(epoch, self.memory.last.as_ref(), decision);
        }
        self.memory.last = Some(decision.clone());
    }

    fn begin(&mut self, decision: &Decision, view: &ClusterView, snapshot: &Arc<Snapshot>) {
        let Some(action) = decision.actions.first().cloned() else {
            return;
        };
        let fence = matches!(action, Action::Fence);
        let troubled = |(name, _, until): &(&str, u32, Instant)| {
            *name == shell::name(&action) && now() < *until
        };
        if !fence && self.memory.trouble.as_ref().is_some_and(troubled) {
            return;
        }
        match &self.memory.running {
            Some(running) if fence && running.job != Job::Stop => running.task.abort(),
            Some(_) => return,
            None => {}
        }
        if fence && let Some(guard) = self.shell.instance.guard() {
            guard.fence();
        }
        let cluster = match view {
            ClusterView::Known(cluster) => (**cluster).clone(),
            ClusterView::Silent { .. } => Cluster::default(),
        };
        let job = if fence {
            Job::Stop
        } else {
            shell::job(&action)
        };
        if matches!(action, Action::Apply { .. }) {
            self.memory.applied = None;
        }
        let basis = Basis {
            snapshot: Arc::clone(snapshot),
            cluster,
        };
        let (shell, report) = (self.shell.clone(), self.report.clone());
        self.memory.begun += 1;
        let number = self.memory.begun;
        let task = tokio::spawn(async move {
            let result = shell.act(action.clone(), &basis).await;
            let _ = report.send(Done {
                number,
                action,
                result,
            });
        });
        self.memory.running = Some(Running { number, job, task });
    }

    /// An action that panicked never reports: it must not hold the loop for ever.
    fn notice_a_dead_action(&mut self) {
        let dead = self
            .memory
            .running
            .as_ref()
            .is_some_and(|running| running.task.is_finished());
        if dead && self.done.is_empty() {
            tracing::error!("an action ended without a report");
            self.memory.running = None;
            self.memory.fresh_from = now();
            self.poke.notify_one();
        }
    }

    fn finish(&mut self, done: Done) {
        // An action that a fence cut off may still have reported; the fence is what runs now.
        if self
            .memory
            .running
            .as_ref()
            .is_some_and(|running| running.number == done.number)
        {
            self.memory.running = None;
        }
        self.memory.fresh_from = now();
        self.poke.notify_one();
        match done.result {
            Ok(report) => self.succeeded(&done.action, report),
            Err(error) => self.failed(&done.action, &error),
        }
    }

    fn succeeded(&mut self, action: &Action, report: Report) {
        self.memory.left |= report.left;
        // Only its own success ends an action's trouble: between two starts that fail a fence succeeds each time.
        if self
            .memory
            .trouble
            .is_some_and(|(name, _, _)| name == shell::name(action))
        {
            self.memory.trouble = None;
        }
        if let Some(applied) = report.applied {
            self.memory.applied = Some(applied);
        }
        if let (true, Action::Promise(promise)) = (report.promised, action) {
            self.memory.promised = Some((promise.epoch, now()));
        }
        if let Some(detail) = report.detail {
            tracing::info!(detail, "done");
            if matches!(action, Action::Rewind { .. }) {
                self.events.detail(detail);
            }
        }
    }

    fn failed(&mut self, action: &Action, error: &ShellError) {
        if matches!(
            action,
            Action::Park | Action::Clone { .. } | Action::Rewind { .. } | Action::Bootstrap
        ) {
            self.memory.start_failures += 1;
        }
        match error {
            // Somebody else was faster, or the moment has passed: the next decision sees it.
            ShellError::Refused | ShellError::NotNow(_) => {
                tracing::debug!(error = chain(error), "the action did not apply any more");
            }
            ShellError::Store(error) if error.is_retryable() => {
                tracing::info!(error = chain(error), "the store did not answer");
            }
            ShellError::Store(_) | ShellError::Postgres(_) | ShellError::Note(_) => {
                let action = shell::name(action);
                self.back_off(action);
                tracing::warn!(
                    action,
                    error = chain(error),
                    "the action failed and is decided anew"
                );
            }
        }
    }

    /// Processes in an uninterruptible wait (a dead disk) outlive every kill. The office then ends by its lease: it is
    /// no longer renewed, and not released either while they live.
    fn give_up_on_the_unkillable(&mut self, me: &NodeView, at: Instant) {
        let killing = matches!(me.job, None | Some(Job::Stop));
        let stuck = killing && matches!(me.postgres, Postgres::Down { leftovers } if leftovers > 0);
        let long = self
            .memory
            .down_since
            .is_some_and(|since| at.since(since) > UNKILLABLE);
        if let (true, Some(lease)) = (stuck && long, me.lease) {
            tracing::warn!(
                epoch = lease.epoch.0,
                "processes can't be killed: the lease is left to end"
            );
            self.tenure.leave_office(lease.epoch);
            self.tenure.set_session(None);
        }
    }

    /// What failed is not tried again at once: 0.2 s, doubling to 5 s.
    fn back_off(&mut self, action: &'static str) {
        let times = match self.memory.trouble {
            Some((name, times, _)) if name == action => (times + 1).min(5),
            Some(_) | None => 0,
        };
        let pause = (Duration::from_millis(200) * 2_u32.pow(times)).min(Duration::from_secs(5));
        self.memory.trouble = Some((action, times, now().plus(pause)));
    }

    /// What is done beside the decisions: replication slots for every other node.
    fn housekeep(&mut self, view: &ClusterView, me: &NodeView, at: Instant) {
        let ClusterView::Known(cluster) = view else {
            return;
        };
        if !matches!(me.postgres, Postgres::Primary(_) | Postgres::Standby(_)) {
            return;
        }
        let office = matches!(me.postgres, Postgres::Primary(_))
            .then_some(me.lease)
            .flatten();
        let wanted = shell::slots(&self.name, cluster, office.map(|lease| lease.epoch));
        let names: Vec<String> = wanted.keys().cloned().collect();
        let due = self.memory.slots.as_ref().is_none_or(|(last_names, last)| {
            *last_names != names || at.since(*last) > Duration::from_secs(10)
        });
        if due && self.memory.running.is_none() {
            self.memory.slots = Some((names, at));
            let instance = self.shell.instance.clone();
            tokio::spawn(async move {
                if let Err(error) = instance.ensure_slots(&wanted, Duration::from_secs(5)).await {
                    tracing::debug!(error = chain(&error), "replication slots not up to date");
                }
            });
        }
    }

    fn tell_keeper(
        &self,
        view: &ClusterView,
        me: &NodeView,
        observation: &Observation,
        decision: &Decision,
    ) {
        let ClusterView::Known(cluster) = view else {
            return;
        };
        let registered = cluster.nodes.contains_key(&self.name);
        let member = registered.then(|| self.shown.member(cluster, me, observation, decision));
        let optime = match &me.postgres {
            Postgres::Primary(primary) => primary.flushed,
            _ => cluster.leader_position,
        };
        let said = Said {
            member,
            optime,
            settings: cluster.settings.clone(),
        };
        self.said.send_if_modified(|last| {
            let changed = last.member != said.member || last.settings != said.settings;
            *last = said;
            changed
        });
    }

    /// A start under way is waited for: cut off, it would leave a Postgres that nobody looks after.
    async fn end_running(&mut self) {
        let Some(mut running) = self.memory.running.take() else {
            return;
        };
        let starts = matches!(
            running.job,
            Job::Park | Job::Bootstrap | Job::Follow | Job::Promote | Job::Rewind
        );
        if starts {
            let deadline = now().plus(START_ENDS);
            while now() < deadline && !running.task.is_finished() {
                self.tenure.turned(now());
                let _ = tokio::time::timeout(TICK, &mut running.task).await;
            }
        }
        running.task.abort();
    }

    /// Does an action while the lease goes on being renewed; a second order to stop makes it a fence.
    async fn act_to_the_end(
        &mut self,
        action: Action,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        let mut stop = self.stop.clone();
        stop.mark_unchanged();
        let shell = self.shell.clone();
        let doing = shell.act(action, basis);
        tokio::pin!(doing);
        loop {
            self.tenure.turned(now());
            tokio::select! {
                result = &mut doing => return result,
                changed = stop.changed() => {
                    if changed.is_ok() && *stop.borrow() == Some(StopOrder::AtOnce) {
                        return self.shell.act(Action::Fence, basis).await;
                    }
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Stops in order: a leader hands over first, its standbys get everything.
    async fn hand_over_and_stop(&mut self, how: StopOrder) {
        self.end_running().await;
        let snapshot = Arc::clone(&self.view.borrow());
        let cluster = read_cluster(&self.shell.keys, &snapshot).unwrap_or_default();
        let basis = Basis { snapshot, cluster };
        let office = self.tenure.office();
        let stop = match how {
            StopOrder::AtOnce => Action::Fence,
            StopOrder::InOrder if office.is_some() => Action::Drain,
            StopOrder::InOrder => Action::Stop,
        };
        tracing::info!("stopping Postgres");
        if let Err(error) = self.act_to_the_end(stop, &basis).await {
            tracing::warn!(error = chain(&error), "Postgres did not stop in order");
            let _ = self.shell.act(Action::Fence, &basis).await;
        }
        // A start that was just under way may have brought it back.
        tokio::time::sleep(TICK).await;
        if self.shell.instance.liveness() != postgres::Liveness::Down {
            let _ = self.shell.act(Action::Fence, &basis).await;
        }
        if let Some(office) = office {
            let why = format!("the agent of {} was stopped", self.name);
            if let Err(error) = self
                .shell
                .act(
                    Action::Release {
                        epoch: office.epoch,
                        why,
                    },
                    &basis,
                )
                .await
            {
                tracing::warn!(error = chain(&error), "the leadership was not released");
            }
        }
        if let Some(session) = self.tenure.session() {
            let _ = self.shell.store.revoke(session.lease).await;
        }
    }
}

/// A standby that was started by somebody else (a unit of the distribution, pg_ctl) is stopped, to be started again
/// under its guard and with our configuration.
fn stop_unguarded(
    view: &ClusterView,
    me: &NodeView,
    observation: &Observation,
) -> Option<&'static str> {
    let founded = matches!(
        view,
        ClusterView::Known(cluster) if matches!(cluster.initialize, ha::Initialize::Done(_))
    );
    let strange = !observation.guarded && matches!(me.postgres, Postgres::Standby(_));
    (founded && strange && me.job.is_none())
        .then_some("somebody else has started Postgres: stopping it, to start it under its guard")
}

/// Moves the deadline of whatever guard holds the instance.
fn arm(instance: Instance) -> Arm {
    Arc::new(move |epoch, deadline| {
        if let Some(guard) = instance.guard() {
            guard.arm(epoch.0, deadline.0);
        }
    })
}

/// Whether something is under way that should be looked at often.
fn is_changing(view: &ClusterView, me: &NodeView, decision: &Decision) -> bool {
    let ClusterView::Known(cluster) = view else {
        return false;
    };
    let vacant = cluster.leader.is_none();
    let joint = cluster.sync.as_ref().is_some_and(|sync| !sync.is_settled());
    let mine = cluster.leader.as_ref() == Some(&me.name);
    let unsettled = match &me.postgres {
        Postgres::Primary(primary) => !primary.open || (mine && joint),
        Postgres::Standby(standby) => mine || !standby.streaming,
        Postgres::Starting => true,
        Postgres::Down { .. } => mine || !decision.actions.is_empty(),
        Postgres::Unresponsive { .. } => false,
    };
    // A leader that does not beat is watched by its WAL, so closely that a living one is not suspected.
    let beatless = !mine
        && now().since(me.contact.beat.unwrap_or(me.contact.since)) > cluster.settings.beat * 2;
    !decision.actions.is_empty() || vacant || unsettled || beatless
}

/// The whole chain of an error.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
