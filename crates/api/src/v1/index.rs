//! `GET /api/v1`: what there is.

use serde::{Deserialize, Serialize};

/// The paths of this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub paths: Vec<PathLine>,
}

/// One method of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathLine {
    pub method: String,
    /// With `{name}` where a node's name stands.
    pub path: String,
    /// What it does, with its parameters.
    pub what: String,
    /// Whether it needs credentials.
    pub authorized: bool,
}

impl Index {
    /// What this version has. A test calls each of them.
    pub fn current() -> Self {
        let line = |&(method, path, what): &(&str, &str, &str)| PathLine {
            method: method.to_owned(),
            path: format!("/api/v1{path}"),
            what: what.to_owned(),
            authorized: method != "GET",
        };
        Self {
            paths: PATHS.iter().map(line).collect(),
        }
    }
}

const PATHS: [(&str, &str, &str); 16] = [
    ("GET", "/state", "the cluster and all its nodes"),
    (
        "GET",
        "/explain",
        "for every node whether it may lead, or the one reason why not",
    ),
    (
        "GET",
        "/decision",
        "this node's last decision with its reason",
    ),
    ("GET", "/events", "the last events, newest last; count=10"),
    (
        "GET",
        "/events/stream",
        "events as they happen, as server-sent events; after=<number> or Last-Event-ID",
    ),
    (
        "GET",
        "/settings",
        "the stored configuration and what it means",
    ),
    ("GET", "/standby-names", "the synchronous standbys"),
    ("GET", "/uri", "the connection string of the cluster"),
    (
        "POST",
        "/perform",
        "change the leader and wait for the outcome",
    ),
    (
        "DELETE",
        "/perform",
        "take an order back that nobody has begun",
    ),
    ("POST", "/nodes/{name}", "set a node's priority and quorum"),
    (
        "POST",
        "/nodes/{name}/maintenance",
        "put a node into maintenance, or out of it",
    ),
    (
        "DELETE",
        "/nodes/{name}",
        "ask a node to leave; force=true removes one that is gone for good",
    ),
    ("PATCH", "/config", "merge into the cluster's configuration"),
    ("POST", "/register", "give a new node its number and name"),
    ("GET", "", "this list"),
];
