//! HTTP to the cluster's members: the first that answers is asked from then on.
//!
//! **Invariant:** every request ends: connecting and answering have their limits. An order that may have been received
//! is never sent to a second member.

use crate::config::RestAddress;
use crate::exit::{ExitCode, Failure};
use crate::secret::ClusterSecret;
use api::client::{Answer, Client, Method, Question, Silence, Trust};
use api::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The API of a cluster, by its members' addresses.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    members: Vec<RestAddress>,
    /// The one that answered last.
    preferred: AtomicUsize,
    /// For what changes something; `None`: only reads are possible.
    authorization: Option<String>,
}

impl Api {
    pub(crate) fn to(
        members: Vec<RestAddress>,
        secret: Option<&ClusterSecret>,
        trust: Trust,
    ) -> Self {
        let client = Client::new(trust);
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
        let (mut answered, mut unbelieved) = (false, false);
        for index in self.order() {
            let member = &self.members[index];
            match self
                .send(Method::GET, member, path, None::<&()>, ANSWER_TIMEOUT)
                .await
            {
                // A member without contact to the store knows less than the others.
                Ok(answer) if answer.status == 503 => {
                    answered = true;
                    reasons.push(format!(
                        "{member}: {}",
                        refusal(&answer.body, "is not in contact with its store").message
                    ));
                }
                // Whatever answers there, perhaps a proxy: it is no member.
                Ok(answer) if !is_good(&answer) && is_foreign(&answer.body) => {
                    reasons.push(format!("{member}: {}", stranger(&answer)));
                }
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return read(&answer);
                }
                Err(silence) => {
                    unbelieved |= matches!(silence, Silence::Unbelieved(_));
                    reasons.push(format!("{member}: {silence}"));
                }
            }
        }
        let failure = unreachable(&reasons, unbelieved);
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
        let (mut reasons, mut unbelieved) = (Vec::new(), false);
        for index in self.order() {
            let member = &self.members[index];
            match self.send(method.clone(), member, path, body, limit).await {
                // Nothing that speaks like this takes orders.
                Ok(answer) if answer.status == 400 && is_foreign(&answer.body) => {
                    reasons.push(format!("{member}: {}", stranger(&answer)));
                }
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return read(&answer);
                }
                Err(Silence::NotSent(why)) => reasons.push(format!("{member}: {why}")),
                Err(Silence::Unbelieved(why)) => {
                    unbelieved = true;
                    reasons.push(format!("{member}: {why}"));
                }
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
        Err(unreachable(&reasons, unbelieved).into())
    }

    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.members.len());
        (0..count).map(move |n| (first + n) % count)
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        member: &RestAddress,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> Result<Answer, Silence> {
        let written = body.map(serde_json::to_vec).transpose();
        let question = Question {
            method,
            url: &format!("{}{path}", member.url()),
            authorization: self.authorization.as_deref(),
            body: written.map_err(|error| Silence::NotSent(error.to_string()))?,
            limit,
        };
        self.client.ask(question).await
    }
}

fn unreachable(reasons: &[String], unbelieved: bool) -> Failure {
    let what = match reasons {
        [] => "no member's address is known".to_owned(),
        [one] => format!("no answer from {one}"),
        many => format!("no member answers: {}", many.join("; ")),
    };
    let hint = match unbelieved {
        true => {
            "--ca-file, or ctl.cacert in the node's configuration, names the authority of the members' certificates; \
             --insecure believes anybody"
        }
        false => {
            "is the node's agent running? any other member can be named with --monitor HOST:PORT"
        }
    };
    Failure::new(ExitCode::Unreachable, what).hint(hint)
}

fn is_good(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
}

/// What answers there is no member, or is one that was asked in the wrong way.
fn stranger(answer: &Answer) -> String {
    let said = String::from_utf8_lossy(&answer.body);
    let first = said.lines().next().unwrap_or_default();
    match answer.status {
        400 if first.contains("HTTPS only") => first.to_owned(),
        status => format!("{status}, from something else"),
    }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    if is_good(answer) {
        return serde_json::from_slice(&answer.body).map_err(|error| {
            let what = format!("the answer can't be understood: {error}");
            Failure::error(what)
                .hint("does the member run another version?")
                .into()
        });
    }
    let otherwise = format!("the member answered {}", answer.status);
    Err(refusal(&answer.body, &otherwise).into())
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
