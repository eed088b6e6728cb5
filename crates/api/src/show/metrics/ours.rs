//! What Patroni has no figure for: epoch, lease, protection, lag, the loop and the store.

use super::Page;
use super::patroni::start_seconds;
use crate::clock;
use crate::event::last_number;
use crate::office::Office;
use crate::router::Context;
use ha::{Cluster, Postgres};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) fn write(page: &mut Page, context: &Context, office: &Office<'_>) {
    leadership(page, office);
    health(page, context, office);
    certificates(page, context);
    if let Some(cluster) = office.cluster() {
        durability(page, cluster);
        replay(page, office);
        members(page, cluster);
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

/// Of the certificates that this node shows to others.
fn certificates(page: &mut Page, context: &Context) {
    let known = context.options.certificates.iter();
    let rest = context.options.certificate.as_ref();
    let rest = rest.and_then(|certificate| Some(("rest", certificate.expires()?)));
    let ends: Vec<_> = known
        .filter_map(|(of, tls)| Some((*of, tls.expires()?)))
        .chain(rest)
        .collect();
    if ends.is_empty() {
        return;
    }
    let name = "standfast_certificate_expires_seconds";
    page.head(
        name,
        "gauge",
        "When the certificate expires, in epoch seconds.",
    );
    for (of, at) in ends {
        page.sample(name, &[("of", of)], at);
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
        "standfast_sync_configured",
        "1 if commits are to be on a standby before they are acknowledged.",
        cluster.settings.sync_mode != ha::SyncMode::Off,
    );
    page.flag(
        "standfast_sync_protected",
        "1 if every commit is on a standby before it is acknowledged.",
        newest.is_some_and(|setting| !setting.is_alone()),
    );
}

/// A standby's distance from the leader in time: since the commit that it replayed last, unless it has replayed all
/// that is known.
fn replay(page: &mut Page, office: &Office<'_>) {
    if office.standby().is_none() {
        return;
    }
    let replayed = start_seconds(office.served.replayed_timestamp.as_deref());
    let behind = office.replay_lag().is_none_or(|bytes| bytes > 0);
    let lag = if behind && replayed > 0.0 {
        (clock::epoch_seconds_exact() - replayed).max(0.0)
    } else {
        0.0
    };
    page.gauge(
        "standfast_replay_lag_seconds",
        "How old what this standby replayed last is; 0 if it has replayed everything that is known.",
        lag,
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
