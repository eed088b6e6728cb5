//! Keys that people write where they have no effect, and what they meant.
//!
//! It knows complete paths only; slips of the finger are found by `section::nearest`.

use super::read::DCS_KEYS;

/// A path, and what to do about it.
const CURES: &[(&str, &str)] = &[
    (
        "postgresql.replication",
        "unknown key, nothing in it counts: the login that standbys replicate with is \
         `postgresql.authentication.replication`",
    ),
    (
        "postgresql.replication.type",
        "unknown key, there is nothing to choose: standbys stream. Remove it",
    ),
    (
        "postgresql.replication.master",
        "unknown key: who is the primary is agreed in the store, never configured. Remove it, and write user and \
         password as username and password of `postgresql.authentication.replication`",
    ),
    (
        "postgresql.replication.primary",
        "unknown key: who is the primary is agreed in the store, never configured. Remove it",
    ),
    (
        "bootstrap.postgresql",
        "unknown key here: what all nodes share belongs under `bootstrap.dcs.postgresql`, indent it below `dcs`",
    ),
    (
        "bootstrap.pg_hba",
        "has no effect: lines for one node belong under `postgresql.pg_hba`, those for all nodes under \
         `bootstrap.dcs.postgresql.pg_hba`",
    ),
    (
        "bootstrap.users",
        "has no effect: make roles with a program, `bootstrap.post_bootstrap`",
    ),
    (
        "bootstrap.parameters",
        "unknown key here: what all nodes share belongs under `bootstrap.dcs.postgresql.parameters`",
    ),
    (
        "bootstrap.dcs.parameters",
        "unknown key here: it belongs under `bootstrap.dcs.postgresql.parameters`",
    ),
    (
        "bootstrap.dcs.pg_hba",
        "unknown key here: it belongs under `bootstrap.dcs.postgresql.pg_hba`",
    ),
    (
        "dcs",
        "unknown key here: it belongs under `bootstrap`, indent it",
    ),
    (
        "parameters",
        "unknown key here: it belongs under `postgresql`, indent it",
    ),
    (
        "pg_hba",
        "unknown key here: it belongs under `postgresql`, indent it",
    ),
    (
        "data_dir",
        "unknown key here: it belongs under `postgresql`, indent it",
    ),
    (
        "bin_dir",
        "unknown key here: it belongs under `postgresql`, indent it",
    ),
    (
        "authentication",
        "unknown key here: it belongs under `postgresql` or `restapi`, indent it",
    ),
    (
        "nofailover",
        "unknown key here: it belongs under `tags`, indent it",
    ),
];

/// What to say of a key that nobody asked for.
pub(super) fn of(path: &str) -> Option<String> {
    if let Some((_, cure)) = CURES.iter().find(|(known, _)| *known == path) {
        return Some((*cure).to_owned());
    }
    let key = path.strip_prefix("bootstrap.").unwrap_or(path);
    DCS_KEYS.contains(&key).then(|| {
        format!(
            "unknown key here: it belongs under `bootstrap.dcs`; once the cluster exists it is changed with \
             standfast edit-config or `PATCH /config`: {key}"
        )
    })
}
