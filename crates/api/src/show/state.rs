//! `GET /api/v1/state`: every node, dead or alive.

use super::millis;
use crate::error::Refusal;
use crate::office::Office;
use crate::options::StoreMember;
use crate::order::entries;
use crate::v1;
use ha::{Cluster, Initialize, Lsn, NodeName, NodeState};
use std::collections::{BTreeMap, BTreeSet};
use store::Snapshot;
use store::layout::{Keys, MemberRecord, NodeEntry, proxies};

pub(crate) fn state(
    keys: &Keys,
    members: Vec<StoreMember>,
    office: &Office<'_>,
) -> Result<v1::State, Refusal> {
    let served = office.served;
    let cluster = office.cluster();
    let cluster = cluster.ok_or_else(|| Refusal::waiting_for(&members))?;
    let snapshot = &served.snapshot;
    let store = store_state(members, office);
    let records = entries(keys, snapshot)?;
    let names: BTreeSet<&NodeName> = records.keys().chain(cluster.members.keys()).collect();
    let mut nodes: Vec<v1::Node> = names
        .into_iter()
        .map(|name| node(keys, cluster, snapshot, &records, &store, name))
        .collect();
    // Monitors have no number: they come last.
    nodes.sort_by(|a, b| (a.witness, a.id, &a.name).cmp(&(b.witness, b.id, &b.name)));
    let settings = &cluster.settings;
    Ok(v1::State {
        scope: served.scope.clone(),
        formation: "default".to_owned(),
        system_id: match cluster.initialize {
            Initialize::Done(id) => Some(id.to_string()),
            Initialize::Absent | Initialize::Founding => None,
        },
        epoch: cluster.current_epoch(),
        leader: cluster.leader.clone(),
        paused: settings.paused,
        sync: v1::Sync {
            mode: settings.sync_mode,
            strict: settings.sync_strict,
            text: sync_text(cluster),
            settings: cluster
                .sync
                .as_ref()
                .map(|sync| sync.settings().to_vec())
                .unwrap_or_default(),
        },
        store,
        switchover: cluster.switchover.as_ref().map(|order| {
            let name = |name: &Option<NodeName>| {
                name.as_ref()
                    .map_or_else(|| "any".to_owned(), NodeName::to_string)
            };
            format!("from {} to {}", name(&order.from), name(&order.to))
        }),
        answered_by: served.name.clone(),
        version: served.version.clone(),
        nodes,
        proxies: proxies(keys, snapshot)
            .into_iter()
            .map(|(number, record)| v1::Proxy {
                number,
                name: record.name,
                address: record.address,
                epoch: record.epoch,
            })
            .collect(),
    })
}

/// What is in force, and what is joined with it while it changes.
fn sync_text(cluster: &Cluster) -> String {
    match &cluster.sync {
        None => "asynchronous".to_owned(),
        Some(sync) => {
            let mut texts = sync.settings().iter().rev().map(ToString::to_string);
            let newest = texts.next().unwrap_or_default();
            let older: Vec<String> = texts.collect();
            if older.is_empty() {
                newest
            } else {
                format!("{newest}, changing from {}", older.join(" and "))
            }
        }
    }
}

fn store_state(members: Vec<StoreMember>, office: &Office<'_>) -> v1::StoreState {
    v1::StoreState {
        silent_ms: office.silence().map(millis),
        leader: members
            .iter()
            .find(|member| member.leader)
            .map(|member| member.name.clone()),
        voters: members
            .into_iter()
            .map(|member| v1::StoreVoter {
                name: member.name,
                address: member.address,
                voter: member.voter,
                reachable: member.reachable,
            })
            .collect(),
        revision: office.served.snapshot.revision,
    }
}

fn node(
    keys: &Keys,
    cluster: &Cluster,
    snapshot: &Snapshot,
    records: &BTreeMap<NodeName, NodeEntry>,
    store: &v1::StoreState,
    name: &NodeName,
) -> v1::Node {
    let record = records.get(name);
    let member = cluster.members.get(name);
    let raw: Option<MemberRecord> = snapshot
        .value(&keys.member(name))
        .and_then(|text| serde_json::from_str(text).ok());
    let extra = raw.and_then(|raw| raw.standfast);
    let wanted = record.map(Into::into).unwrap_or_else(|| cluster.node(name));
    let witness = record.is_some_and(|entry| entry.witness);
    let in_store = || {
        store
            .voters
            .iter()
            .any(|voter| voter.name == name.as_str() && voter.reachable != Some(false))
    };
    let alive = member.is_some() || (witness && in_store());
    let never_ran = record.is_some_and(|entry| entry.never_ran) && member.is_none();
    let state = match member {
        Some(member) => member.state,
        None if never_ran => NodeState::Init,
        None => last_known(witness, &wanted),
    };
    let assigned = match &extra {
        Some(extra) => extra.assigned,
        None if never_ran => first_task(cluster),
        None => state,
    };
    let leads = cluster.leader.as_ref() == Some(name);
    let position = position(cluster, name);
    let (host, port, api_url) = match (member, record) {
        (Some(member), _) if !member.host.is_empty() => {
            (member.host.clone(), member.port, member.api_url.clone())
        }
        (_, Some(entry)) => (entry.host.clone(), entry.port, entry.api_url.clone()),
        (Some(member), None) => (member.host.clone(), member.port, member.api_url.clone()),
        (None, None) => (String::new(), 0, String::new()),
    };
    let dead_reason = || match (alive, never_ran) {
        (true, _) => String::new(),
        (false, true) => "created, and not run yet".to_owned(),
        (false, false) => "its lease in the store has ended".to_owned(),
    };
    v1::Node {
        id: wanted.id,
        name: name.clone(),
        host,
        port,
        api_url,
        timeline: position.1,
        lsn: position.0,
        connection: connection(state, leads, alive, witness),
        state,
        assigned,
        reason: extra
            .as_ref()
            .map_or_else(dead_reason, |extra| extra.reason.clone()),
        rule: extra
            .as_ref()
            .map(|extra| extra.rule.clone())
            .unwrap_or_default(),
        alive,
        priority: wanted.priority,
        quorum: wanted.quorum,
        maintenance: wanted.maintenance,
        dropped: wanted.dropped,
        lag_bytes: (alive && !leads && !witness)
            .then(|| cluster.leader_position.bytes_since(position.0)),
        witness,
        unfit: member.and_then(|member| member.unfit.clone()),
        server_version: extra.as_ref().map_or(0, |extra| extra.server_version),
        troubles: extra.map(|extra| extra.troubles).unwrap_or_default(),
    }
}

/// What a new node will do: make the cluster, or a copy of its data.
fn first_task(cluster: &Cluster) -> NodeState {
    match cluster.initialize {
        Initialize::Done(_) => NodeState::Joining,
        Initialize::Absent | Initialize::Founding => NodeState::Single,
    }
}

/// A dead node is what the cluster takes it for.
fn last_known(witness: bool, wanted: &ha::NodeRecord) -> NodeState {
    match wanted {
        _ if witness => NodeState::Init,
        wanted if wanted.dropped => NodeState::Dropped,
        wanted if wanted.maintenance => NodeState::Maintenance,
        _ => NodeState::Demoted,
    }
}

/// What the node said last: in its member record, or in its promise when it is dead.
fn position(cluster: &Cluster, name: &NodeName) -> (Lsn, ha::Timeline) {
    match (cluster.members.get(name), cluster.promises.get(name)) {
        (Some(member), _) => (member.position, member.timeline),
        (None, Some(promise)) => (promise.position.lsn, promise.position.timeline),
        (None, None) => (Lsn::ZERO, ha::Timeline::default()),
    }
}

/// A node that says "primary" without holding the leader key takes no writes.
fn connection(state: NodeState, leads: bool, alive: bool, witness: bool) -> String {
    let can = match state.connection() {
        _ if witness => "none",
        "read-write" if !leads => "none",
        can => can,
    };
    if alive {
        can.to_owned()
    } else {
        format!("{can} !")
    }
}
