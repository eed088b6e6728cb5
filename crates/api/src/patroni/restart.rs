//! `/restart`, `/reload`, `/reinitialize`: what concerns this node alone.
//!
//! **Invariant:** "restarted" is said only of a Postgres that is open again.

use super::schedule;
use crate::body;
use crate::clock;
use crate::errand::{Ask, Errand, Restart};
use crate::error::Refusal;
use crate::office::Office;
use crate::router::Context;
use crate::served::Served;
use crate::v1::Code;
use axum::http::StatusCode;
use axum::response::Response;
use ha::{Job, Postgres};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::sync::oneshot;

/// For an errand whose end is not waited for.
const BEGINS: Duration = Duration::from_secs(15);
/// For a Postgres that is restarted, unless the request says otherwise.
const RETURNS: Duration = Duration::from_secs(300);

pub(super) async fn restart(context: &Context, body: &Map<String, Value>) -> Response {
    let order = match meant(body) {
        Ok(order) => order,
        Err(refusal) => return super::actions::plain(refusal),
    };
    let served = context.served();
    let paused = served.cluster.as_ref().is_some_and(|it| it.settings.paused);
    if paused && order.at.is_some() {
        // Patroni's number, though it is no error of the server's.
        let text = "Can't schedule restart in the paused state";
        return body::text(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    match ordered(context, &served, order).await {
        Ok(true) => body::text(StatusCode::ACCEPTED, "Restart scheduled"),
        Ok(false) => body::text(StatusCode::OK, "restarted successfully"),
        Err(refusal) => super::actions::plain(refusal),
    }
}

/// Whether it is for later.
async fn ordered(context: &Context, served: &Served, order: Restart) -> Result<bool, Refusal> {
    let later = order.at.is_some();
    if !later {
        let starting = served
            .me
            .as_ref()
            .is_some_and(|me| matches!(me.postgres, Postgres::Starting));
        if starting {
            return Err(unavailable("postgres is still starting"));
        }
        if order.due(served).is_err() {
            return Err(unavailable("restart conditions are not satisfied"));
        }
    }
    let limit = if later {
        BEGINS
    } else {
        order.timeout.unwrap_or(RETURNS) + BEGINS
    };
    send(context, Ask::Restart(order), limit).await?;
    Ok(later)
}

fn meant(body: &Map<String, Value>) -> Result<Restart, Refusal> {
    let mut order = Restart {
        asked: body.clone(),
        ..Restart::default()
    };
    for (key, value) in body {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("schedule", value) => order.at = schedule::read(Some(value))?,
            ("role", Value::String(role))
                if matches!(
                    role.as_str(),
                    "primary" | "master" | "replica" | "standby_leader"
                ) =>
            {
                order.role = Some(role.clone());
            }
            ("role", _) => {
                return Err(Refusal::bad_request("role must be primary or replica"));
            }
            ("postgres_version", Value::String(text)) => {
                order.older_than = Some(version(text).ok_or_else(|| {
                    Refusal::bad_request("postgres_version must look like 15.8 or 9.6.24")
                })?);
            }
            ("postgres_version", _) => {
                return Err(Refusal::bad_request("postgres_version must be text"));
            }
            ("restart_pending", Value::Bool(pending)) => order.pending = *pending,
            ("restart_pending", _) => {
                return Err(Refusal::bad_request(
                    "restart_pending must be true or false",
                ));
            }
            ("timeout", value) => order.timeout = Some(timeout(value)?),
            (other, _) => {
                let error = format!("there is no restart condition {other:?}");
                return Err(Refusal::bad_request(error));
            }
        }
    }
    Ok(order)
}

/// Seconds, or a number with a unit, as patronictl sends them.
fn timeout(value: &Value) -> Result<Duration, Refusal> {
    let bad = || Refusal::bad_request("timeout must be a number of seconds above zero");
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let text = text.trim();
            let digits = text
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(text.len());
            let factor = match text[digits..].trim() {
                "" | "s" => 1.0,
                "ms" => 0.001,
                "min" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
            let number = text[..digits].parse::<f64>().ok();
            number.map(|number| number * factor)
        }
        _ => None,
    };
    let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(bad)
}

/// `15.8` is 150008, `9.6.24` is 90624.
fn version(text: &str) -> Option<u32> {
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts?.as_slice() {
        [major, minor] if *major >= 10 && *major < 1000 && *minor < 10_000 => {
            Some(major * 10_000 + minor)
        }
        [major, minor, patch] if *major < 10 && *minor < 100 && *patch < 100 => {
            Some(major * 10_000 + minor * 100 + patch)
        }
        _ => None,
    }
}

pub(super) async fn cancel(context: &Context) -> Response {
    match send(context, Ask::CancelRestart, BEGINS).await {
        Ok(()) => body::text(StatusCode::OK, "scheduled restart deleted"),
        Err(refusal) => super::actions::plain(refusal),
    }
}

pub(super) fn reload(context: &Context) -> Response {
    context.options.reload.notify_one();
    body::text(StatusCode::ACCEPTED, "reload scheduled")
}

pub(super) async fn reinitialize(context: &Context, body: &Map<String, Value>) -> Response {
    let asks = |key| body.get(key).is_some_and(|value| value == true);
    let (force, from_leader) = (asks("force"), asks("from_leader"));
    let ask = Ask::Reinitialize { force, from_leader };
    let done = match may_reinitialize(context, force) {
        Ok(()) => send(context, ask, BEGINS).await,
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(()) => body::text(StatusCode::OK, "reinitialize started"),
        Err(refusal) => super::actions::plain(refusal),
    }
}

fn may_reinitialize(context: &Context, force: bool) -> Result<(), Refusal> {
    let served = context.served();
    let office = Office::new(&served, clock::now());
    let leader = office.cluster().and_then(|cluster| cluster.leader.as_ref());
    match leader {
        None => return Err(unavailable("Cluster has no leader, can not reinitialize")),
        Some(leader) if *leader == served.name => {
            return Err(unavailable("I am the leader, can not reinitialize"));
        }
        Some(_) => {}
    }
    let job = served.me.as_ref().and_then(|me| me.job);
    match job {
        Some(Job::Clone) if !force => Err(unavailable("reinitialize already in progress")),
        _ => Ok(()),
    }
}

fn unavailable(error: &str) -> Refusal {
    Refusal::new(Code::Unavailable, error)
}

/// Asks the agent and waits for its answer, for so long.
async fn send(context: &Context, ask: Ask, limit: Duration) -> Result<(), Refusal> {
    let Some(errands) = &context.options.errands else {
        return Err(unavailable("a monitor has no Postgres"));
    };
    let (answer, answered) = oneshot::channel();
    let errand = Errand { ask, answer };
    let told = async {
        errands.send(errand).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(limit, told).await {
        Ok(Some(result)) => result,
        Ok(None) => Err(unavailable("the agent is stopping")),
        Err(_) => Err(unavailable("the agent did not answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Restart, Refusal> {
        let Value::Object(body) = value else {
            panic!("an object");
        };
        meant(&body)
    }

    #[test]
    fn versions_and_times_are_read_as_patronictl_writes_them() {
        for (text, expected) in [
            ("15.8", Some(150_008)),
            ("9.6.24", Some(90_624)),
            ("15", None),
            ("15.8.1", None),
            ("x.1", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
        for (value, millis) in [
            (json!(5), Some(5000)),
            (json!("30"), Some(30_000)),
            (json!("1min"), Some(60_000)),
            (json!("500ms"), Some(500)),
            (json!(0), None),
            (json!(-1), None),
            (json!("soon"), None),
            (json!([]), None),
        ] {
            let read = timeout(&value).ok().map(|it| it.as_millis());
            assert_eq!(read, millis, "{value}");
        }
    }

    #[test]
    fn an_unknown_condition_is_no_restart() {
        assert!(read(json!({"rol": "primary"})).is_err());
        assert!(read(json!({"role": "leader"})).is_err());
        let order = read(json!({"role": "replica", "restart_pending": true})).expect("understood");
        assert_eq!(
            (order.role.as_deref(), order.pending),
            (Some("replica"), true)
        );
    }
}
