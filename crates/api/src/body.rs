//! Bodies in and out: bounded, with a deadline, and JSON spaced as Patroni spaces it.

use crate::error::Refusal;
use crate::options::NotTaken;
use crate::v1::Code;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::Formatter;
use serde_json::{Map, Value};
use std::io;
use std::time::Duration;
use store::layout::ConfigRecord;

/// The longest body that is read.
pub(crate) const LENGTH_MAX: usize = 64 << 10;
/// How long a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(5);

/// The whole body, or why not.
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(DEADLINE, to_bytes(body, LENGTH_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::new(
            Code::TooLarge,
            format!("the body was cut off or is longer than {LENGTH_MAX} bytes"),
        )),
        Err(_) => Err(Refusal::bad_request(
            "the body took longer than 5 seconds to arrive",
        )),
    }
}

/// A JSON body of ours. An empty one counts as `{}`.
///
/// Asking for the content type keeps a web page elsewhere from sending orders with a browser's stored password.
pub(crate) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let bytes = read(body).await?;
    if !bytes.is_empty() && !is_json(headers) {
        return Err(Refusal::new(Code::NotJson, "the body must be JSON")
            .hint("send the header Content-Type: application/json"));
    }
    parse(&bytes)
}

/// JSON, whatever the content type says.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let text: &[u8] = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        bytes
    };
    serde_json::from_slice(text)
        .map_err(|error| Refusal::bad_request(format!("the body can't be read: {error}")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value.map(|value| value.split(';').next().unwrap_or_default().trim());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, document: &T) -> Response {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    if let Err(error) = document.serialize(&mut serializer) {
        tracing::error!(%error, "a document could not be written as JSON");
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer could not be written",
        );
    }
    typed(status, "application/json", bytes)
}

/// The configuration after a change. What was asked for in vain stands in a header, as the body is Patroni's.
pub(crate) fn changed(
    now: &ConfigRecord,
    asked: Map<String, Value>,
    not_taken: NotTaken,
) -> Response {
    let mut response = json(StatusCode::OK, now);
    let in_vain = in_vain(now, &ConfigRecord(asked), not_taken).join(", ");
    if !in_vain.is_empty() {
        tracing::warn!(keys = in_vain, "settings that have no effect were stored");
        let text = format!("stored, but without effect: {in_vain}");
        if let Ok(value) = HeaderValue::try_from(format!("299 - {}", quoted(&text))) {
            response.headers_mut().insert(header::WARNING, value);
        }
    }
    response
}

/// What was asked for and has no effect, each with the reason where there is one to tell.
fn in_vain(now: &ConfigRecord, asked: &ConfigRecord, not_taken: NotTaken) -> Vec<String> {
    let keys = asked.without_effect().into_iter().map(str::to_owned);
    let mut in_vain: Vec<String> = keys.collect();
    let elsewhere = asked.postgres_in_vain().into_iter();
    in_vain.extend(elsewhere.map(|(key, why)| format!("postgresql.{key} ({why})")));
    let shared = asked.postgres().unwrap_or_default();
    in_vain.extend(shared.parameters.iter().filter_map(|(name, value)| {
        let why = (not_taken.parameter)(name, value)?;
        Some(format!("postgresql.parameters.{name} ({why})"))
    }));
    // One line keeps all of them out, as one that is missing may have kept somebody out.
    in_vain.extend(shared.pg_hba.iter().find_map(|line| {
        let why = (not_taken.pg_hba)(line, not_taken.major)?;
        Some(format!("postgresql.pg_hba ({line}: {why})"))
    }));
    // A change may name a part of a slot: it is what has become of it that counts.
    let slots = asked.0.get("slots").and_then(Value::as_object);
    let changed = |name: &String| slots.is_some_and(|slots| slots.contains_key(name));
    let unusable = now.permanent_slots().unusable.into_iter();
    let unusable = unusable.filter(|(name, _)| changed(name));
    in_vain.extend(unusable.map(|(name, why)| format!("slots.{name} ({why})")));
    in_vain
}

/// As HTTP quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(if c.is_control() { ' ' } else { c });
    }
    quoted.push('"');
    quoted
}

/// A plain answer, with the content type that Patroni gives it.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    typed(status, "text/html", text.into().into_bytes())
}

pub(crate) fn typed(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Only a status.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// JSON as Patroni's documents space it.
pub fn spaced(document: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    match document.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// `{"a": 1, "b": [1, 2]}`: scripts out there search Patroni's documents for exactly this.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}
