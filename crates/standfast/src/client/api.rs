//! HTTP to the cluster's members: the first that answers is asked from then on.
//!
//! **Invariant:** every request ends: connecting and answering have their limits. An order that may have been received
//! is never sent to a second member.

use crate::config::Endpoint;
use crate::exit::{ExitCode, Failure};
use crate::secret::ClusterSecret;
use api::v1;
use reqwest::{Client, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The API of a cluster, by its members' addresses.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    members: Vec<Endpoint>,
    /// The one that answered last.
    preferred: AtomicUsize,
    /// For what changes something; `None`: only reads are possible.
    authorization: Option<String>,
}

/// Why there is no answer.
enum Silence {
    /// Nothing was sent: another member may be asked.
    NotSent(String),
    /// It may have been received.
    Unknown(String),
}

impl Api {
    pub(crate) fn to(members: Vec<Endpoint>, secret: Option<&ClusterSecret>) -> Self {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Members are neighbours; a proxy of the environment is for the world outside.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap_or_default();
        let authorization = secret.map(|secret| secret.api_token().header());
        Self {
            client,
            members,
            preferred: AtomicUsize::new(0),
            authorization,
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let mut reasons = Vec::new();
        let mut answered = false;
        for index in self.order() {
            let member = &self.members[index];
            match self
                .send(Method::GET, member, path, None::<&()>, ANSWER_TIMEOUT)
                .await
            {
                // A member without contact to the store knows less than the others.
                Ok((StatusCode::SERVICE_UNAVAILABLE, body)) => {
                    answered = true;
                    reasons.push(format!(
                        "{member}: {}",
                        refusal(&body, "is not in contact with its store").message
                    ));
                }
                // Whatever answers there, perhaps a proxy: it is no member.
                Ok((status, body)) if !status.is_success() && is_foreign(&body) => {
                    reasons.push(format!("{member}: {status}, from something else"));
                }
                Ok((status, body)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return read(status, &body);
                }
                Err(Silence::NotSent(why) | Silence::Unknown(why)) => {
                    reasons.push(format!("{member}: {why}"));
                }
            }
        }
        let failure = self.unreachable(&reasons);
        Err(match answered {
            true => failure.hint(
                "a majority of the store's members must run and reach each other; the log of the one that answered \
                 says what it waits for",
            ),
            false => failure,
        }
        .into())
    }

    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        self.order_within(Method::POST, path, Some(body), ANSWER_TIMEOUT * 3)
            .await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.order_within(Method::DELETE, path, None::<&()>, ANSWER_TIMEOUT * 3)
            .await
    }

    /// An order whose answer may take this long.
    pub(crate) async fn order_within<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> anyhow::Result<T> {
        if self.authorization.is_none() {
            let failure =
                Failure::error("this changes something, and the cluster secret is not known here");
            return Err(failure.hint("name its file with --secret-file").into());
        }
        let mut reasons = Vec::new();
        for index in self.order() {
            let member = &self.members[index];
            match self.send(method.clone(), member, path, body, limit).await {
                Ok((status, answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return read(status, &answer);
                }
                Err(Silence::NotSent(why)) => reasons.push(format!("{member}: {why}")),
                Err(Silence::Unknown(why)) => {
                    let what = format!(
                        "{member} did not answer ({why}), the order may have been received"
                    );
                    let failure = Failure::new(ExitCode::TimedOut, what);
                    return Err(failure
                        .hint("standfast show state tells what came of it")
                        .into());
                }
            }
        }
        Err(self.unreachable(&reasons).into())
    }

    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.members.len());
        (0..count).map(move |n| (first + n) % count)
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        member: &Endpoint,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> Result<(StatusCode, Vec<u8>), Silence> {
        let mut request = self
            .client
            .request(method, format!("http://{member}{path}"))
            .timeout(limit);
        if let Some(authorization) = &self.authorization {
            request = request.header(reqwest::header::AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| {
            let why = innermost(&error);
            if error.is_connect() || error.is_builder() {
                Silence::NotSent(why)
            } else {
                Silence::Unknown(why)
            }
        })?;
        let status = response.status();
        let mut answer = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                    answer.extend_from_slice(&chunk)
                }
                Ok(Some(_)) => return Err(Silence::Unknown("the answer is too long".to_owned())),
                Ok(None) => return Ok((status, answer)),
                Err(error) => return Err(Silence::Unknown(innermost(&error))),
            }
        }
    }

    fn unreachable(&self, reasons: &[String]) -> Failure {
        let what = match reasons {
            [] => "no member's address is known".to_owned(),
            [one] => format!("no answer from {one}"),
            many => format!("no member answers: {}", many.join("; ")),
        };
        let hint =
            "is the node's agent running? any other member can be named with --monitor HOST:PORT";
        Failure::new(ExitCode::Unreachable, what).hint(hint)
    }
}

/// The innermost cause says most: `Connection refused (os error 111)`.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> anyhow::Result<T> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| {
            let what = format!("the answer can't be understood: {error}");
            Failure::error(what)
                .hint("does the member run another version?")
                .into()
        });
    }
    Err(refusal(body, &format!("the member answered {status}")).into())
}

fn is_foreign(body: &[u8]) -> bool {
    serde_json::from_slice::<v1::Error>(body).is_err()
}

/// What a member's refusal means for the exit code.
fn refusal(body: &[u8], otherwise: &str) -> Failure {
    let Ok(error) = serde_json::from_slice::<v1::Error>(body) else {
        return Failure::error(otherwise);
    };
    let code = match error.code {
        v1::Code::NotFound => ExitCode::Unknown,
        v1::Code::Conflict | v1::Code::Refused => ExitCode::Refused,
        v1::Code::Unavailable => ExitCode::Unreachable,
        v1::Code::TimedOut => ExitCode::TimedOut,
        v1::Code::BadRequest
        | v1::Code::Unauthorized
        | v1::Code::Forbidden
        | v1::Code::MethodNotAllowed
        | v1::Code::TooLarge
        | v1::Code::NotJson
        | v1::Code::Invalid => ExitCode::Error,
    };
    Failure {
        code,
        message: error.error,
        hint: error.hint,
    }
}
