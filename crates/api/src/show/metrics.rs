//! `/metrics`: Patroni's names as they are, and `standfast_*` beside them.

use crate::event::last_number;
use crate::office::{Office, SyncRole};
use crate::patroni;
use crate::router::Context;
use crate::served::{Metric, MetricKind, Sample};
use ha::{Cluster, Postgres};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Text in the exposition format; every sample is labelled with scope and name.
struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, extra: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{{}", self.labels);
        for (label, text) in extra {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u8::from(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }
}

pub(crate) fn text(context: &Context, office: &Office<'_>) -> String {
    let served = office.served;
    let labels = format!(
        "scope=\"{}\",name=\"{}\"",
        escape(&served.scope),
        escape(served.name.as_str())
    );
    let mut page = Page {
        text: String::with_capacity(12 << 10),
        labels,
    };
    patronis(&mut page, office);
    leadership(&mut page, office);
    health(&mut page, context, office);
    if let Some(cluster) = office.cluster() {
        durability(&mut page, cluster);
        members(&mut page, cluster);
    }
    for metric in &served.metrics {
        agents(&mut page, metric);
    }
    page.text
}

/// As Patroni 4.1 has them, in its order.
fn patronis(page: &mut Page, office: &Office<'_>) {
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
        false,
    );
    page.flag(
        "patroni_replica",
        "1 if this node is a replica.",
        standby.is_some(),
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
        "1 if Postgres is in recovery and does not stream.",
        standby.is_some() && !streaming,
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
        false,
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

const STATE_HELP: &str = "State of Postgres. Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, \
    3=custom_bootstrap_failed, 4=creating_replica, 5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, \
    9=restarting, 10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed";

fn state_number(state: &str) -> u8 {
    match state {
        "initializing new cluster" => 0,
        "creating replica" => 4,
        "running" => 5,
        "starting" => 6,
        "start failed" => 8,
        "stopping" => 11,
        "crashed" => 14,
        // Unknown counts as stopped.
        _ => 12,
    }
}

fn leadership(page: &mut Page, office: &Office<'_>) {
    let lease = office.lease();
    let left = lease.map_or(0.0, |lease| lease.deadline.since(office.now).as_secs_f64());
    let epoch = office
        .cluster()
        .map_or(0, |cluster| cluster.current_epoch().0);
    page.gauge(
        "standfast_epoch",
        "The number of the present or last leadership.",
        epoch,
    );
    page.flag(
        "standfast_leader",
        "1 if this node holds the leadership now.",
        lease.is_some(),
    );
    page.flag(
        "standfast_writable",
        "1 if clients can write here, as /primary says.",
        office.is_writable(),
    );
    page.gauge(
        "standfast_lease_left_seconds",
        "Until Postgres here is killed without a renewal; 0 without a lease.",
        left,
    );
    if let Some(decision) = &office.served.decision {
        page.head(
            "standfast_state",
            "gauge",
            "1 for the state that the node is in.",
        );
        page.sample("standfast_state", &[("state", decision.state.as_str())], 1);
    }
}

fn health(page: &mut Page, context: &Context, office: &Office<'_>) {
    let served = office.served;
    let seconds = |span: Duration| span.as_secs_f64();
    page.head(
        "standfast_build_info",
        "gauge",
        "Always 1; the version is a label.",
    );
    page.sample("standfast_build_info", &[("version", &served.version)], 1);
    page.gauge(
        "standfast_store_silence_seconds",
        "Since the store was last heard of.",
        seconds(office.store_silence().unwrap_or_default()),
    );
    page.flag(
        "standfast_store_reachable",
        "1 if the store answers.",
        served.cluster.is_some() && served.store_silent_for.is_none(),
    );
    page.gauge(
        "standfast_loop_age_seconds",
        "Since the last decision.",
        seconds(office.age()),
    );
    page.gauge(
        "standfast_api_connections",
        "REST connections open now.",
        context.connections.load(Ordering::Relaxed),
    );
    page.counter(
        "standfast_events_total",
        "Events in the life of the cluster.",
        last_number(context.keys(), &served.snapshot),
    );
    let hung = served
        .me
        .as_ref()
        .is_some_and(|me| matches!(me.postgres, Postgres::Unresponsive { .. }));
    page.flag(
        "standfast_postgres_unresponsive",
        "1 if Postgres runs and does not answer.",
        hung,
    );
    let failing = served
        .me
        .as_ref()
        .is_some_and(|me| matches!(me.storage, ha::Storage::Failing { .. }));
    page.flag(
        "standfast_storage_failing",
        "1 if the write probe of the data disk fails.",
        failing,
    );
    if context.members.source().is_some() {
        let members = context.members.known();
        let voters = members.iter().filter(|member| member.voter).count();
        page.gauge(
            "standfast_store_voters",
            "Voters of the embedded store.",
            voters,
        );
        page.flag(
            "standfast_store_has_leader",
            "1 if the embedded store has a leader.",
            members.iter().any(|member| member.leader),
        );
    }
}

fn durability(page: &mut Page, cluster: &Cluster) {
    let newest = cluster.sync.as_ref().map(ha::quorum::SyncRecord::newest);
    page.gauge(
        "standfast_sync_standbys",
        "Standbys that count for commits.",
        newest.map_or(0, |setting| setting.standbys.len()),
    );
    page.gauge(
        "standfast_sync_needed",
        "Acknowledgements that a commit needs.",
        newest.map_or(0, |setting| setting.needed),
    );
    page.gauge(
        "standfast_sync_settings",
        "Settings that a claim must satisfy; more than 1 while the setting changes.",
        cluster
            .sync
            .as_ref()
            .map_or(0, |sync| sync.settings().len()),
    );
    page.flag(
        "standfast_sync_protected",
        "1 if every commit is on a standby before it is acknowledged.",
        newest.is_some_and(|setting| !setting.is_alone()),
    );
}

fn members(page: &mut Page, cluster: &Cluster) {
    page.head(
        "standfast_member_alive",
        "gauge",
        "1 if the node's lease in the store lives.",
    );
    for name in cluster.nodes.keys() {
        let alive = u8::from(cluster.members.contains_key(name));
        page.sample("standfast_member_alive", &[("node", name.as_str())], alive);
    }
    page.head(
        "standfast_member_lag_bytes",
        "gauge",
        "Bytes behind the leader's last beat.",
    );
    for (name, member) in &cluster.members {
        if cluster.leader.as_ref() != Some(name) {
            let lag = cluster.leader_position.bytes_since(member.position);
            page.sample(
                "standfast_member_lag_bytes",
                &[("node", name.as_str())],
                lag,
            );
        }
    }
}

fn agents(page: &mut Page, metric: &Metric) {
    let kind = match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    page.head(metric.name, kind, metric.help);
    for Sample {
        suffix,
        labels,
        value,
    } in &metric.samples
    {
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(label, text)| (*label, text.as_str()))
            .collect();
        page.sample(&format!("{}{suffix}", metric.name), &labels, value);
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
fn start_seconds(text: Option<&str>) -> f64 {
    let parsed: Option<jiff::Timestamp> = text.and_then(|text| text.parse().ok());
    parsed.map_or(0.0, |time| time.as_duration().as_secs_f64())
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
