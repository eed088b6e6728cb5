//! `bootstrap`: what the first node of a new cluster writes, and how it makes its data directory.

use super::methods::{self, Told};
use super::postgresql::{Refused, command, lines_of, rejoining};
use crate::config::section::{Section, nearest};
use crate::config::tree::Entry;
use crate::config::{Bootstrap, postgres_rules};
use store::layout::ConfigRecord;

/// Settings of `bootstrap.dcs` that mean something, here or to Patroni.
pub(in crate::config) const DCS_KEYS: &[&str] = &[
    "ttl",
    "loop_wait",
    "beat",
    "failure_timeout",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "max_timelines_history",
    "primary_start_timeout",
    "primary_stop_timeout",
    "primary_race_backoff",
    "master_start_timeout",
    "master_stop_timeout",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "synchronous_relax_after",
    "election_window",
    "hang_timeout",
    "failsafe_mode",
    "check_timeline",
    "member_slots_ttl",
    "pause",
    "postgresql",
    "standby_cluster",
    "slots",
    "ignore_slots",
];

/// What Patroni takes for all nodes from here.
const NODES_OWN: &[&str] = &[
    "recovery_conf",
    "callbacks",
    "create_replica_methods",
    "basebackup",
];

/// A handover needs a clean stop, however long that takes: what was killed may have commits that nobody else has seen.
const STOPS: &str = "has no effect: a primary that is to hand over is not killed for being slow, and one whose lease \
                     ends is killed by its guard at that moment";

/// Why a setting of Patroni's has nothing to set here.
const NEEDLESS: &[(&str, &str)] = &[
    (
        "retry_timeout",
        "has no effect: how long a leader may be without the store is its ttl, to the end",
    ),
    ("primary_stop_timeout", STOPS),
    ("master_stop_timeout", STOPS),
    (
        "ignore_slots",
        "has no effect: only slots that Standfast made are ever dropped",
    ),
    (
        "check_timeline",
        "has no effect: a node is never promoted on a timeline that is not the cluster's",
    ),
];

pub(super) fn bootstrap(root: &Section<'_>, told: &Told<'_>) -> Option<Bootstrap> {
    let section = root.section("bootstrap");
    let dcs = section.section("dcs");
    let mut record = ConfigRecord::default();
    for entry in dcs.entries() {
        record.0.insert(entry.key.clone(), entry.value.to_json());
    }
    for entry in dcs.entries() {
        judge(&dcs, &record, entry);
    }
    postgresql(&dcs);
    let slots = dcs.section("slots");
    for (name, why) in record.permanent_slots().unusable {
        let entry = slots.entries().iter().find(|entry| entry.key == name);
        slots.inert(
            entry.map_or_else(|| slots.line(), |entry| entry.line),
            &name,
            why,
        );
    }
    if !record.0.contains_key("synchronous_mode") {
        // Patroni's meaning of the absent key; every file that we write names it.
        record.0.insert("synchronous_mode".to_owned(), false.into());
        let what =
            "not set, so commits are asynchronous, as Patroni has it; `quorum` protects them";
        dcs.warning(dcs.line(), "synchronous_mode", what);
    }
    let initdb = section.options("initdb");
    let restore = methods::restore(&section, told);
    let post_bootstrap =
        command(&section, "post_bootstrap").or_else(|| command(&section, "post_init"));
    section.finish(&[]);
    if dcs.is_sound()
        && let Err(bad) = record.postgres()
    {
        let key = bad.key.strip_prefix("postgresql.").unwrap_or_default();
        let line = dcs.section("postgresql").line();
        dcs.error(line, "postgresql", format!("{key}: {}", bad.why));
        return None;
    }
    if let Err(bad) = record.settings() {
        let line = dcs
            .entries()
            .iter()
            .find(|entry| entry.key == bad.key)
            .map_or_else(|| dcs.line(), |entry| entry.line);
        dcs.error(line, &bad.key, bad.why);
        return None;
    }
    Some(Bootstrap {
        dcs: record,
        initdb,
        post_bootstrap: post_bootstrap.unwrap_or_default(),
        restore,
    })
}

/// What is odd about one key of `dcs`.
fn judge(dcs: &Section<'_>, record: &ConfigRecord, entry: &Entry) {
    let key = entry.key.as_str();
    let needless = NEEDLESS.iter().find(|(name, _)| *name == key);
    let what = if let Some((_, why)) = needless {
        (*why).to_owned()
    } else if DCS_KEYS.contains(&key) {
        if !record.without_effect().contains(&key) {
            return;
        }
        "has no effect in this version".to_owned()
    } else if dcs.cure(key, entry) {
        return;
    } else {
        match nearest(key, DCS_KEYS.iter().copied()) {
            Some(near) => format!("unknown key, did you mean `{near}`?"),
            None => "unknown key, it has no effect".to_owned(),
        }
    };
    dcs.inert(entry.line, key, what);
}

/// What the Postgres of every node is to have.
fn postgresql(dcs: &Section<'_>) {
    let section = dcs.section("postgresql");
    let parameters = section.section("parameters");
    postgres_rules::check(&parameters, &parameters.pairs());
    for key in ["pg_hba", "pg_ident"] {
        for Refused { place, line, why } in lines_of(&section, key).1 {
            let what =
                format!("{line:?} is no line that PostgreSQL takes, so none of them counts: {why}");
            section.warning(place, key, what);
        }
    }
    rejoining(&section);
    for key in NODES_OWN {
        if let Some(tree) = section.value(key) {
            let what = "has no effect here: it is each node's own, under `postgresql`";
            section.inert(tree.line, key, what);
        }
    }
    section.finish(NODES_OWN);
}
