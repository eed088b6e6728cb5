//! Why something was not done: a sentence, a hint, a code for programs.

use crate::options::StoreMember;
use crate::v1;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use store::StoreError;
use store::layout::Unreadable;

/// A request that is not granted. Its text is for people, its [`v1::Code`] for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    pub code: v1::Code,
    pub error: String,
    pub hint: Option<String>,
}

impl Refusal {
    pub fn new(code: v1::Code, error: impl Into<String>) -> Self {
        Self {
            code,
            error: error.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(v1::Code::BadRequest, error)
    }

    pub(crate) fn refused(error: impl Into<String>) -> Self {
        Self::new(v1::Code::Refused, error)
    }

    pub(crate) fn conflict(error: impl Into<String>) -> Self {
        Self::new(v1::Code::Conflict, error)
    }

    pub(crate) fn unknown_node(name: &str) -> Self {
        Self::new(
            v1::Code::NotFound,
            format!("there is no node {name:?} in this cluster"),
        )
        .hint("GET /api/v1/state lists the nodes")
    }

    /// The node has not been in contact with the store yet.
    pub(crate) fn no_contact() -> Self {
        Self::new(
            v1::Code::Unavailable,
            "this node has not reached the store yet",
        )
        .hint("ask another node, or look at this node's log")
    }

    /// The same, with those of the store's members that are missing.
    pub(crate) fn waiting_for(members: &[StoreMember]) -> Self {
        let missing = members.iter().filter(|it| it.reachable == Some(false));
        let named = |it: &StoreMember| match it.name == it.address {
            true => it.name.clone(),
            false => format!("{} ({})", it.name, it.address),
        };
        let missing: Vec<_> = missing.map(named).collect();
        let verb = match &missing[..] {
            [] => return Self::no_contact(),
            [_] => "does",
            _ => "do",
        };
        let error = format!(
            "this node waits for the store, and {} {verb} not answer it",
            missing.join(", ")
        );
        Self::new(v1::Code::Unavailable, error).hint("start what is missing, or look at its log")
    }

    pub fn status(&self) -> StatusCode {
        match self.code {
            v1::Code::BadRequest => StatusCode::BAD_REQUEST,
            v1::Code::Unauthorized => StatusCode::UNAUTHORIZED,
            v1::Code::Forbidden => StatusCode::FORBIDDEN,
            v1::Code::NotFound => StatusCode::NOT_FOUND,
            v1::Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            v1::Code::Conflict => StatusCode::CONFLICT,
            v1::Code::Refused => StatusCode::PRECONDITION_FAILED,
            v1::Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            v1::Code::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            v1::Code::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            v1::Code::Unavailable | v1::Code::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let hint = match &error {
            StoreError::Unknown(_) => "it may have happened: look at the state before trying again",
            _ => "a majority of the store's members must be reachable",
        };
        Self::new(v1::Code::Unavailable, error.to_string()).hint(hint)
    }
}

impl From<Unreadable> for Refusal {
    fn from(error: Unreadable) -> Self {
        Self::new(v1::Code::Unavailable, error.to_string())
            .hint("another program has written this key, or a newer version of this one")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let document = v1::Error {
            code: self.code,
            error: self.error,
            hint: self.hint,
        };
        let mut response = crate::body::json(status, &document);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"standfast\", Basic realm=\"standfast\""),
            );
        }
        response
    }
}
