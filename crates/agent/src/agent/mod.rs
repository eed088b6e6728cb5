//! The loop: observe, decide, act.
//!
//! **Invariant:** the loop never waits for an action, a store or Postgres; it waits for events, and for `loop_wait`.
//! **Invariant:** a decision is made only on an observation that began after the last action ended.

mod absence;
mod cascade;
mod counting;
mod doing;
mod errands;
mod logical;
mod look;
mod meeting;
mod memory;
mod namesake;
mod phrases;
mod sharing;
mod stopping;
mod telling;
mod troubles;
mod unreadable;
mod watching;

use self::cascade::Cascade;
use self::doing::Done;
use self::errands::Errands;
use self::look::{is_changing, scene, stop_unguarded};
use self::meeting::Meeting;
use self::memory::Memory;
pub use self::phrases::PHRASES;
use self::sharing::Sharing;
pub use self::watching::Watchdog;
use self::watching::Watching;
use crate::callbacks::{Callbacks, Programs};
use crate::clock::now;
use crate::contact::Signs;
use crate::events::Events;
use crate::failsafe::{Basis, Failsafe, Plan};
use crate::figures::Figures;
use crate::holds::Holds;
use crate::journal::Journal;
use crate::keeper::{Keeper, Said};
use crate::known::Known;
use crate::note::{Marker, Note, NoteError, Rewound};
use crate::observe::{Observation, Observer, Streams, watch_storage};
use crate::pace::Pace;
use crate::serve::Shown;
use crate::shell::{Hooks, Shell};
use crate::tenure::Tenure;
use ha::{Action, Instant, NodeName, Postgres, Storage};
use postgres::Instance;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::layout::{ConfigRecord, Keys};
use store::{Store, View};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

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
    /// `postgres://host:port/database` of what stands before this node's Postgres, for others to read.
    pub proxy_url: Option<String>,
    /// `http://host:port/patroni`.
    pub api_url: String,
    /// Tells installations with one name apart.
    pub identity: String,
    pub tags: Tags,
    pub bootstrap: ConfigRecord,
    /// What is run on a cluster that this node has founded, with its arguments.
    pub post_bootstrap: Vec<String>,
    /// The cluster's name, as callbacks are told it.
    pub scope: String,
    pub callbacks: Programs,
    pub hooks: Hooks,
    pub served: watch::Sender<Arc<api::Served>>,
    /// What people ask of this node alone; its API has the other end.
    pub errands: mpsc::Receiver<api::errand::Errand>,
    /// This node's word to a leader that has lost the store; its API gives it.
    pub holds: Arc<Holds>,
    /// By which the members' APIs know each other.
    pub token: api::Token,
    /// For what agents ask each other.
    pub client: api::client::Client,
    /// Where the lease is kept: a runtime that nothing of the agent holds up, or the agent's own.
    pub keeper_on: tokio::runtime::Handle,
    /// The machine's watchdog device, if it is to be used.
    pub watchdog: Option<Watchdog>,
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
}

/// How an agent is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOrder {
    /// As in order; but in a paused cluster Postgres runs on, and the next agent takes it over.
    UnlessPaused,
    /// A leader hands over: checkpoint, clean stop, standbys get everything.
    InOrder,
    /// Postgres is killed, as by a crash; the leadership is let go once nothing of it is left.
    AtOnce,
}

/// Asks a running agent for something.
#[derive(Clone, Debug)]
pub struct Handle {
    stop: watch::Sender<Option<StopOrder>>,
    reloaded: Arc<AtomicBool>,
    tags: watch::Sender<Tags>,
    wake: Arc<Notify>,
}

/// What a node's configuration says that it may be used for, as its member record shows it.
pub type Tags = serde_json::Map<String, serde_json::Value>;

impl Handle {
    /// The configuration was read again: these are the node's tags from now on.
    pub fn retag(&self, tags: Tags) {
        self.tags.send_replace(tags);
        self.wake.notify_one();
    }

    /// Postgres was given another configuration: its callback is told.
    pub fn reloaded(&self) {
        self.reloaded.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Stops Postgres, as far as `how` says so, and ends.
    pub fn stop(&self, how: StopOrder) {
        self.stop.send_replace(Some(how));
        self.wake.notify_one();
    }
}

/// The agent of one node.
pub struct Agent {
    name: NodeName,
    started: Instant,
    shell: Shell,
    view: View,
    meeting: Meeting,
    tenure: Arc<Tenure>,
    observed: watch::Receiver<Option<Observation>>,
    storage: watch::Receiver<Storage>,
    poke: Arc<Notify>,
    pace: Arc<Pace>,
    wake: Arc<Notify>,
    stop: watch::Receiver<Option<StopOrder>>,
    reloaded: Arc<AtomicBool>,
    tags: watch::Receiver<Tags>,
    said: watch::Sender<Said>,
    plan: watch::Sender<Option<Plan>>,
    failsafe: Basis,
    done: mpsc::UnboundedReceiver<Done>,
    asking: mpsc::Receiver<api::errand::Errand>,
    errands: Errands,
    figures: Arc<Figures>,
    report: mpsc::UnboundedSender<Done>,
    signs: Signs,
    journal: Journal,
    events: Events,
    shown: Shown,
    memory: Memory,
    sharing: Sharing,
    cascade: Cascade,
    watching: Option<Watching>,
    phrased: phrases::Said,
    callbacks: Callbacks,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Starts the agent's tasks. Must be called inside a runtime.
    pub fn start(mut options: Options) -> Result<(Self, Handle), AgentError> {
        let note = Arc::new(Note::open(
            &options.state_dir,
            &options.instance.options().data_dir,
        )?);
        let tenure = Arc::new(Tenure::default());
        let reloaded = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Streams::default());
        let view = options.store.view(options.keys.prefix());
        let (poke, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let pace = Arc::<Pace>::default();
        let (said, said_to) = watch::channel(Said::default());
        let (report, done) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(None);
        let (tags, tagged) = watch::channel(options.tags.clone());
        let (observed_by, observed) = watch::channel(None);
        let (storage_by, storage) = watch::channel(Storage::Healthy);
        let observer = Observer::new(
            options.instance.clone(),
            Arc::clone(&poke),
            Arc::clone(&pace),
            Arc::clone(&streams),
        );
        let figures = Arc::new(Figures::default());
        let keeper = Keeper {
            figures: Arc::clone(&figures),
            store: Arc::clone(&options.store),
            keys: options.keys.clone(),
            me: options.name.clone(),
            tenure: Arc::clone(&tenure),
            said: said_to,
            enforcer: Arc::new(options.instance.clone()),
            wake: Arc::clone(&wake),
        };
        let client = options.client.clone();
        let (plan, planned) = watch::channel(None);
        let failsafe = Failsafe {
            me: options.name.clone(),
            api_url: options.api_url.clone(),
            plan: planned,
            tenure: Arc::clone(&tenure),
            enforcer: Arc::new(options.instance.clone()),
            client: client.clone(),
            token: options.token.header(),
        };
        let events = Events::new(&options);
        let watchdog = options.watchdog.take();
        let cascade = Cascade::new(&options.tags);
        let programs = std::mem::take(&mut options.callbacks);
        let callbacks = Callbacks::new(programs, options.scope.clone());
        let meeting = Meeting::default();
        let met = meeting.begin(
            Arc::clone(&options.store),
            options.keys.prefix().to_owned(),
            Arc::clone(&wake),
        );
        let tasks = vec![
            tokio::spawn(met),
            tokio::spawn(observer.run(observed_by)),
            options.keeper_on.spawn(keeper.run()),
            options.keeper_on.spawn(failsafe.run()),
            tokio::spawn(watch_storage(
                options.instance.clone(),
                Arc::clone(&streams),
                storage_by,
                Arc::clone(&wake),
                Arc::clone(&figures),
            )),
        ];
        let hook_noted = options.state_dir.join("hook.json");
        if let Err(error) = postgres::end_noted_program(&hook_noted) {
            tracing::warn!(
                error = chain(&error),
                "a program of an earlier agent may still run"
            );
        }
        let shell = Shell {
            me: options.name.clone(),
            keys: options.keys.clone(),
            store: Arc::clone(&options.store),
            view: view.clone(),
            instance: options.instance.clone(),
            tenure: Arc::clone(&tenure),
            note,
            known: Arc::new(Known::open(
                &options.state_dir,
                &options.instance.options().data_dir,
            )),
            holds: Arc::clone(&options.holds),
            streams,
            rewound: Rewound::open(&options.state_dir),
            roles_missing: Marker::new(options.state_dir.join("roles-missing")),
            checkpoint_owed: Arc::default(),
            unchecked: Arc::default(),
            from_leader: Arc::default(),
            watchdog_required: watchdog.as_ref().is_some_and(|it| it.required),
            promotion_ordered: Marker::new(options.state_dir.join("promotion-ordered")),
            bootstrap: options.bootstrap.clone(),
            post_bootstrap: options.post_bootstrap.clone(),
            hooks: options.hooks.clone(),
            hook_noted,
            leads_on: Arc::default(),
        };
        let agent = Self {
            name: options.name.clone(),
            started: now(),
            shell,
            view,
            meeting,
            tenure,
            observed,
            storage,
            poke,
            pace,
            wake: Arc::clone(&wake),
            stop: stopping,
            reloaded: Arc::clone(&reloaded),
            tags: tagged,
            said,
            plan,
            failsafe: Basis::default(),
            done,
            asking: std::mem::replace(&mut options.errands, mpsc::channel(1).1),
            errands: Errands::default(),
            figures: Arc::clone(&figures),
            report,
            signs: Signs::new(client),
            journal: Journal::open(&options.state_dir),
            events,
            shown: Shown::new(options, figures),
            memory: Memory::default(),
            sharing: Sharing::default(),
            cascade,
            watching: watchdog.map(Watching::new),
            phrased: phrases::Said::default(),
            callbacks,
            tasks,
        };
        let handle = Handle {
            stop,
            reloaded,
            tags,
            wake,
        };
        Ok((agent, handle))
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
                self.stop_as(how).await;
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
                Some(errand) = self.asking.recv() => self.asked(errand),
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
        if self.tags.has_changed().unwrap_or(false) {
            let tags = self.tags.borrow_and_update();
            self.cascade.retag(&tags);
            self.shown.retag(&tags);
        }
        let snapshot = Arc::clone(&self.view.borrow_and_update());
        self.meeting.look(&snapshot);
        let snapshot = self.shell.known.over(&self.shell.keys, &snapshot);
        self.notice_a_dead_action();
        let cluster = match self.memory.reader.read(&self.shell.keys, &snapshot) {
            Ok(read) => {
                self.passed_over(&read.passed_over);
                read.cluster
            }
            Err(bad) => return self.undecided(&bad, at),
        };
        if let Some(other) = self.namesake(&snapshot) {
            return self.stay_out(&other, at);
        }
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
        // Before anything is begun in a new epoch: nobody is given this node's word for an older one any more.
        self.tell_failsafe(&view, &me, at);
        // On an observation from before the last action ended, only what never waits is done.
        let stale = observation.at < self.memory.fresh_from;
        let urgent = matches!(me.postgres, Postgres::Primary(_))
            && decision.actions.first() == Some(&Action::Fence);
        if !stale || urgent {
            self.journal.note(at, &view, &me, &decision);
            self.announce(&decision, &view);
            self.phrase(&decision, &view, &me, at);
            self.begin(&decision, &view, &snapshot);
        }
        let due = self.run_errands(&view, &snapshot, &decision, at);
        // Before the slots are looked at: it knows the permanent ones, which are not to be dropped.
        self.share(&snapshot, &me.data, at);
        if !stale {
            self.housekeep(&view, &snapshot, &me, at);
        }
        self.callbacks.look(&me);
        self.shown.troubles = self.troubles(&decision, &me.postgres);
        self.tell_keeper(&view, &snapshot, &me, &observation, &decision);
        self.count(&me, &observation, at);
        let scene = scene(&view, &me, &decision, self.memory.running.is_some());
        let changing =
            self.memory.running.is_some() || stale || is_changing(&view, &me, &decision, &scene);
        self.pace.set(changing, scene);
        self.shown.scheduled_restart = self.errands.shown();
        self.shown.watchdog_failed = self.watching.as_ref().is_some_and(Watching::has_failed);
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
            due.map_or(rest, |due| due.min(rest))
        }
    }
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
