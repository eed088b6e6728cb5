//! Patroni's actions, in Patroni's words.

use super::{restart, schedule};
use crate::body;
use crate::errand::Schedule;
use crate::error::Refusal;
use crate::holding;
use crate::order::{self, Order};
use crate::router::Context;
use crate::unique::Unique;
use crate::v1::{Action, Code, Outcome, OutcomeKind};
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use ha::NodeName;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;
use store::layout::ConfigRecord;

/// As long as Patroni waits at least.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The body of `POST /switchover` and `POST /failover`; unknown fields are ignored, as Patroni does.
#[derive(Debug, Default, Deserialize)]
struct Change {
    leader: Option<String>,
    candidate: Option<String>,
    member: Option<String>,
    scheduled_at: Option<Value>,
}

pub(super) async fn act(context: &Context, segment: &str, parts: &Parts, body: Body) -> Response {
    if let Err(refusal) = context.authorize(&parts.headers) {
        return refusal.into_response();
    }
    let needs_body = matches!(
        (&parts.method, segment),
        (&Method::PATCH | &Method::PUT, "config") | (&Method::POST, "switchover" | "failover")
    );
    // A body in chunks has no length, and is read all the same.
    let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING]
        .iter()
        .any(|name| parts.headers.contains_key(name));
    if needs_body && !has_body {
        return body::text(StatusCode::LENGTH_REQUIRED, "the body is missing");
    }
    let body = match body::read(body).await {
        Ok(bytes) => bytes,
        Err(refusal) => return plain(refusal),
    };
    let (store, keys) = (&*context.options.store, context.keys());
    let method = &parts.method;
    match (method, segment) {
        (&Method::PATCH, "config") => match object(&body) {
            Ok(change) => answer(context, order::merge(store, keys, &change).await, change),
            Err(refusal) => plain(refusal),
        },
        (&Method::PUT, "config") => match object(&body) {
            Ok(next) => answer(context, order::replace(store, keys, &next).await, next),
            Err(refusal) => plain(refusal),
        },
        (&Method::POST, "switchover" | "failover") => {
            let change = object(&body).and_then(|_| body::parse::<Change>(&body));
            match change {
                Ok(change) => change_leader(context, segment == "failover", change).await,
                Err(refusal) => plain(refusal),
            }
        }
        (&Method::DELETE, "switchover") => match order::cancel(store, keys).await {
            Ok(()) => body::text(StatusCode::OK, "scheduled switchover deleted"),
            Err(refusal) => plain(refusal),
        },
        (&Method::POST, "restart") => match optional(&body) {
            Ok(asked) => restart::restart(context, &asked).await,
            Err(refusal) => plain(refusal),
        },
        (&Method::POST, "failsafe") => holding::answer(context, &body).await,
        (&Method::DELETE, "restart") => restart::cancel(context).await,
        (&Method::POST, "reload") => restart::reload(context),
        (&Method::POST, "reinitialize") => match optional(&body) {
            Ok(asked) => restart::reinitialize(context, &asked).await,
            Err(refusal) => plain(refusal),
        },
        (&Method::POST, "citus" | "mpp") => body::text(
            StatusCode::NOT_IMPLEMENTED,
            "Citus is not supported: there is one group of nodes, and nothing to tell it",
        ),
        _ => {
            let text = format!("{method} /{segment} is not something this node can do");
            body::text(StatusCode::NOT_IMPLEMENTED, text)
        }
    }
}

/// A JSON object that is there.
fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if bytes.trim_ascii().is_empty() {
        return Err(Refusal::bad_request("the body is missing"));
    }
    body::parse::<Unique>(bytes).map(|it| it.0)
}

/// A JSON object, or none.
fn optional(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    body::parse::<Unique>(bytes).map(|it| it.0)
}

fn answer(
    context: &Context,
    done: Result<ConfigRecord, Refusal>,
    asked: Map<String, Value>,
) -> Response {
    match done {
        Ok(config) => body::changed(&config, asked, context.options.not_taken),
        Err(refusal) => plain(refusal),
    }
}

pub(super) fn plain(refusal: Refusal) -> Response {
    body::text(refusal.status(), refusal.error)
}

async fn change_leader(context: &Context, failover: bool, change: Change) -> Response {
    // With a leader named it is a switchover, whatever the path says.
    let failover = failover && change.leader.is_none();
    let (order, at) = match meant(failover, change) {
        Ok(meant) => meant,
        Err(refusal) => return plain(refusal),
    };
    if let Err(refusal) = possible(context, &order) {
        return plain(refusal);
    }
    if let Some(at) = at {
        return match order::schedule(context, &order, at).await {
            Ok(()) => body::text(StatusCode::ACCEPTED, "Switchover scheduled"),
            Err(refusal) => plain(refusal),
        };
    }
    match order::perform(context, &order).await {
        Ok(outcome) => told(failover, &order, &outcome),
        Err(refusal) => not_done(failover, refusal),
    }
}

/// What Patroni says of an order that can't be, as far as this node knows. The order itself is made on a fresh read.
fn possible(context: &Context, order: &Order) -> Result<(), Refusal> {
    let served = context.served();
    let Some(cluster) = &served.cluster else {
        return Err(Refusal::no_contact());
    };
    if cluster.settings.paused && order.to.is_none() {
        return Err(Refusal::bad_request(
            "in a paused cluster a switchover needs its candidate",
        ));
    }
    if let Some(from) = &order.from
        && cluster.leader.as_ref() != Some(from)
    {
        return Err(Refusal::refused("leader name does not match"));
    }
    let others = || {
        let members = cluster.members.keys();
        members.filter(|name| cluster.leader.as_ref() != Some(*name))
    };
    let Some(to) = &order.to else {
        return match others().next() {
            Some(_) => Ok(()),
            None => Err(Refusal::refused(
                "switchover is not possible: cluster does not have members except leader",
            )),
        };
    };
    if !cluster.members.contains_key(to) {
        return Err(Refusal::refused("candidate does not exists"));
    }
    let newest = cluster.sync.as_ref().map(ha::quorum::SyncRecord::newest);
    let synchronous = newest.is_none_or(|setting| setting.standbys.contains(to));
    if cluster.settings.sync_mode == ha::SyncMode::On && order.from.is_some() && !synchronous {
        return Err(Refusal::refused(
            "candidate name does not match with sync_standby",
        ));
    }
    Ok(())
}

fn meant(failover: bool, change: Change) -> Result<(Order, Option<Schedule>), Refusal> {
    let name =
        |text: String| NodeName::new(text).map_err(|bad| Refusal::bad_request(bad.to_string()));
    let from = change
        .leader
        .filter(|text| !text.is_empty())
        .map(name)
        .transpose()?;
    let to = change
        .candidate
        .or(change.member)
        .filter(|text| !text.is_empty());
    let to = to.map(name).transpose()?;
    if failover && to.is_none() {
        return Err(Refusal::bad_request(
            "Failover could be performed only to a specific candidate",
        ));
    }
    if !failover && from.is_none() {
        return Err(Refusal::bad_request(
            "Switchover could be performed only from a specific leader",
        ));
    }
    let at = schedule::read(change.scheduled_at.as_ref())?;
    if failover && at.is_some() {
        return Err(Refusal::bad_request("Failover can't be scheduled"));
    }
    if from.is_some() && from == to {
        return Err(Refusal::refused("leader and candidate are the same"));
    }
    let order = Order {
        accept_loss: false,
        action: if failover {
            Action::Failover
        } else {
            Action::Switchover
        },
        from,
        to,
        timeout: TIMEOUT,
        epoch: None,
    };
    Ok((order, at))
}

fn told(failover: bool, order: &Order, outcome: &Outcome) -> Response {
    let leader = &outcome.leader;
    let (did, over) = if failover {
        ("failed", "Failed")
    } else {
        ("switched", "Switched")
    };
    let text = match (&order.to, outcome.outcome) {
        (Some(to), OutcomeKind::DoneInstead) => {
            format!("{over} over to \"{leader}\" instead of \"{to}\"")
        }
        _ => format!("Successfully {did} over to \"{leader}\""),
    };
    body::text(StatusCode::OK, text)
}

fn not_done(failover: bool, refusal: Refusal) -> Response {
    let what = if failover { "Failover" } else { "Switchover" };
    match refusal.code {
        Code::TimedOut => body::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{what} status unknown after {} seconds; operation may still be in progress",
                TIMEOUT.as_secs()
            ),
        ),
        Code::NotFound => body::text(StatusCode::PRECONDITION_FAILED, "candidate does not exists"),
        // Who would be asked, and why nobody can be.
        Code::Refused if !failover => body::text(
            StatusCode::PRECONDITION_FAILED,
            format!(
                "switchover is not possible: no good candidates have been found: {}",
                refusal.error
            ),
        ),
        _ => plain(refusal),
    }
}
