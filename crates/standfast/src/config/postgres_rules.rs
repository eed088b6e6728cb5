//! Postgres parameters that a user can't have their way with: those that Standfast sets itself, and those that
//! would lose acknowledged commits.

use super::section::{At, Section};
use std::collections::BTreeMap;

/// Not used either, beside those that the instance keeps for itself.
const UNUSED: &[&str] = &["archive_cleanup_command"];

fn is_ours(name: &str) -> bool {
    postgres::NEVER_THE_USERS.contains(&name) || UNUSED.contains(&name)
}

/// Without these on, a commit that Postgres acknowledged may be gone after a crash.
const MUST_BE_ON: &[&str] = &["fsync", "full_page_writes"];

/// Complains about `pairs`, which are those of `parameters`.
pub(super) fn check(parameters: &Section<'_>, pairs: &BTreeMap<String, At<String>>) {
    for (name, at) in pairs {
        let value = at.value.to_ascii_lowercase();
        if name.contains(['\n', '\r', '\0']) || at.value.contains(['\n', '\r', '\0']) {
            parameters.error(at.line, name, "must not hold line breaks");
        } else if is_ours(name) {
            parameters.warning(at.line, name, "is set by Standfast, this value is not used");
        } else if MUST_BE_ON.contains(&name.as_str())
            && matches!(value.as_str(), "off" | "false" | "no" | "0")
        {
            let what = "off would lose acknowledged commits after a crash, remove it";
            parameters.error(at.line, name, what);
        } else if name == "wal_level" && value == "minimal" {
            let what = "minimal allows no standby, remove it or say replica or logical";
            parameters.error(at.line, name, what);
        } else if name == "synchronous_commit"
            && matches!(value.as_str(), "off" | "local" | "false" | "no")
        {
            let what = "commits acknowledged before a standby has them may be lost in a failover";
            parameters.warning(at.line, name, what);
        }
    }
}
