//! What the instance is, looked at again and again: often while something is changing, seldom while nothing does.

use crate::answers::Answers;
use crate::clock::now;
use crate::directory::Directory;
use crate::door::Door;
use crate::figures::Figures;
use crate::pace::Pace;
use ha::{
    DataDir, Instant, Lsn, NodeName, Postgres, Primary, Standby, Storage, StreamBroken, Walsender,
};
use postgres::{Access, Instance, Liveness, Probe, StreamFailure, StreamTrouble, Upstream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};

/// A probe that takes longer has not been answered.
const PROBE: Duration = Duration::from_millis(900);
/// A stream that has not come about after this is looked into.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);
const READ_LOG_EVERY: Duration = Duration::from_millis(500);
const REPAIR_EVERY: Duration = Duration::from_secs(1);
/// Twice `wal_retrieve_retry_interval`.
const TWO_RETRIES: Duration = Duration::from_millis(200);
/// How often the disk is asked to write, and how long it may take.
const WRITE_EVERY: Duration = Duration::from_millis(500);
const WRITE: Duration = Duration::from_millis(1500);

/// A standby that acknowledges nothing for this long, though there is something, is not called streaming.
const MUTE: Duration = Duration::from_secs(1);

/// One look at the instance.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    /// When the look began.
    pub(crate) at: Instant,
    pub(crate) data: DataDir,
    pub(crate) postgres: Postgres,
    /// Down, and the control file says that it stopped cleanly as a primary.
    pub(crate) clean_stop: bool,
    /// Where its WAL ends then.
    pub(crate) on_disk: Option<Lsn>,
    /// Why no new cluster may be made of the data directory.
    pub(crate) may_not_found: Option<String>,
    pub(crate) stream_broken: Option<StreamBroken>,
    /// What Postgres says of a stream that has not come about for a while.
    pub(crate) stream_says: Option<String>,
    /// When the WAL stream last brought a message.
    pub(crate) stream_heard: Option<Instant>,
    /// Somebody else has started it otherwise: it does not read our configuration, and nobody would fence it.
    pub(crate) guarded: bool,
    pub(crate) facts: Facts,
}

/// What is only shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) server_version: u32,
    pub(crate) postmaster_start_time: Option<String>,
    /// Parameters that a restart would change, as Patroni shows them.
    pub(crate) pending_restart: Option<serde_json::Value>,
    pub(crate) replay_paused: bool,
    pub(crate) has_archive: bool,
    pub(crate) replay_timestamp: Option<String>,
    /// The most WAL that a slot keeps, in bytes.
    pub(crate) slot_retained: Option<f64>,
    pub(crate) replication: Vec<api::ReplicationRow>,
    pub(crate) timeline: ha::Timeline,
    pub(crate) sync_names: String,
}

impl Observation {
    fn tell_of_stream(&mut self, failure: Option<StreamFailure>) {
        self.stream_broken = failure.as_ref().and_then(broken);
        self.stream_says = failure.map(|failure| failure.says);
    }
}

/// Looks when poked, when the postmaster dies, and from time to time.
#[derive(Debug)]
pub(crate) struct Observer {
    instance: Instance,
    poke: Arc<Notify>,
    pace: Arc<Pace>,
    streams: Arc<Streams>,
    answers: Answers,
    door: Door,
    directory: Directory,
    /// When each standby was last seen streaming, and how much it had flushed then.
    seen: BTreeMap<NodeName, (Instant, Lsn)>,
    /// Since when it should stream and does not.
    unconnected: Option<Instant>,
    /// What the log said of that, and when it was read.
    told: Option<(Instant, Option<StreamFailure>)>,
    repaired: Option<Instant>,
    /// Walsenders that were last seen under a node's name without its slot.
    strangers: BTreeSet<i32>,
    /// Since when the startup process was seen waiting for more WAL, at which position.
    waiting: Option<(Instant, Lsn)>,
}

/// Whether the WAL receiver is proven to be gone for good; set by the shell that proved it.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    proven_gone: AtomicBool,
    /// How often one could begin to come.
    starts: AtomicU64,
    /// Whether there is a data directory whose disk can be asked to write.
    has_data: AtomicBool,
}

impl Streams {
    pub(crate) fn gone(&self) {
        self.proven_gone.store(true, Ordering::SeqCst);
    }

    pub(crate) fn may_come(&self) {
        self.starts.fetch_add(1, Ordering::SeqCst);
        self.proven_gone.store(false, Ordering::SeqCst);
    }

    /// Changes before anything is started that could bring WAL.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }

    fn has_data(&self) -> bool {
        self.has_data.load(Ordering::SeqCst)
    }

    fn are_gone(&self) -> bool {
        self.proven_gone.load(Ordering::SeqCst)
    }
}

impl Observer {
    pub(crate) fn new(
        instance: Instance,
        poke: Arc<Notify>,
        pace: Arc<Pace>,
        streams: Arc<Streams>,
    ) -> Self {
        Self {
            directory: Directory::new(instance.clone(), Arc::clone(&streams)),
            instance,
            poke,
            pace,
            streams,
            answers: Answers::default(),
            door: Door::default(),
            seen: BTreeMap::new(),
            strangers: BTreeSet::new(),
            waiting: None,
            unconnected: None,
            told: None,
            repaired: None,
        }
    }

    /// Runs until its task is aborted or nobody listens.
    pub(crate) async fn run(mut self, out: watch::Sender<Option<Observation>>) {
        loop {
            let observation = self.look().await;
            if out.send(Some(observation)).is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pace.rest()) => {}
                () = self.poke.notified() => {}
                () = self.instance.postmaster_died(), if self.instance.postmaster_pidfd().is_some() => {}
            }
        }
    }

    async fn look(&mut self) -> Observation {
        let at = now();
        let mut observation = Observation {
            at,
            data: DataDir::Empty,
            postgres: Postgres::Starting,
            clean_stop: false,
            on_disk: None,
            may_not_found: None,
            stream_broken: None,
            stream_says: None,
            stream_heard: None,
            guarded: true,
            facts: Facts::default(),
        };
        observation.postgres = match self.instance.liveness() {
            Liveness::Down => {
                self.forget();
                Postgres::Down { leftovers: 0 }
            }
            Liveness::Ending { left } => {
                self.forget();
                Postgres::Down {
                    leftovers: left.max(1),
                }
            }
            Liveness::Up {
                postmaster,
                guarded,
            } => {
                observation.guarded = guarded;
                self.probe(at, postmaster, &mut observation).await
            }
        };
        observation.data = self.directory.look().await;
        let down = observation.postgres == (Postgres::Down { leftovers: 0 });
        observation.clean_stop = down && self.directory.clean_stop();
        observation.on_disk = self.directory.on_disk().filter(|_| down);
        observation.may_not_found = self.directory.may_not_found();
        let there = matches!(observation.data, DataDir::Ready(_));
        self.streams.has_data.store(there, Ordering::SeqCst);
        observation
    }

    fn forget(&mut self) {
        self.directory.forget();
        self.answers.forget();
        self.door.forget();
        self.waiting = None;
        self.seen.clear();
    }

    async fn probe(
        &mut self,
        at: Instant,
        postmaster: i32,
        observation: &mut Observation,
    ) -> Postgres {
        let probe = match self.instance.probe(PROBE).await {
            Ok(probe) => probe,
            Err(error) => {
                tracing::debug!(%error, "no answer to the probe");
                let ready = self.instance.is_ready();
                let found = self.answers.unanswered(postmaster, at, &error, ready);
                if found == Postgres::Starting {
                    // Its recovery may need WAL that does not come: then it never answers.
                    let (upstream, _, _) = self.instance.settings().await;
                    let failure = self.stream_failure(at, upstream.is_none());
                    observation.tell_of_stream(failure);
                }
                return found;
            }
        };
        observation.facts = facts(&probe);
        let (upstream, _, access) = self.instance.settings().await;
        let open = access == Access::Open;
        // What an earlier agent wrote and was killed before it was read, or what ALTER SYSTEM has set.
        if !probe.overridden.is_empty()
            || probe.has_upstream != upstream.as_ref().is_some_and(|up| !up.host.is_empty())
        {
            self.repair(at);
        }
        let found = if probe.in_recovery {
            observation.stream_heard = stream_heard(&probe);
            let receiver = probe.receiver.as_ref();
            let streaming = receiver.is_some_and(|it| it.status == "streaming");
            let failure = self.stream_failure(at, streaming || !probe.has_upstream);
            observation.tell_of_stream(failure);
            Postgres::Standby(self.standby(at, &probe, upstream, open))
        } else {
            Postgres::Primary(self.primary(at, &probe, open))
        };
        self.answers.answered(postmaster, at, &found);
        match self.door.shut(&self.instance, postmaster, at) {
            Some(since) => Postgres::Unresponsive { since },
            None => found,
        }
    }

    /// ALTER SYSTEM has set what is ours to set.
    fn repair(&mut self, at: Instant) {
        if self
            .repaired
            .is_some_and(|last| at.since(last) < REPAIR_EVERY)
        {
            return;
        }
        self.repaired = Some(at);
        let instance = self.instance.clone();
        tokio::spawn(async move {
            if let Err(error) = instance.repair_overrides().await {
                tracing::warn!(
                    error = crate::agent::chain(&error),
                    "an override was not removed"
                );
            }
        });
    }

    /// What Postgres says of a stream that does not come about; its log is read only after a while.
    fn stream_failure(&mut self, at: Instant, as_it_should: bool) -> Option<StreamFailure> {
        if as_it_should {
            self.unconnected = None;
            self.told = None;
            return None;
        }
        let since = *self.unconnected.get_or_insert(at);
        if at.since(since) < CONNECTS_WITHIN {
            return None;
        }
        if let Some((read, failure)) = &self.told
            && at.since(*read) < READ_LOG_EVERY
        {
            return failure.clone();
        }
        let failure = self.instance.stream_failure();
        self.told = Some((at, failure.clone()));
        failure
    }

    fn standby(
        &mut self,
        at: Instant,
        probe: &Probe,
        upstream: Option<Upstream>,
        open: bool,
    ) -> Standby {
        let replayed = probe.replayed.unwrap_or_default();
        let streaming = probe
            .receiver
            .as_ref()
            .is_some_and(|it| it.status == "streaming");
        let cut_off = upstream.is_none() && !probe.has_upstream && probe.receiver.is_none();
        let waits = matches!(
            probe.startup_wait.as_deref(),
            Some("RecoveryRetrieveRetryInterval" | "RecoveryWalStream")
        );
        // Seen waiting at one position for longer than a retry takes: twice, not once.
        self.waiting = match self.waiting {
            Some((since, lsn)) if lsn == replayed && cut_off => Some((since, lsn)),
            _ if waits && cut_off => Some((at, replayed)),
            _ => None,
        };
        let waited = waits
            && self
                .waiting
                .is_some_and(|(since, _)| at.since(since) > TWO_RETRIES);
        let proven = self.streams.are_gone() && probe.received.is_some();
        // What was received may end in the middle of a record, which will never be replayed. Whatever was acknowledged
        // is whole, so once replay waits for more, that is the end.
        let received = if waited {
            replayed
        } else {
            probe.flushed.max(replayed)
        };
        let (upstream, remote) = match upstream {
            Some(upstream) => match upstream.remote {
                Some(remote) => (None, Some(remote)),
                None => (Some(upstream.name), None),
            },
            None => (None, None),
        };
        Standby {
            upstream,
            remote,
            timeline: probe.timeline,
            streaming,
            received,
            replayed,
            end_known: cut_off && (proven || waited),
            open,
            starved: probe.starved.clone(),
        }
    }

    fn primary(&mut self, at: Instant, probe: &Probe, open: bool) -> Primary {
        let mut standbys = BTreeMap::new();
        let mut strangers = BTreeSet::new();
        for row in &probe.standbys {
            let Some((name, epoch)) = NodeName::of_stream(&row.application_name) else {
                continue;
            };
            // Postgres counts it for the node, whoever it is; a slot is held by one walsender only.
            if row.slot.as_deref() != Some(name.slot_of_epoch(epoch).as_str()) {
                strangers.insert(row.pid);
                continue;
            }
            let flushed = row.flushed.unwrap_or_default();
            let streams = row.state.as_deref() == Some("streaming");
            let before = self.seen.get(&name);
            // To a machine that is gone a walsender streams on until its timeout: what counts is what comes back.
            let mute = before.is_some_and(|(_, last)| *last == flushed) && flushed < probe.flushed;
            if streams && !mute {
                self.seen.insert(name.clone(), (at, flushed));
            }
            let seen = self
                .seen
                .get(&name)
                .map_or_else(Instant::default, |(seen, _)| *seen);
            let streaming = streams && at.since(seen) < MUTE;
            standbys.insert(
                name,
                Walsender {
                    streaming,
                    flushed,
                    seen,
                },
            );
        }
        self.turn_out(strangers);
        for (name, (seen, _)) in &self.seen {
            let gone = Walsender {
                streaming: false,
                flushed: Lsn::ZERO,
                seen: *seen,
            };
            standbys.entry(name.clone()).or_insert(gone);
        }
        Primary {
            timeline: probe.timeline,
            flushed: probe.flushed,
            standbys,
            open,
        }
    }

    /// Ends walsenders that stream under a node's name without its slot: seen twice, since one that ends on its own has
    /// lost its slot a moment before.
    fn turn_out(&mut self, strangers: BTreeSet<i32>) {
        for pid in strangers.intersection(&self.strangers) {
            tracing::warn!(
                pid,
                "a walsender has a node's name and not its slot: ended, commits would have counted it"
            );
            let (instance, pid) = (self.instance.clone(), *pid);
            tokio::spawn(async move {
                if let Err(error) = instance.end_walsender(pid, PROBE).await {
                    tracing::warn!(error = crate::agent::chain(&error), "it was not ended");
                }
            });
        }
        if !strangers.is_subset(&self.strangers) {
            self.poke.notify_one();
        }
        self.strangers = strangers;
    }
}

/// What only another copy of the data helps against.
fn broken(failure: &StreamFailure) -> Option<StreamBroken> {
    match failure.trouble? {
        StreamTrouble::WalRemoved => Some(StreamBroken::WalRemoved),
        StreamTrouble::Diverged => Some(StreamBroken::Diverged),
        StreamTrouble::WrongSystem | StreamTrouble::NoSlot | StreamTrouble::Refused => None,
    }
}

/// As Patroni writes a moment.
fn written(at: SystemTime) -> Option<String> {
    let at = jiff::Timestamp::try_from(at).ok()?;
    Some(at.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string())
}

fn row(walsender: &postgres::Walsender) -> api::ReplicationRow {
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    api::ReplicationRow {
        usename: or_empty(&walsender.usename),
        application_name: walsender.application_name.clone(),
        client_addr: walsender.client_addr.clone(),
        state: or_empty(&walsender.state),
        sync_state: or_empty(&walsender.sync_state),
        sync_priority: walsender.sync_priority.unwrap_or_default(),
    }
}

fn facts(probe: &Probe) -> Facts {
    Facts {
        server_version: probe.version,
        postmaster_start_time: written(probe.started_at),
        pending_restart: pending_restart(probe),
        replay_paused: probe.replay_paused,
        has_archive: probe.has_archive,
        replay_timestamp: probe.replayed_at.and_then(written),
        slot_retained: probe.slot_retained,
        replication: probe.standbys.iter().map(row).collect(),
        timeline: probe.timeline,
        sync_names: probe.sync_names.clone(),
    }
}

/// By the parameter's name: what it is, and what it would be.
fn pending_restart(probe: &Probe) -> Option<serde_json::Value> {
    let reason = |it: &postgres::PendingRestart| {
        let values = serde_json::json!({"old_value": it.running, "new_value": it.wanted});
        (it.name.clone(), values)
    };
    let reasons: serde_json::Map<_, _> = probe.pending_restart.iter().map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.into())
}

fn stream_heard(probe: &Probe) -> Option<Instant> {
    let receiver = probe
        .receiver
        .as_ref()
        .filter(|receiver| receiver.status == "streaming")?;
    receiver.message_age.map(|age| now().minus(age))
}

/// Asks the disk to write, again and again, in a task of its own: it may hang for ever.
pub(crate) async fn watch_storage(
    instance: Instance,
    streams: Arc<Streams>,
    out: watch::Sender<Storage>,
    wake: Arc<Notify>,
    figures: Arc<Figures>,
) {
    let mut failing: Option<Instant> = None;
    loop {
        let began = now();
        let asked = if streams.has_data() {
            instance
                .probe_write(WRITE)
                .await
                .map(|disk| figures.disk(disk))
        } else {
            Ok(())
        };
        let storage = match asked {
            Ok(()) => {
                failing = None;
                Storage::Healthy
            }
            Err(error) => {
                let since = *failing.get_or_insert(began);
                Storage::Failing {
                    since,
                    why: error.to_string(),
                }
            }
        };
        let changed = out.send_if_modified(|last| {
            let changed = *last != storage;
            *last = storage;
            changed
        });
        if changed {
            wake.notify_one();
        }
        let rest = if failing.is_some() {
            WRITE_EVERY / 5
        } else {
            WRITE_EVERY
        };
        tokio::time::sleep(rest).await;
    }
}
