//! Requests to members' REST interfaces, each to the one that was meant.
//!
//! **Invariant:** every request ends within its limit.

use crate::client::innermost;
use reqwest::{Client, Method};
use serde_json::Value;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For what only reads.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// For what waits for a change of leader or a restart.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What a member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
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
    pub(super) fn new(authorization: Option<String>) -> Self {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Members are neighbours; a proxy of the environment is for the world outside.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap_or_default();
        Self {
            client,
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
        let mut request = self.client.request(method, url).timeout(limit);
        if let Some(authorization) = &self.authorization {
            request = request.header(reqwest::header::AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| innermost(&error))?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".to_owned());
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status, text })
    }
}
