//! What another server says of itself, asked with the login of pg_rewind, encrypted as pg_rewind is told to be.

use crate::error::PostgresError;
use crate::instance::Instance;
use crate::options::Upstream;
use crate::sql::{Address, Host, Link};
use crate::timeline::{History, history_file};
use crate::tls::Tls;
use ha::{Lsn, SystemId, Timeline};
use std::time::{Duration, Instant};

/// How often the upstream is asked again.
const POLL: Duration = Duration::from_millis(50);

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamInfo {
    pub system_id: SystemId,
    pub in_recovery: bool,
    /// Primary: of the WAL that it writes. Standby: of its control file, which may be a little late.
    pub timeline: Timeline,
    /// Of its latest checkpoint: what pg_rewind goes by.
    pub checkpoint_timeline: Timeline,
    /// Flushed; on a standby received, or replayed if that is further.
    pub position: Lsn,
    pub history: History,
    /// `150018`
    pub version: u32,
}

const SQL: &str = "\
SELECT s.system_identifier::text, pg_is_in_recovery(),
 CASE WHEN pg_is_in_recovery() THEN NULL
      ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
 c.timeline_id, r.min_recovery_end_timeline,
 CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
      ELSE pg_current_wal_flush_lsn() END::text,
 current_setting('server_version_num')::int4
FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r";

impl Instance {
    /// Asks an upstream who and where it is.
    pub async fn upstream_info(
        &self,
        upstream: &Upstream,
        limit: Duration,
    ) -> Result<UpstreamInfo, PostgresError> {
        let link = self.connect_upstream(upstream, limit).await?;
        info(&link, upstream.timeline, limit).await
    }

    /// Returns when the upstream has the slot that we are told to use: it makes a node's when it sees the node.
    pub async fn upstream_slot(
        &self,
        upstream: &Upstream,
        limit: Duration,
    ) -> Result<(), PostgresError> {
        let Some(slot) = &upstream.slot else {
            return Ok(());
        };
        let doing = "waiting for the slot on the upstream";
        let sql = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1";
        let end = Instant::now() + limit;
        let link = self.connect_upstream(upstream, limit).await?;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(POLL);
            if !link.rows(doing, sql, &[slot], left).await?.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(PostgresError::Timeout {
                    doing,
                    after: limit,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A session on the upstream with the login of pg_rewind; where there is none yet, as under Patroni, the superuser's.
    pub(crate) async fn connect_upstream(
        &self,
        upstream: &Upstream,
        limit: Duration,
    ) -> Result<Link, PostgresError> {
        let options = self.options();
        let told = &options.rewind_conninfo.0;
        let tls = Tls::meant(|key| told.get(key).cloned());
        let tls = tls.map_err(|bad| PostgresError::Refused(bad.to_string()))?;
        let mut address = Address {
            host: Host::Tcp(upstream.host.clone()),
            port: upstream.port,
            login: options.rewind.clone(),
            database: options.database.clone(),
            quiet: false,
            tls: Some(tls),
        };
        match Link::open(&address, limit).await {
            Err(error)
                if is_unknown_login(&error) && !options.superuser.password.expose().is_empty() =>
            {
                address.login = options.superuser.clone();
                Link::open(&address, limit).await
            }
            opened => opened,
        }
    }
}

fn is_unknown_login(error: &PostgresError) -> bool {
    use tokio_postgres::error::SqlState;
    let PostgresError::Connect { source, .. } = error else {
        return false;
    };
    let unknown = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    ];
    source.code().is_some_and(|code| unknown.contains(code))
}

/// `at_least`: a standby's timeline, where its control file may not name it yet.
pub(crate) async fn info(
    link: &Link,
    at_least: Option<Timeline>,
    limit: Duration,
) -> Result<UpstreamInfo, PostgresError> {
    let doing = "ask the upstream about itself";
    let failed = |e| PostgresError::sql(doing, e);
    let bad = |answer: String| PostgresError::Answer { doing, answer };
    let rows = link.rows(doing, SQL, &[], limit).await?;
    let row = rows.first().ok_or_else(|| bad("no row".to_owned()))?;
    let system: String = row.try_get(0).map_err(failed)?;
    let system_id = system.parse::<i64>().ok().map(i64::cast_unsigned);
    let written: Option<String> = row.try_get(2).map_err(failed)?;
    let number = |n: Option<i32>| Timeline(n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0));
    let checkpoint_timeline = number(row.try_get(3).map_err(failed)?);
    let recovery = number(row.try_get(4).map_err(failed)?);
    let timeline = match written {
        Some(hex) => Timeline(u32::from_str_radix(&hex, 16).map_err(|_| bad(hex))?),
        None => checkpoint_timeline
            .max(recovery)
            .max(at_least.unwrap_or_default()),
    };
    let position: Option<String> = row.try_get(5).map_err(failed)?;
    let version: i32 = row.try_get(6).map_err(failed)?;
    Ok(UpstreamInfo {
        system_id: SystemId(system_id.ok_or_else(|| bad(system))?),
        in_recovery: row.try_get(1).map_err(failed)?,
        timeline,
        checkpoint_timeline,
        position: position
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        history: history(link, timeline, limit).await?,
        version: u32::try_from(version).unwrap_or(0),
    })
}

async fn history(
    link: &Link,
    timeline: Timeline,
    limit: Duration,
) -> Result<History, PostgresError> {
    if timeline.0 <= 1 {
        return Ok(History::first());
    }
    let doing = "read the upstream's timeline history";
    let path = format!("pg_wal/{}", history_file(timeline));
    let rows = link
        .rows(doing, "SELECT pg_read_binary_file($1)", &[&path], limit)
        .await?;
    let bytes: Vec<u8> = match rows.first() {
        Some(row) => row.try_get(0).map_err(|e| PostgresError::sql(doing, e))?,
        None => Vec::new(),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    History::parse(timeline, &text).ok_or(PostgresError::Answer {
        doing,
        answer: text,
    })
}
