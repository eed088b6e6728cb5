//! Patroni's paths, codes and documents.
//!
//! Only the first segment of a path counts, HEAD and OPTIONS are answered by the status alone, and an unknown GET is a
//! health check that fails: all as dashboards, load balancers and scripts written for Patroni expect it.

mod actions;
mod cluster;
mod health;
mod offline;
mod query;
mod restart;
mod schedule;
mod status;

use crate::body;
use crate::clock;
use crate::error::Refusal;
use crate::holding;
use crate::office::Office;
use crate::router::Context;
use crate::show::metrics;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
pub use health::replication_state;
pub use offline::cluster_document;
pub(crate) use status::{role_of, state, timeline};

use query::Query;
use serde_json::Value;

/// Answers whatever is none of our own paths.
pub(crate) async fn answer(context: &Context, parts: Parts, body: Body) -> Response {
    let path = parts.uri.path().trim_matches('/');
    let segment = path.split('/').next().unwrap_or_default().to_owned();
    match parts.method {
        Method::GET => read(context, &segment, &parts),
        Method::HEAD | Method::OPTIONS => {
            let mut response = read(context, &segment, &parts);
            *response.body_mut() = Body::empty();
            response
        }
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
            actions::act(context, &segment, &parts, body).await
        }
        _ => body::empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn read(context: &Context, segment: &str, parts: &Parts) -> Response {
    let served = context.served();
    let office = Office::new(&served, clock::now());
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    match segment {
        "patroni" => body::json(
            StatusCode::OK,
            &status::document(&office, context.options.log.as_ref()),
        ),
        "cluster" => match cluster::document(context.keys(), &office) {
            Some(document) => body::json(StatusCode::OK, &document),
            None => unknown_yet(),
        },
        "history" => stored(&office, &context.keys().history(), Some("[]")),
        "config" => stored(&office, &context.keys().config(), None),
        "failsafe" => match served.snapshot.value(&context.keys().failsafe()) {
            Some(_) => stored(&office, &context.keys().failsafe(), None),
            None => holding::off(),
        },
        "metrics" => body::typed(
            StatusCode::OK,
            "text/plain",
            metrics::text(context, &office).into_bytes(),
        ),
        "liveness" => body::empty(health::code(health::is_live(&office))),
        "readiness" => body::empty(health::code(health::is_ready(&office, &query))),
        check => {
            let code = health::code(health::passes(&office, check, &query));
            body::json(
                code,
                &status::document(&office, context.options.log.as_ref()),
            )
        }
    }
}

/// A key of the store, as it is.
fn stored(office: &Office<'_>, key: &str, absent: Option<&str>) -> Response {
    if office.cluster().is_none() {
        return unknown_yet();
    }
    let text = office.served.snapshot.value(key).or(absent);
    // The history is a list, everything else a map.
    let is_map = absent.is_none();
    match text.map(serde_json::from_str::<Value>) {
        Some(Ok(value @ (Value::Object(_) | Value::Array(_)))) if value.is_object() == is_map => {
            body::json(StatusCode::OK, &value)
        }
        Some(_) => body::text(
            StatusCode::BAD_GATEWAY,
            "the value in the store can't be read",
        ),
        None => body::text(StatusCode::BAD_GATEWAY, "there is no such key in the store"),
    }
}

fn unknown_yet() -> Response {
    let refusal = Refusal::no_contact();
    body::text(refusal.status(), refusal.error)
}
