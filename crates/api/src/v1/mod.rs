//! The documents under `/api/v1/`, as types that both sides read and write.
//!
//! **Invariant:** these are promises to programs: fields are added, never renamed, and readers ignore what they do not
//! know. LSNs are text as Postgres prints them, spans of time are seconds or milliseconds as their names say.

mod index;
mod order;
mod show;
mod state;

pub use index::{Index, PathLine};
pub use order::{
    Action, Dropped, Maintenance, NodeSettings, Outcome, OutcomeKind, Perform, Register, Registered,
};
pub use show::{
    Decision, Effective, Explain, ExplainNode, Monitor, NodeSetting, Settings, StandbyNames, Uri,
};
pub use state::{Node, Proxy, State, StoreState, StoreVoter, Sync};

use serde::{Deserialize, Serialize};

/// What every request that is not granted is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// One sentence for people.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The same for programs.
    pub code: Code,
}

/// Why a request was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: the request can't be understood.
    BadRequest,
    /// 401: no credentials, or wrong ones.
    Unauthorized,
    /// 403: credentials that do not allow this.
    Forbidden,
    /// 404: no such path or node.
    NotFound,
    /// 405: the path has no such method.
    MethodNotAllowed,
    /// 409: somebody else was first, or it is taken.
    Conflict,
    /// 412: a safety rule says no.
    Refused,
    /// 413: the body is too long.
    TooLarge,
    /// 415: the body is not JSON.
    NotJson,
    /// 422: understood, but the values are impossible.
    Invalid,
    /// 503: the store or this node can't answer.
    Unavailable,
    /// 503: ordered, but not done within the time given.
    TimedOut,
}

/// LSNs as text, `0/3000060`.
pub(crate) mod lsn_text {
    use ha::Lsn;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(lsn)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
