//! Which path is answered by what.

use crate::auth::{self, Denied};
use crate::body;
use crate::clock;
use crate::error::Refusal;
use crate::gate;
use crate::membership::Members;
use crate::names::Names;
use crate::office::Office;
use crate::options::Options;
use crate::order::{self, Order};
use crate::patroni;
use crate::served::Served;
use crate::show;
use crate::unique::Unique;
use crate::v1::{Code, Index, Maintenance, NodeSettings, Perform, Register};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use ha::NodeName;
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use store::layout::Keys;
use tokio::sync::Semaphore;

/// How many event streams are open at once: the rest of the connections is for health checks.
const STREAMS_MAX: usize = 64;

/// What every answer may use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) options: Options,
    /// Served at this moment.
    pub(crate) connections: AtomicUsize,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) members: Members,
    /// Of the allowlist and of members.
    pub(crate) names: Names,
}

impl Context {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            members: Members::new(options.membership.clone()),
            options,
            names: Names::default(),
            connections: AtomicUsize::new(0),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.options.keys
    }

    /// What the agent published last. The lock of the channel is not held.
    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.options.served.borrow())
    }

    pub(crate) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match auth::check(
            headers,
            &self.options.token,
            self.options.basic_auth.as_ref(),
        ) {
            Ok(()) => Ok(()),
            Err(Denied::Missing) => Err(Refusal::new(Code::Unauthorized, "this needs credentials")
                .hint(
                    "Authorization: Bearer <hex HMAC-SHA-256(cluster secret, \"standfast api\")>",
                )),
            Err(Denied::Wrong) => Err(Refusal::new(
                Code::Unauthorized,
                "the credentials are not this cluster's",
            )
            .hint("is the secret file the same as on the other nodes?")),
        }
    }
}

type Shared = State<Arc<Context>>;
type Answer = Result<Response, Refusal>;

pub(crate) fn router(context: Arc<Context>) -> Router {
    let ours = Router::new()
        .route("/", get(index))
        .route("/state", get(state))
        .route("/events", get(events))
        .route("/events/stream", get(stream))
        .route("/explain", get(explain))
        .route("/settings", get(settings))
        .route("/standby-names", get(standby_names))
        .route("/uri", get(uri))
        .route("/decision", get(decision))
        .route("/perform", post(perform).delete(cancel))
        .route("/nodes/{name}", post(set_node))
        .route("/nodes/{name}", delete(drop_node))
        .route("/nodes/{name}/maintenance", post(maintenance))
        .route("/config", patch(config))
        .route("/register", post(register))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method);
    Router::new()
        .route("/api/v1/", get(index))
        .nest("/api/v1", ours)
        .fallback(patroni)
        .with_state(context)
        .layer(middleware::from_fn(gate::pass))
}

async fn patroni(State(context): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    patroni::answer(&context, parts, body).await
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no {}", uri.path()))
        .hint("GET /api/v1 lists what there is")
}

async fn wrong_method(request: Request) -> Refusal {
    let error = format!("this path does not take {}", request.method());
    Refusal::new(Code::MethodNotAllowed, error)
}

/// A document made of what is in memory.
fn shown<T: Serialize>(
    context: &Context,
    make: impl FnOnce(&Office<'_>) -> Result<T, Refusal>,
) -> Answer {
    let served = context.served();
    let document = make(&Office::new(&served, clock::now()))?;
    Ok(body::json(StatusCode::OK, &document))
}

async fn index() -> Answer {
    done(&Index::current())
}

async fn state(State(context): Shared) -> Answer {
    let members = context.members.news().await;
    shown(&context, |office| {
        show::state(context.keys(), members, office)
    })
}

async fn events(State(context): Shared, parts: Parts) -> Answer {
    let count = query(&parts, "count");
    shown(&context, |office| show::list(context.keys(), office, count))
}

async fn stream(State(context): Shared, parts: Parts) -> Answer {
    let header = parts
        .headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let after = header.or_else(|| query(&parts, "after"));
    show::stream(&context, after.and_then(|text| text.parse().ok()))
}

async fn explain(State(context): Shared) -> Answer {
    shown(&context, |office| show::explain(context.keys(), office))
}

async fn settings(State(context): Shared) -> Answer {
    shown(&context, |office| show::settings(context.keys(), office))
}

async fn standby_names(State(context): Shared) -> Answer {
    shown(&context, show::standby_names)
}

async fn uri(State(context): Shared) -> Answer {
    shown(&context, |office| show::uri(context.keys(), office))
}

async fn decision(State(context): Shared) -> Answer {
    shown(&context, show::decision)
}

async fn perform(State(context): Shared, headers: HeaderMap, body: Body) -> Answer {
    context.authorize(&headers)?;
    let asked: Perform = body::read_json(&headers, body).await?;
    let outcome = order::perform(&context, &Order::of(asked)?).await?;
    done(&outcome)
}

async fn cancel(State(context): Shared, headers: HeaderMap) -> Answer {
    context.authorize(&headers)?;
    order::cancel(&*context.options.store, context.keys()).await?;
    done(&Map::<String, Value>::new())
}

async fn set_node(
    State(context): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    context.authorize(&headers)?;
    let name = known_name(&name)?;
    let asked: NodeSettings = body::read_json(&headers, body).await?;
    done(&order::set(&context, &name, &asked).await?)
}

async fn maintenance(
    State(context): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    context.authorize(&headers)?;
    let name = known_name(&name)?;
    let asked: Maintenance = body::read_json(&headers, body).await?;
    done(&order::maintain(&context, &name, asked.enabled).await?)
}

async fn drop_node(State(context): Shared, Path(name): Path<String>, parts: Parts) -> Answer {
    context.authorize(&parts.headers)?;
    let name = known_name(&name)?;
    let force = match query(&parts, "force") {
        None | Some("false" | "0") => false,
        Some("" | "true" | "1") => true,
        Some(other) => {
            return Err(Refusal::bad_request(format!(
                "force must be true or false, not {other:?}"
            )));
        }
    };
    done(&order::remove(&context, &name, force).await?)
}

async fn config(State(context): Shared, headers: HeaderMap, body: Body) -> Answer {
    context.authorize(&headers)?;
    let Unique(change) = body::read_json(&headers, body).await?;
    let config = order::merge(&*context.options.store, context.keys(), &change).await?;
    Ok(body::changed(&config, change, context.options.not_taken))
}

async fn register(State(context): Shared, headers: HeaderMap, body: Body) -> Answer {
    context.authorize(&headers)?;
    let asked: Register = body::read_json(&headers, body).await?;
    let scope = context.served().scope.clone();
    done(&order::register(&*context.options.store, context.keys(), &scope, &asked).await?)
}

fn done<T: Serialize>(document: &T) -> Answer {
    Ok(body::json(StatusCode::OK, document).into_response())
}

/// A name that can't be one can't be known either.
fn known_name(text: &str) -> Result<NodeName, Refusal> {
    NodeName::new(text).map_err(|_| Refusal::unknown_node(text))
}

/// The value of a query parameter; those that are asked for here need no decoding.
fn query<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    let pairs = parts.uri.query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}
