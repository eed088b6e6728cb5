//! What Postgres says of itself: one prepared statement on a connection that is kept.
//!
//! **Invariant:** a probe ends within its limit, with an answer or an error that says why not; it holds nothing that an
//! action waits for.

use crate::autoconf;
use crate::config;
use crate::error::PostgresError;
use crate::floors;
use crate::identify::{Identifier, Identity};
use crate::instance::Instance;
use crate::process::PidFile;
use ha::{Lsn, Timeline};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_postgres::Row;

/// What changes seldom and costs more to ask is asked this often.
const SLOW_EVERY: Duration = Duration::from_secs(5);

/// A control file that is not read within this is on a disk that hangs.
const CONTROL_FILE: Duration = Duration::from_millis(300);

/// The instance as it answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub in_recovery: bool,
    /// Primary: of the WAL that it writes. Standby: of the last record that it has replayed.
    pub timeline: Timeline,
    /// Primary: flushed. Standby: received and flushed, or replayed if that is further.
    pub flushed: Lsn,
    /// Standby: flushed by the WAL receiver since the start; `None` if it has never streamed.
    pub received: Option<Lsn>,
    pub replayed: Option<Lsn>,
    pub receiver: Option<Receiver>,
    /// The walsenders, base backups included (see their `state`).
    pub standbys: Vec<Walsender>,
    /// What the startup process waits for.
    pub startup_wait: Option<String>,
    pub replay_paused: bool,
    /// Why replay goes on only after a restart, if so: the standby has less of something than its primary.
    pub starved: Option<String>,
    /// Standby: when the last transaction that it has replayed was committed.
    pub replayed_at: Option<SystemTime>,
    /// The most WAL that a replication slot keeps here, in bytes; `None` without slots.
    pub slot_retained: Option<f64>,
    /// It may take WAL from an archive.
    pub has_archive: bool,
    /// It is told to stream from somebody.
    pub has_upstream: bool,
    /// `synchronous_standby_names` as a session of now sees it.
    pub sync_names: String,
    /// `default_transaction_read_only` is on for everybody.
    pub read_only: bool,
    /// Parameters that a restart would change, by their names.
    pub pending_restart: Vec<PendingRestart>,
    /// Our parameters that somebody has set by ALTER SYSTEM: call `repair_overrides`.
    pub overridden: Vec<&'static str>,
    /// Sessions that wait for their commit to reach standbys.
    pub sync_waiters: u32,
    /// Processes that wait for the WAL's disk.
    pub wal_waiters: u32,
    pub started_at: SystemTime,
    /// `150018`
    pub version: u32,
}

/// A parameter that a restart would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRestart {
    pub name: String,
    /// What it is, as SHOW has it.
    pub running: String,
    /// What it would be, as the configuration has it.
    pub wanted: String,
}

/// The WAL receiver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Receiver {
    pub pid: i32,
    /// `starting`, `streaming`, `waiting`, `restarting`, `stopping`.
    pub status: String,
    pub sender_host: Option<String>,
    pub sender_port: Option<i32>,
    #[serde(rename = "received_tli", deserialize_with = "timeline")]
    pub timeline: Option<Timeline>,
    #[serde(rename = "latest_end_lsn", deserialize_with = "lsn")]
    pub latest_end: Option<Lsn>,
    /// Since the last message of the upstream came in.
    #[serde(deserialize_with = "seconds")]
    pub message_age: Option<Duration>,
}

/// A standby, or a program, that streams from this instance.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Walsender {
    pub pid: i32,
    #[serde(default)]
    pub usename: Option<String>,
    pub application_name: String,
    /// `None` over a Unix socket.
    #[serde(default)]
    pub client_addr: Option<String>,
    /// The replication slot that it holds.
    pub slot: Option<String>,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`.
    pub state: Option<String>,
    #[serde(rename = "sent_lsn", deserialize_with = "lsn")]
    pub sent: Option<Lsn>,
    #[serde(rename = "flush_lsn", deserialize_with = "lsn")]
    pub flushed: Option<Lsn>,
    #[serde(rename = "replay_lsn", deserialize_with = "lsn")]
    pub replayed: Option<Lsn>,
    /// `async`, `potential`, `sync`, `quorum`.
    pub sync_state: Option<String>,
    #[serde(default)]
    pub sync_priority: Option<i32>,
    #[serde(deserialize_with = "seconds")]
    pub reply_age: Option<Duration>,
}

/// The seldom asked part.
pub(crate) struct Slow {
    asked: Instant,
    read_only: bool,
    pending_restart: Vec<PendingRestart>,
}

const SQL: &str = "\
SELECT pg_is_in_recovery() AS in_recovery,
 CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn()::text END AS flushed,
 CASE WHEN pg_is_in_recovery() THEN NULL
      ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END AS timeline,
 pg_last_wal_receive_lsn()::text AS received,
 pg_last_wal_replay_lsn()::text AS replayed,
 CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused,
 extract(epoch FROM pg_last_xact_replay_timestamp())::float8 AS replayed_at,
 (SELECT max(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
      ELSE pg_current_wal_flush_lsn() END, restart_lsn))::float8 FROM pg_replication_slots) AS slot_retained,
 (SELECT row_to_json(r)::text FROM (SELECT pid, status, sender_host, sender_port, received_tli, latest_end_lsn,
    extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8 AS message_age
    FROM pg_stat_wal_receiver) r) AS receiver,
 (SELECT json_agg(r)::text FROM (SELECT pid, usename, application_name, client_addr, sync_priority,
    (SELECT slot_name FROM pg_replication_slots s WHERE s.active_pid = w.pid LIMIT 1) AS slot, state, sent_lsn, flush_lsn, replay_lsn, sync_state,
    extract(epoch FROM clock_timestamp() - reply_time)::float8 AS reply_age
    FROM pg_stat_replication w WHERE state IS DISTINCT FROM 'startup') r) AS standbys,
 a.startup_wait, a.sync_waiters, a.wal_waiters,
 current_setting('synchronous_standby_names') AS sync_names,
 current_setting('restore_command') <> '' AS has_archive,
 current_setting('primary_conninfo') <> '' AS has_upstream,
 extract(epoch FROM pg_postmaster_start_time())::float8 AS started_at,
 current_setting('server_version_num')::int4 AS version
FROM (SELECT max(CASE WHEN backend_type = 'startup' THEN wait_event END) AS startup_wait,
   (count(*) FILTER (WHERE wait_event IN ('SyncRep', 'SyncRepWait')))::int4 AS sync_waiters,
   (count(*) FILTER (WHERE lower(wait_event) IN
     ('walwrite', 'walwritelock', 'walsync', 'walinitwrite', 'walinitsync', 'walsyncmethodassign')))::int4
     AS wal_waiters
   FROM pg_stat_activity) a";

/// Those on the command line change by no reload, so Postgres itself never says that they wait for a restart.
const SLOW_SQL: &str = "SELECT name, current_setting(name), reset_val, pending_restart, \
   CASE WHEN pending_restart THEN coalesce((SELECT f.setting FROM pg_file_settings f \
     WHERE lower(f.name) = lower(s.name) ORDER BY seqno DESC LIMIT 1), boot_val) END, source \
   FROM pg_settings s WHERE pending_restart OR name = 'default_transaction_read_only' OR name = ANY($1) ORDER BY 1";

impl Instance {
    /// Asks the instance about itself, on a connection that nothing else uses. `NotAccepting` while it starts or
    /// replays up to where it is consistent.
    pub async fn probe(&self, limit: Duration) -> Result<Probe, PostgresError> {
        let end = Instant::now() + limit;
        let link = &self.inner.probe_link;
        let rows = match link
            .prepared(|| self.address(), "probe the instance", SQL, limit)
            .await
        {
            // Before it listens there is no one to say so.
            Err(PostgresError::Connect { .. }) if self.is_starting() => {
                return Err(PostgresError::NotAccepting);
            }
            rows => rows?,
        };
        let row = rows.first().ok_or_else(|| bad("no row"))?;
        let mut probe = read(row)?;
        if probe.in_recovery {
            let left = end.saturating_duration_since(Instant::now());
            probe.timeline = self.replay_timeline(&probe, left).await?;
        } else {
            *self.inner.identifier.lock().await = None;
        }
        if probe.replay_paused {
            let left = end.saturating_duration_since(Instant::now());
            probe.starved = self.starved(left).await?;
        }
        let left = end.saturating_duration_since(Instant::now());
        self.add_slow(&mut probe, left).await?;
        probe.overridden = autoconf::overrides(&self.options().data_dir)?;
        Ok(probe)
    }

    /// The postmaster lives and has not yet said that it takes connections.
    fn is_starting(&self) -> bool {
        self.postmaster().is_some() && !self.is_ready()
    }

    /// The pid file says that the server takes connections. One that hangs goes on saying so.
    pub fn is_ready(&self) -> bool {
        let file = PidFile::read(&self.options().data_dir);
        file.is_some_and(|file| file.is_ready())
    }

    async fn add_slow(&self, probe: &mut Probe, limit: Duration) -> Result<(), PostgresError> {
        let mut slow = self.inner.slow.lock().await;
        if slow
            .as_ref()
            .is_none_or(|slow| slow.asked.elapsed() > SLOW_EVERY)
        {
            let doing = "probe the settings";
            let link = &self.inner.probe_link;
            let next = self.next_start(probe.in_recovery).await;
            let names = next.names();
            let rows = link
                .rows(|| self.address(), doing, SLOW_SQL, &[&names], limit)
                .await?;
            let failed = |e| PostgresError::sql(doing, e);
            let mut found = Slow {
                asked: Instant::now(),
                read_only: false,
                pending_restart: Vec::new(),
            };
            for row in &rows {
                let name: String = row.try_get(0).map_err(failed)?;
                let running: String = row.try_get(1).map_err(failed)?;
                let reset: Option<String> = row.try_get(2).map_err(failed)?;
                let pending: bool = row.try_get(3).map_err(failed)?;
                let in_file: Option<String> = row.try_get(4).map_err(failed)?;
                if name == "default_transaction_read_only" {
                    found.read_only = reset.as_deref() == Some("on");
                }
                let source: String = row.try_get(5).map_err(failed)?;
                let in_file = in_file.filter(|_| pending);
                let wanted = next.value(&name, &running, in_file, source == "command line");
                if let Some(wanted) = wanted.filter(|wanted| *wanted != running) {
                    found.pending_restart.push(PendingRestart {
                        name,
                        running,
                        wanted,
                    });
                }
            }
            *slow = Some(found);
        }
        if let Some(slow) = &*slow {
            probe.read_only = slow.read_only;
            probe.pending_restart.clone_from(&slow.pending_restart);
        }
        Ok(())
    }

    /// What a configuration can change of the parameters on the command line, if the instance were started now.
    async fn next_start(&self, in_recovery: bool) -> NextStart {
        let options = self.options();
        if !self.is_started_by_us() {
            return NextStart::default();
        }
        let mut settings = self.inner.settings.lock().await.clone();
        let begun = std::mem::take(&mut settings.floors);
        settings.floors = match in_recovery {
            // A primary is promoted with what is asked for.
            false => BTreeMap::new(),
            // Its primary may have been given less since the start.
            true if !floors::raised(&options, &begun).is_empty() => {
                let now = tokio::time::timeout(CONTROL_FILE, self.floors_now()).await;
                now.ok().flatten().unwrap_or(begun)
            }
            true => begun,
        };
        let fixed = config::fixed_parameters(&options, &self.sockets(), &settings);
        let counted = |name: &str| matches!(name, "wal_level" | "max_replication_slots");
        let fixed = fixed.into_iter().filter(|(name, _)| counted(name));
        NextStart {
            fixed: fixed.collect(),
            asked: floors::NAMES
                .iter()
                .map(|(name, default)| (*name, (floors::asked(&options, name), *default)))
                .collect(),
            floors: settings.floors,
        }
    }

    /// The timeline of the last replayed record: only the replication protocol tells it.
    async fn replay_timeline(
        &self,
        probe: &Probe,
        limit: Duration,
    ) -> Result<Timeline, PostgresError> {
        match self.identify(limit).await {
            Ok(identity) => Ok(identity.timeline),
            // An instance that somebody else started does not let us in there. Once it follows a timeline,
            // the receiver knows it; else the control file does, a little late.
            Err(error) => {
                tracing::debug!(error = %error, "no replication connection to ourselves");
                if let Some(timeline) = probe.receiver.as_ref().and_then(|r| r.timeline) {
                    return Ok(timeline);
                }
                let sql = "SELECT greatest(min_recovery_end_timeline, timeline_id) \
                     FROM pg_control_recovery(), pg_control_checkpoint()";
                let doing = "read the timeline";
                let link = &self.inner.probe_link;
                let rows = link.rows(|| self.address(), doing, sql, &[], limit).await?;
                let row = rows.first().ok_or_else(|| bad("no row"))?;
                let number: i32 = row.try_get(0).map_err(|e| PostgresError::sql(doing, e))?;
                u32::try_from(number)
                    .map(Timeline)
                    .map_err(|_| bad("a negative timeline"))
            }
        }
    }

    /// What IDENTIFY_SYSTEM says, on a kept connection.
    pub async fn identify(&self, limit: Duration) -> Result<Identity, PostgresError> {
        let options = self.options();
        let mut kept = self.inner.identifier.lock().await;
        // Taken out while in use: a half-read connection is not used again.
        if let Some(mut identifier) = kept.take()
            && let Ok(identity) = identifier.ask(limit).await
        {
            *kept = Some(identifier);
            return Ok(identity);
        }
        let socket = self.inner.paths.private_socket(options.port);
        let mut identifier = Identifier::open(&socket, &options.superuser.user, limit).await?;
        let identity = identifier.ask(limit).await?;
        *kept = Some(identifier);
        Ok(identity)
    }
}

/// What the next start would have.
#[derive(Debug, Default)]
struct NextStart {
    fixed: BTreeMap<String, String>,
    /// What the user asks for, and what it is where nobody does.
    asked: BTreeMap<&'static str, (Option<u64>, u64)>,
    floors: BTreeMap<String, u64>,
}

impl NextStart {
    fn names(&self) -> Vec<&str> {
        let fixed = self.fixed.keys().map(String::as_str);
        fixed.chain(self.asked.keys().copied()).collect()
    }

    /// The value of a parameter, as far as it is known that it is going to be this. `in_file`: Postgres itself says
    /// that it waits for a restart.
    fn value(
        &self,
        name: &str,
        running: &str,
        in_file: Option<String>,
        on_command_line: bool,
    ) -> Option<String> {
        let Some((asked, default)) = self.asked.get(name) else {
            return in_file.or_else(|| self.fixed.get(name).cloned());
        };
        let number = |text: &str| text.parse::<u64>().ok();
        let asked = match (asked, in_file.as_deref()) {
            (Some(asked), _) => *asked,
            (None, _) if on_command_line => *default,
            (None, Some(in_file)) => number(in_file)?,
            (None, None) => number(running)?,
        };
        let floor = self.floors.get(name).copied().unwrap_or(0);
        Some(asked.max(floor).to_string())
    }
}

fn bad(answer: &str) -> PostgresError {
    PostgresError::Answer {
        doing: "probe the instance",
        answer: answer.to_owned(),
    }
}

fn read(row: &Row) -> Result<Probe, PostgresError> {
    let failed = |e| PostgresError::sql("read the probe's answer", e);
    let text = |name: &str| row.try_get::<_, Option<String>>(name).map_err(failed);
    let count = |name: &str| {
        row.try_get::<_, i32>(name)
            .map_err(failed)
            .map(|n| u32::try_from(n).unwrap_or(0))
    };
    let position = |name: &str| match text(name)? {
        Some(text) => text
            .parse::<Lsn>()
            .map(Some)
            .map_err(|e| bad(&e.to_string())),
        None => Ok(None),
    };
    let flag = |name: &str| row.try_get::<_, bool>(name).map_err(failed);
    let in_recovery = flag("in_recovery")?;
    let (received, replayed) = (position("received")?, position("replayed")?);
    let timeline = match text("timeline")? {
        Some(hex) => u32::from_str_radix(&hex, 16).map_err(|_| bad(&hex))?,
        None => 0,
    };
    let flushed = position("flushed")?
        .or_else(|| received.max(replayed))
        .unwrap_or_default();
    let started: f64 = row.try_get("started_at").map_err(failed)?;
    let moment =
        |seconds: f64| UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let number = |name: &str| row.try_get::<_, Option<f64>>(name).map_err(failed);
    let receiver = text("receiver")?;
    let standbys = text("standbys")?;
    Ok(Probe {
        in_recovery,
        timeline: Timeline(timeline),
        flushed,
        received: received.filter(|_| in_recovery),
        replayed: replayed.filter(|_| in_recovery),
        receiver: receiver.map(|json| from_json(&json)).transpose()?,
        standbys: standbys
            .map(|json| from_json(&json))
            .transpose()?
            .unwrap_or_default(),
        startup_wait: text("startup_wait")?,
        replay_paused: flag("replay_paused")?,
        starved: None,
        replayed_at: number("replayed_at")?.map(moment),
        slot_retained: number("slot_retained")?,
        has_archive: flag("has_archive")?,
        has_upstream: flag("has_upstream")?,
        sync_names: text("sync_names")?.unwrap_or_default(),
        read_only: false,
        pending_restart: Vec::new(),
        overridden: Vec::new(),
        sync_waiters: count("sync_waiters")?,
        wal_waiters: count("wal_waiters")?,
        started_at: moment(started),
        version: count("version")?,
    })
}

fn from_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, PostgresError> {
    serde_json::from_str(json).map_err(|e| bad(&format!("{json}: {e}")))
}

fn lsn<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lsn>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom))
        .transpose()
}

fn timeline<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timeline>, D::Error> {
    let number = Option::<u32>::deserialize(from)?;
    Ok(number.filter(|number| *number > 0).map(Timeline))
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let seconds = Option::<f64>::deserialize(from)?;
    // Clocks step back; a negative age is none.
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}
