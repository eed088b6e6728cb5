//! Postgres parameters that a user can't have their way with: those that Standfast sets itself, and those that
//! would lose acknowledged commits.

use super::section::{At, Section};
use std::collections::BTreeMap;

/// Without these on, a commit that Postgres acknowledged may be gone after a crash.
const MUST_BE_ON: &[&str] = &["fsync", "full_page_writes"];

/// Complains about `pairs`, which are those of `parameters`.
pub(super) fn check(parameters: &Section<'_>, pairs: &BTreeMap<String, At<String>>) {
    for (name, at) in pairs {
        // As PostgreSQL compares them.
        let lower = name.to_ascii_lowercase();
        let value = at.value.to_ascii_lowercase();
        if name.contains(['\n', '\r', '\0']) || at.value.contains(['\n', '\r', '\0']) {
            parameters.error(at.line, name, "must not hold line breaks");
        } else if postgres::NEVER_THE_USERS.contains(&lower.as_str()) {
            parameters.inert(at.line, name, "is set by Standfast, this value is not used");
        } else if MUST_BE_ON.contains(&lower.as_str()) && is_off(&value) {
            let what = "off would lose acknowledged commits after a crash, remove it";
            parameters.error(at.line, name, what);
        } else if lower == "wal_level" && value == "minimal" {
            let what = "minimal allows no standby, remove it or say replica or logical";
            parameters.error(at.line, name, what);
        } else if lower == "synchronous_commit"
            && matches!(value.as_str(), "off" | "local" | "false" | "no" | "0")
        {
            let what = "commits acknowledged before a standby has them may be lost in a failover";
            parameters.warning(at.line, name, what);
        }
    }
}

/// PostgreSQL takes any beginning of a word that can mean but one.
fn is_off(value: &str) -> bool {
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(value);
    value == "0" || begins("off", 2) || begins("false", 1) || begins("no", 1)
}
