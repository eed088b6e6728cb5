//! The metrics that Patroni 4.1 has, in its order, so that existing dashboards and alerts work.

use super::Page;
use crate::office::{Office, SyncRole};
use crate::patroni;
use crate::replication_state;

/// As Patroni 4.1 has them, in its order.
pub(super) fn write(page: &mut Page, office: &Office<'_>) {
    let served = office.served;
    let standby = office.standby();
    let primary = office.primary();
    let cluster = office.cluster();
    let role = standby.map_or(SyncRole::Unknown, |_| office.sync_role());
    let start = office
        .is_running()
        .then(|| start_seconds(served.postmaster_start_time.as_deref()));
    let streaming = standby.is_some_and(|standby| standby.streaming);
    let replayed = start_seconds(served.replayed_timestamp.as_deref());
    let unlocked = cluster.is_none_or(|cluster| cluster.leader.is_none());
    page.gauge(
        "patroni_version",
        "Version of this program without periods.",
        version(&served.version),
    );
    page.flag(
        "patroni_postgres_running",
        "1 if Postgres is running.",
        office.is_running(),
    );
    page.gauge(
        "patroni_postmaster_start_time",
        "Epoch seconds since Postgres started.",
        start.unwrap_or(0.0),
    );
    page.flag(
        "patroni_primary",
        "1 if this node is the leader and Postgres is primary.",
        office.lease().is_some() && primary.is_some(),
    );
    page.counter(
        "patroni_xlog_location",
        "WAL position of the primary in bytes, 0 on others.",
        primary.map_or(0, |primary| primary.flushed.0),
    );
    page.flag(
        "patroni_standby_leader",
        "1 if this node leads a standby cluster.",
        office.leads_standbys(),
    );
    page.flag(
        "patroni_replica",
        "1 if this node is a replica.",
        standby.is_some() && !office.leads_standbys(),
    );
    page.flag(
        "patroni_sync_standby",
        "1 if this node is a synchronous standby.",
        role == SyncRole::Sync,
    );
    page.flag(
        "patroni_quorum_standby",
        "1 if this node is a quorum standby.",
        role == SyncRole::Quorum,
    );
    page.counter(
        "patroni_xlog_received_location",
        "Received WAL position in bytes, 0 if this node is no replica.",
        standby.map_or(0, |standby| standby.received.0),
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Replayed WAL position in bytes, 0 if this node is no replica.",
        standby.map_or(0, |standby| standby.replayed.0),
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Time of the last replayed transaction, 0 if none.",
        if standby.is_some() { replayed } else { 0.0 },
    );
    page.flag(
        "patroni_xlog_paused",
        "1 if replay is paused.",
        standby.is_some() && served.replay_paused,
    );
    page.flag(
        "patroni_postgres_streaming",
        "1 if Postgres is streaming.",
        streaming,
    );
    page.flag(
        "patroni_postgres_in_archive_recovery",
        "1 if Postgres takes WAL from the archive.",
        standby.and_then(|it| replication_state(it, office.served.has_archive))
            == Some("in archive recovery"),
    );
    page.gauge(
        "patroni_postgres_server_version",
        "Version of Postgres if running, 0 otherwise.",
        if office.is_running() {
            served.server_version
        } else {
            0
        },
    );
    page.flag(
        "patroni_cluster_unlocked",
        "1 if the cluster has no leader.",
        unlocked,
    );
    page.flag(
        "patroni_failsafe_mode_is_active",
        "1 if failsafe mode is active.",
        office.failsafe_is_active(),
    );
    page.flag(
        "patroni_failsafe_mode_enabled",
        "1 if failsafe mode is on.",
        office.failsafe_members().is_some(),
    );
    page.flag(
        "patroni_failsafe_member",
        "1 if this node is a member of the failsafe topology.",
        office
            .failsafe_members()
            .is_some_and(|members| members.contains_key(&served.name)),
    );
    page.gauge(
        "patroni_postgres_timeline",
        "Timeline of Postgres if running, 0 otherwise.",
        patroni::timeline(office).unwrap_or(0),
    );
    page.gauge(
        "patroni_dcs_last_seen",
        "Epoch seconds of the last contact with the store.",
        office.store_seen(),
    );
    page.flag(
        "patroni_pending_restart",
        "1 if the node needs a restart.",
        served.pending_restart,
    );
    page.flag(
        "patroni_is_paused",
        "1 if automatic failover is off.",
        cluster.is_some_and(|cluster| cluster.settings.paused),
    );
    page.gauge(
        "patroni_postgres_state",
        STATE_HELP,
        state_number(patroni::state(office)),
    );
    page.gauge(
        "patroni_failover_priority",
        "Candidate priority of this node.",
        cluster.map_or(0, |cluster| cluster.node(&served.name).priority),
    );
}

/// One series a role, 1 for the present one: a dashboard needs no sum of flags.
pub(super) fn role(page: &mut Page, office: &Office<'_>) {
    let standby = office.standby().map(|_| office.sync_role());
    let now = match (
        office.lease().is_some() && office.primary().is_some(),
        standby,
    ) {
        (true, _) => "primary",
        (false, Some(_)) if office.leads_standbys() => "standby_leader",
        (false, Some(SyncRole::Sync)) => "sync_standby",
        (false, Some(SyncRole::Quorum)) => "quorum_standby",
        (false, Some(SyncRole::Async | SyncRole::Unknown)) => "replica",
        (false, None) => "none",
    };
    page.head(
        "patroni_role",
        "gauge",
        "1 for the role that this node has.",
    );
    for role in [
        "primary",
        "standby_leader",
        "sync_standby",
        "quorum_standby",
        "replica",
        "none",
    ] {
        page.sample("patroni_role", &[("role", role)], u8::from(role == now));
    }
}

const STATE_HELP: &str = "State of Postgres. Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, \
    3=custom_bootstrap_failed, 4=creating_replica, 5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, \
    9=restarting, 10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed";

fn state_number(state: &str) -> u8 {
    match state {
        "initializing new cluster" => 0,
        "running custom bootstrap script" => 2,
        "creating replica" => 4,
        "running" => 5,
        "starting" => 6,
        "starting after custom bootstrap" => 7,
        "start failed" => 8,
        "restarting" => 9,
        "restart failed" => 10,
        "stopping" => 11,
        "crashed" => 14,
        // Unknown counts as stopped. What is never said here: 1, 3 and 13; a founder tries again, a stop has no end but its own.
        _ => 12,
    }
}

/// `4.1.5` is `040105`.
fn version(text: &str) -> String {
    let mut parts = text
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    format!("{:02}{:02}{:02}", part(), part(), part())
}

/// A timestamp of Postgres in epoch seconds, 0 if it is none.
pub(super) fn start_seconds(text: Option<&str>) -> f64 {
    let parsed: Option<jiff::Timestamp> = text.and_then(|text| text.parse().ok());
    parsed.map_or(0.0, |time| time.as_duration().as_secs_f64())
}
