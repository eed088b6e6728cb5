//! The status document.

use crate::backlog::Backlog;
use crate::clock;
use crate::office::{Office, SyncRole};
use crate::patroni::health::standby_state;
use crate::served::{ReplicationRow, Served};
use ha::{Epoch, Errand, Job, NodeName, NodeState, Postgres};
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// So few lines wait wherever somebody writes a log, and are not worth a word, as Patroni has it.
const QUEUE_USUAL: u64 = 2;

/// `GET /patroni`, and the body of the health checks. The order of the fields is Patroni's.
#[derive(Debug, Serialize)]
pub(crate) struct Status<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    postmaster_start_time: Option<&'a str>,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xlog: Option<Xlog<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    sync_standby: bool,
    #[serde(skip_serializing_if = "is_false")]
    quorum_standby: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_state: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    replication: &'a [ReplicationRow],
    #[serde(skip_serializing_if = "is_false")]
    pause: bool,
    #[serde(skip_serializing_if = "is_false")]
    cluster_unlocked: bool,
    #[serde(skip_serializing_if = "is_false")]
    failsafe_mode_is_active: bool,
    dcs_last_seen: u64,
    #[serde(skip_serializing_if = "Map::is_empty")]
    tags: Cow<'a, Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database_system_identifier: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pending_restart: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_restart_reason: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_restart: Option<&'a Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    watchdog_failed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    logger_queue_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logger_records_lost: Option<u64>,
    patroni: Program<'a>,
    /// Where the primary is, by the leader key.
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<PrimaryAt<'a>>,
    standfast: Ours<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Xlog<'a> {
    Primary {
        location: u64,
    },
    Standby {
        received_location: u64,
        replayed_location: u64,
        replayed_timestamp: Option<&'a str>,
        paused: bool,
    },
}

#[derive(Debug, Serialize)]
struct Program<'a> {
    version: &'a str,
    scope: &'a str,
    name: &'a NodeName,
}

/// What Patroni has no field for.
#[derive(Debug, Serialize)]
struct Ours<'a> {
    /// The present or last leadership.
    epoch: Epoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<NodeState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    witness: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_left_ms: Option<u64>,
    /// What a person should know of.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    troubles: &'a [String],
}

/// Where the primary is.
#[derive(Debug, Serialize)]
pub(super) struct PrimaryAt<'a> {
    name: &'a NodeName,
    host: String,
    port: u16,
}

impl<'a> PrimaryAt<'a> {
    pub(super) fn of(office: &Office<'a>) -> Option<Self> {
        let (name, host, port) = office.leader_address()?;
        Some(Self { name, host, port })
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A node that Patroni's agents are to pass over says so in the word they know.
fn tags<'a>(office: &Office<'a>) -> Cow<'a, Map<String, Value>> {
    let served = office.served;
    let note = served.me.as_ref().and_then(|me| me.lineage.as_ref());
    if !office.cluster().is_some_and(|it| ha::gives_way(it, note)) {
        return Cow::Borrowed(&served.tags);
    }
    let mut tags = served.tags.clone();
    tags.insert("nofailover".to_owned(), true.into());
    Cow::Owned(tags)
}

pub(super) fn document<'a>(office: &Office<'a>, log: Option<&Backlog>) -> Status<'a> {
    let served = office.served;
    let cluster = office.cluster();
    let running = office.is_running();
    let sync = office.standby().map(|_| office.sync_role());
    Status {
        state: state(office),
        postmaster_start_time: served.postmaster_start_time.as_deref().filter(|_| running),
        role: role(office),
        server_version: (running && served.server_version > 0).then_some(served.server_version),
        xlog: xlog(office),
        sync_standby: sync == Some(SyncRole::Sync),
        quorum_standby: sync == Some(SyncRole::Quorum),
        timeline: timeline(office),
        replication_state: standby_state(office),
        replication: if office.primary().is_some() {
            &served.replication
        } else {
            &[]
        },
        pause: cluster.is_some_and(|cluster| cluster.settings.paused),
        cluster_unlocked: cluster.is_none_or(|cluster| cluster.leader.is_none()),
        failsafe_mode_is_active: office.failsafe_is_active(),
        dcs_last_seen: office.store_seen(),
        tags: tags(office),
        database_system_identifier: served.system_id.map(|id| id.to_string()),
        pending_restart: served.pending_restart,
        pending_restart_reason: served.pending_restart_reason.as_ref(),
        scheduled_restart: served.scheduled_restart.as_ref(),
        watchdog_failed: served.watchdog_failed,
        logger_queue_size: log.map(Backlog::waiting).filter(|it| *it > QUEUE_USUAL),
        logger_records_lost: log.map(Backlog::lost).filter(|it| *it > 0),
        patroni: Program {
            version: &served.version,
            scope: &served.scope,
            name: &served.name,
        },
        primary: PrimaryAt::of(office),
        standfast: Ours {
            epoch: cluster.map(ha::Cluster::current_epoch).unwrap_or_default(),
            state: served.decision.as_ref().map(|decision| decision.state),
            reason: served
                .decision
                .as_ref()
                .map(|decision| decision.reason.as_str()),
            witness: served.witness,
            lease_left_ms: office.lease().map(|lease| {
                lease
                    .deadline
                    .since(office.now)
                    .as_millis()
                    .try_into()
                    .unwrap_or(u64::MAX)
            }),
            troubles: &served.troubles,
        },
    }
}

/// Patroni's name for what Postgres does.
pub(crate) fn state(office: &Office<'_>) -> &'static str {
    let Some(me) = &office.served.me else {
        return if office.served.witness {
            "stopped"
        } else {
            "unknown"
        };
    };
    if me.errand.is_some_and(is_restart) && !office.is_running() && me.start_failures > 0 {
        return "restart failed";
    }
    match (me.job, &me.postgres) {
        (Some(Job::Bootstrap), _) if office.served.restores => restoring(&me.postgres),
        (Some(Job::Bootstrap), _) => "initializing new cluster",
        (Some(Job::Clone), _) => "creating replica",
        (Some(Job::Drain | Job::Stop), Postgres::Primary(_) | Postgres::Standby(_))
        | (_, Postgres::Down { .. })
            if me.errand.is_some_and(is_restart) =>
        {
            "restarting"
        }
        (Some(Job::Drain | Job::Stop), Postgres::Primary(_) | Postgres::Standby(_)) => "stopping",
        (_, Postgres::Primary(_) | Postgres::Standby(_)) => "running",
        (_, Postgres::Starting) => "starting",
        // It answered once and has not stopped; what more can be said is in the two fields that remain.
        (_, Postgres::Unresponsive { .. }) => "running",
        (_, Postgres::Down { .. })
            if me.start_failures > 0 && matches!(me.data, ha::DataDir::Ready(_)) =>
        {
            "start failed"
        }
        (_, Postgres::Down { leftovers: 0 }) => "stopped",
        (_, Postgres::Down { .. }) => "crashed",
    }
}

fn is_restart(errand: Errand) -> bool {
    match errand {
        Errand::Restart | Errand::Restarting => true,
        Errand::Reinitialize => false,
    }
}

/// A program brings the first data directory, and then a server recovers it.
fn restoring(postgres: &Postgres) -> &'static str {
    match postgres {
        Postgres::Down { .. } => "running custom bootstrap script",
        Postgres::Starting
        | Postgres::Primary(_)
        | Postgres::Standby(_)
        | Postgres::Unresponsive { .. } => "starting after custom bootstrap",
    }
}

/// Patroni's role of the published picture.
pub(crate) fn role_of(served: &Served) -> &'static str {
    role(&Office::new(served, clock::now()))
}

/// Patroni's role: what Postgres is, not what it may be.
fn role(office: &Office<'_>) -> &'static str {
    let Some(me) = &office.served.me else {
        return "uninitialized";
    };
    match (me.job, &me.postgres) {
        (Some(Job::Bootstrap | Job::Clone), _) => "uninitialized",
        (_, Postgres::Primary(_)) => "primary",
        (_, Postgres::Standby(_)) if office.leads_standbys() => "standby_leader",
        (_, Postgres::Standby(_)) => "replica",
        (_, Postgres::Down { .. } | Postgres::Starting | Postgres::Unresponsive { .. }) => {
            match &me.data {
                ha::DataDir::Empty | ha::DataDir::Unfinished | ha::DataDir::Unusable(_) => {
                    "uninitialized"
                }
                ha::DataDir::Ready(_) if office.lease().is_some() && !follows(office) => "primary",
                ha::DataDir::Ready(_) => "replica",
            }
        }
    }
}

fn follows(office: &Office<'_>) -> bool {
    office.cluster().is_some_and(crate::office::follows_another)
}

fn xlog<'a>(office: &Office<'a>) -> Option<Xlog<'a>> {
    if let Some(primary) = office.primary() {
        return Some(Xlog::Primary {
            location: primary.flushed.0,
        });
    }
    let standby = office.standby()?;
    Some(Xlog::Standby {
        received_location: standby.received.0,
        replayed_location: standby.replayed.0,
        replayed_timestamp: office.served.replayed_timestamp.as_deref(),
        paused: office.served.replay_paused,
    })
}

pub(crate) fn timeline(office: &Office<'_>) -> Option<u32> {
    if let Some(primary) = office.primary() {
        return Some(primary.timeline.0);
    }
    let standby = office.standby()?;
    let lineage = office.served.me.as_ref()?.lineage.as_ref()?;
    Some(lineage.at(standby.received).timeline.0)
}
