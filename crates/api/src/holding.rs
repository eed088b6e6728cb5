//! `POST /failsafe`: a leader that has lost the store asks this member to hold still.

use crate::body;
use crate::error::Refusal;
use crate::router::Context;
use async_trait::async_trait;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use ha::{Epoch, Lsn, NodeName};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::time::Duration;

/// What the leader says of itself, as Patroni's leader does, and what it asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub name: NodeName,
    #[serde(default)]
    pub conn_url: String,
    #[serde(default)]
    pub api_url: String,
    /// Absent where an agent of Patroni's asks.
    #[serde(default)]
    pub standfast: Option<AskedFor>,
}

/// How long, and by which leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedFor {
    pub epoch: Epoch,
    /// From when the request arrives, in milliseconds.
    pub ttl_ms: u64,
}

/// Why a member does not hold still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// The mode is not on, as far as this member knows.
    Off,
    /// It is a leader itself.
    Leads,
    /// It knows of another leadership, or has a say in the next one.
    No(String),
}

/// Gives this node's word. An agent does; a monitor has none to give.
#[async_trait]
pub trait Holding: Debug + Send + Sync + 'static {
    /// Returns the position up to which this node has WAL, once it is bound.
    async fn hold(&self, asked: &Asked) -> Result<Lsn, NotHeld>;
}

/// The longest time that can be asked for.
const TTL_MAX: Duration = Duration::from_secs(3600);

pub(crate) async fn answer(context: &Context, bytes: &[u8]) -> Response {
    let asked: Asked = match body::parse(bytes) {
        Ok(asked) => asked,
        Err(refusal) => return body::text(refusal.status(), refusal.error),
    };
    let too_long =
        |asked: AskedFor| Duration::from_millis(asked.ttl_ms) > TTL_MAX || asked.ttl_ms == 0;
    if asked.standfast.is_some_and(too_long) {
        let refusal = Refusal::bad_request("ttl_ms must be 1 to 3600000");
        return body::text(refusal.status(), refusal.error);
    }
    let Some(holding) = &context.options.holding else {
        return off();
    };
    match holding.hold(&asked).await {
        Ok(position) => {
            let mut response = body::text(StatusCode::OK, "Accepted");
            let name = HeaderName::from_static("lsn");
            response
                .headers_mut()
                .insert(name, HeaderValue::from(position.0));
            response
        }
        Err(NotHeld::Off) => off(),
        Err(NotHeld::Leads) => body::text(StatusCode::INTERNAL_SERVER_ERROR, "Running as a leader"),
        Err(NotHeld::No(why)) => body::text(StatusCode::CONFLICT, why),
    }
}

pub(crate) fn off() -> Response {
    body::text(StatusCode::BAD_GATEWAY, "failsafe mode is off")
}
