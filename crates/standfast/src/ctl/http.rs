//! Requests to members' REST interfaces, each to the one that was meant.
//!
//! **Invariant:** every request ends within its limit.

use api::client::{Client, Method, Question, Trust};
use serde_json::Value;
use std::time::Duration;

/// For what only reads.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// For what waits for a change of leader or a restart.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// What a member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) warning: Option<String>,
}

impl Answer {
    pub(super) fn is_good(&self) -> bool {
        self.status < 400
    }
}

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    /// The value of the header; `None`: only reads are possible.
    authorization: Option<String>,
}

impl Http {
    pub(super) fn new(trust: Trust, authorization: Option<String>) -> Self {
        Self {
            client: Client::new(trust),
            authorization,
        }
    }

    pub(super) async fn get(&self, url: &str) -> Result<Answer, String> {
        self.send(Method::GET, url, None, SOON).await
    }

    /// The error says why there is no answer.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, String> {
        let question = Question {
            method,
            url,
            authorization: self.authorization.as_deref(),
            body: body.map(|body| body.to_string().into_bytes()),
            limit,
        };
        let answer = self.client.ask(question).await;
        let answer = answer.map_err(|silence| silence.to_string())?;
        Ok(Answer {
            status: answer.status,
            text: String::from_utf8_lossy(&answer.body).into_owned(),
            warning: answer.warning,
        })
    }
}
