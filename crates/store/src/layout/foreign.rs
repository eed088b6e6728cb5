//! What agents of Patroni have written into the same store, and whose the leader key is.
//!
//! Each of ours writes key and epoch in one transaction, Patroni's take a key only where there is none and write no
//! epoch. So a key that was created after the epoch was written is theirs, whatever name it holds.
//!
//! **Invariant:** a leader key of ours is never taken for theirs, nor theirs for one of ours.

use super::Keys;
use super::cluster::{each, parse};
use super::records::{EpochRecord, MemberRecord, SyncValue};
use crate::Snapshot;
use ha::{Foreign, Member, NodeName, NodeState, Timeline};
use serde_json::Value;
use std::collections::BTreeSet;

/// The nodes of Patroni's that live.
pub fn guests(keys: &Keys, snapshot: &Snapshot) -> BTreeSet<NodeName> {
    records(keys, snapshot).map(|(name, _)| name).collect()
}

/// Those that say nothing of ours about themselves, whatever else they say.
fn records(keys: &Keys, snapshot: &Snapshot) -> impl Iterator<Item = (NodeName, Value)> {
    let prefix = keys.members();
    let readable = each::<Value>(snapshot, &prefix)
        .filter_map(Result::ok)
        .collect::<Vec<_>>();
    readable
        .into_iter()
        .filter(|(_, record)| record.get("standfast").is_none())
}

pub(super) fn traces(
    keys: &Keys,
    snapshot: &Snapshot,
    leader: Option<&NodeName>,
    epoch: Option<&EpochRecord>,
    sync: Option<&SyncValue>,
) -> Foreign {
    let created = snapshot.entries.get(&keys.leader()).map(|it| it.created);
    let written = snapshot.entries.get(&keys.epoch()).map(|it| it.modified);
    let fits = epoch.is_some_and(|epoch| Some(&epoch.leader) == leader) && created <= written;
    let theirs = epoch.is_some_and(|epoch| epoch.patroni);
    let members = guests(keys, snapshot);
    // An agent of theirs that finds its own name in the key goes on with it, whoever wrote it.
    let taken_over = leader.is_some_and(|leader| members.contains(leader));
    let theirs_now = theirs || !fits || taken_over;
    Foreign {
        unwilling: records(keys, snapshot)
            .filter(|(_, record)| is_unwilling(record))
            .map(|(name, _)| name)
            .collect(),
        sync: sync.is_some_and(|value| value.standfast.is_none()),
        ended: newest_ended(keys, snapshot),
        leads: leader.is_some() && theirs_now,
        recorded: theirs && (fits || leader.is_none()),
        members,
    }
}

/// By its tags.
fn is_unwilling(record: &Value) -> bool {
    let Some(tags) = record.get("tags") else {
        return false;
    };
    let no_priority = tags.get("failover_priority").and_then(Value::as_i64);
    tags.get("nofailover").and_then(Value::as_bool) == Some(true)
        || no_priority.is_some_and(|priority| priority <= 0)
}

/// From `history`. One that can't be read says nothing: whose commits count stands elsewhere.
fn newest_ended(keys: &Keys, snapshot: &Snapshot) -> Option<Timeline> {
    let lines = parse::<Vec<Vec<Value>>>(snapshot, &keys.history()).ok()??;
    let numbers = lines.iter().filter_map(|line| line.first()?.as_u64());
    u32::try_from(numbers.max()?).ok().map(Timeline)
}

/// A member of Patroni's.
pub(super) fn member(record: MemberRecord) -> Member {
    let (host, port) = place(&record.conn_url).unwrap_or_default();
    let streams = record.replication_state.as_deref() == Some("streaming");
    let state = match (record.role.as_str(), record.state.as_str()) {
        ("primary" | "master", "running") => NodeState::Primary,
        (_, "running") if streams => NodeState::Standby,
        (_, "running") => NodeState::CatchingUp,
        _ => NodeState::Init,
    };
    Member {
        host,
        port,
        api_url: record.api_url,
        state,
        position: record.xlog_location,
        timeline: record.timeline,
        unfit: Some("its agent is not Standfast".to_owned()),
        ties: ha::Ties::default(),
    }
}

/// Host and port of a `postgres://` address.
fn place(url: &str) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let place = authority.rsplit('@').next()?;
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:")?,
        None => place.rsplit_once(':')?,
    };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_host_and_port() {
        let check = |url: &str, host: &str| {
            assert_eq!(place(url), Some((host.to_owned(), 5432)), "{url}");
        };
        check("postgres://127.0.0.1:5432/postgres", "127.0.0.1");
        check("postgres://[::1]:5432/postgres", "::1");
        check("postgresql://u:p@db.example:5432/a?b=c", "db.example");
        assert_eq!(place(""), None);
        assert_eq!(place("postgres://host/postgres"), None);
    }

    #[test]
    fn tags_keep_a_member_from_leading() {
        let unwilling = |tags: Value| is_unwilling(&serde_json::json!({ "tags": tags }));
        assert!(unwilling(serde_json::json!({"nofailover": true})));
        assert!(unwilling(serde_json::json!({"failover_priority": 0})));
        assert!(!unwilling(serde_json::json!({"failover_priority": 2})));
        assert!(!is_unwilling(&serde_json::json!({})));
    }
}
