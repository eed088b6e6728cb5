//! The health checks: 200 or 503.

use super::query::Query;
use crate::office::{Office, SyncRole};
use axum::http::StatusCode;
use ha::Standby;
use serde_json::Value;

pub(super) fn code(passes: bool) -> StatusCode {
    if passes {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// The checks whose body is the status document.
pub(super) fn passes(office: &Office<'_>, check: &str, query: &Query) -> bool {
    let primary = || office.is_writable() && tags_fit(office, query);
    let replica = || is_replica(office, query);
    let role = office.sync_role();
    match check {
        "" | "primary" | "master" | "read-write" => primary(),
        "leader" => office.lease().is_some() && tags_fit(office, query),
        "replica" => replica(),
        "standby-leader" | "standby_leader" => office.leads_standbys() && tags_fit(office, query),
        "read-only" => {
            primary() || replica() || (office.leads_standbys() && tags_fit(office, query))
        }
        "sync" | "synchronous" => role == SyncRole::Sync && replica(),
        "read-only-sync" => primary() || (role == SyncRole::Sync && replica()),
        "quorum" => role == SyncRole::Quorum && replica(),
        "read-only-quorum" => primary() || (role == SyncRole::Quorum && replica()),
        "async" | "asynchronous" => role == SyncRole::Async && replica(),
        "health" => office.is_running(),
        _ => false,
    }
}

fn is_replica(office: &Office<'_>, query: &Query) -> bool {
    if !office.is_readable_standby()
        || office.leads_standbys()
        || truthy(office.served.tags.get("noloadbalance"))
    {
        return false;
    }
    let near = query
        .lag()
        .is_none_or(|limit| office.replay_lag().is_some_and(|lag| lag <= limit));
    let state = query.value("replication_state");
    let wanted = state.is_none_or(|wanted| standby_state(office) == Some(wanted));
    near && wanted && tags_fit(office, query)
}

/// How a standby gets its WAL, in Patroni's words; `None`: not at all at present.
pub fn replication_state(standby: &Standby, has_archive: bool) -> Option<&'static str> {
    match (standby.streaming, has_archive) {
        (true, _) => Some("streaming"),
        (false, true) => Some("in archive recovery"),
        (false, false) => None,
    }
}

/// The same of this node.
pub(super) fn standby_state(office: &Office<'_>) -> Option<&'static str> {
    replication_state(office.standby()?, office.served.has_archive)
}

fn tags_fit(office: &Office<'_>, query: &Query) -> bool {
    query.tags().all(|(name, wanted)| {
        let found = office.served.tags.get(name);
        match found {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Bool(flag)) => {
                wanted.eq_ignore_ascii_case(if *flag { "true" } else { "false" })
            }
            Some(other) => format!("{other}") == wanted,
            None => false,
        }
    })
}

fn truthy(tag: Option<&Value>) -> bool {
    match tag {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => matches!(text.as_str(), "true" | "on" | "yes" | "1"),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
    }
}

/// Whether the agent's loop still turns.
pub(super) fn is_live(office: &Office<'_>) -> bool {
    let settings = office
        .cluster()
        .map(|cluster| cluster.settings.clone())
        .unwrap_or_default();
    // A standby's agent may be held up longer without harm. Neither can turn faster than it means to.
    let patience = if office.primary().is_some() {
        settings.ttl
    } else {
        settings.ttl * 2
    };
    settings.paused || office.age() < patience.max(settings.loop_wait * 2)
}

/// Whether traffic may be sent here: a primary in office, or a standby that streams and is near.
pub(super) fn is_ready(office: &Office<'_>, query: &Query) -> bool {
    if office.served.witness {
        return is_live(office);
    }
    if office.is_writable() {
        return true;
    }
    let streams = office
        .standby()
        .is_some_and(|standby| standby.open && standby.streaming);
    let configured = || {
        office
            .cluster()
            .map(|cluster| cluster.settings.lag_bytes_max)
    };
    let limit = query.lag().or_else(configured).unwrap_or_default();
    let lag = match query.value("mode") {
        Some("write") => office.receive_lag(),
        _ => office.replay_lag(),
    };
    streams && lag.is_some_and(|lag| lag <= limit)
}
