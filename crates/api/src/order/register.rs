//! Joining the cluster's list of nodes: a number and a name for each installation.
//!
//! **Invariant:** a number is given once, a name belongs to one identity, and no two names are one to PostgreSQL: it
//! compares standbys' names without regard to case, and a slot is named in lower case.

use super::{TRIES, commit, overtaken};
use crate::error::Refusal;
use crate::event::to_text;
use crate::v1::{Code, Register, Registered};
use ha::{NodeName, NodeRecord};
use std::collections::BTreeMap;
use store::layout::{Keys, NodeEntry};
use store::{Snapshot, Store, Txn};

/// Gives `asked` its number and its final name; the same identity gets the same ones again.
pub async fn register(
    store: &dyn Store,
    keys: &Keys,
    scope: &str,
    asked: &Register,
) -> Result<Registered, Refusal> {
    check(asked)?;
    for _ in 0..TRIES {
        let snapshot = store.read(keys.prefix()).await?;
        let (name, entry, known) = place(keys, &snapshot, asked)?;
        let counter = counter_key(keys);
        let mut txn = Txn::new()
            .when(snapshot.unchanged(&keys.node(&name)))
            .put(keys.node(&name), to_text(&entry));
        if !known && !entry.witness {
            txn = txn
                .when(snapshot.unchanged(&counter))
                .put(counter, entry.id.to_string());
        }
        if commit(store, txn).await? {
            return Ok(Registered {
                id: entry.id,
                name,
                scope: scope.to_owned(),
                known,
            });
        }
    }
    Err(overtaken())
}

fn check(asked: &Register) -> Result<(), Refusal> {
    let invalid = |sentence: &str| Err(Refusal::new(Code::Invalid, sentence));
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= 255 && text.chars().all(|c| c.is_ascii_graphic())
    };
    if !plain(&asked.host) || asked.host.contains(['/', '@', ',', '?', '"', '\'']) {
        return invalid("host must be a host name or an address");
    }
    if asked.port == 0 && !asked.witness {
        return invalid("port must be 1 to 65535");
    }
    if !plain(&asked.identity) {
        return invalid("identity must be 1 to 255 visible ASCII characters");
    }
    if !plain(&asked.api_url) || !asked.api_url.starts_with("http") {
        return invalid("api_url must be an http:// or https:// URL");
    }
    if asked.priority.is_some_and(|priority| priority > 100) {
        return invalid("priority must be 0 to 100");
    }
    Ok(())
}

/// The record to write, under which name, and whether the identity was known.
fn place(
    keys: &Keys,
    snapshot: &Snapshot,
    asked: &Register,
) -> Result<(NodeName, NodeEntry, bool), Refusal> {
    let nodes = entries(keys, snapshot)?;
    let mine = |entry: &NodeEntry| entry.identity == asked.identity;
    if let Some((name, entry)) = nodes.iter().find(|(_, entry)| mine(entry)) {
        if asked.name.as_ref().is_some_and(|wanted| wanted != name) {
            return Err(
                Refusal::conflict(format!("this node is registered as {name} already"))
                    .hint(format!("keep that name, or drop {name} first")),
            );
        }
        if entry.dropped {
            return Err(Refusal::conflict(format!("{name} was dropped and has not left yet"))
                .hint(format!("start it once so that it leaves, or: standfast drop node --name {name} --force --pgdata DIR")));
        }
        address_free(&nodes, name, asked)?;
        return Ok((name.clone(), updated(entry, asked), true));
    }
    let id = if asked.witness {
        0
    } else {
        next_id(keys, snapshot, &nodes)
    };
    let (id, name) = match &asked.name {
        Some(name) => (id, name.clone()),
        None => free_name(&nodes, id, asked.witness)?,
    };
    if let Some((taken, other)) = namesake(&nodes, &name) {
        let at = format!("{}:{}", other.host, other.port);
        let what = if *taken == name {
            format!("the name {name} belongs to another node, at {at}")
        } else {
            format!(
                "the name {name} is too like {taken}, the node at {at}: PostgreSQL does not tell them apart"
            )
        };
        return Err(Refusal::conflict(what).hint(format!(
            "choose another name; if that node is gone for good, on one that is not: standfast drop node --name {taken} --force --pgdata DIR (or --config FILE)"
        )));
    }
    address_free(&nodes, &name, asked)?;
    let fresh = NodeEntry {
        id,
        host: String::new(),
        port: 0,
        api_url: String::new(),
        identity: asked.identity.clone(),
        priority: NodeRecord::default().priority,
        quorum: true,
        maintenance: false,
        dropped: false,
        witness: asked.witness,
        never_ran: asked.ahead,
        priority_by_tag: false,
        quorum_by_tag: false,
    };
    Ok((name, updated(&fresh, asked), false))
}

/// The node whose name PostgreSQL would take for this one.
fn namesake<'a>(
    nodes: &'a BTreeMap<NodeName, NodeEntry>,
    name: &NodeName,
) -> Option<(&'a NodeName, &'a NodeEntry)> {
    nodes.iter().find(|(other, _)| other.slot() == name.slot())
}

/// What was set by command stays; what a tag has set goes with the tag.
fn updated(entry: &NodeEntry, asked: &Register) -> NodeEntry {
    let usual = NodeRecord::default();
    let priority = match entry.priority_by_tag {
        true => usual.priority,
        false => entry.priority,
    };
    let quorum = entry.quorum || entry.quorum_by_tag;
    NodeEntry {
        host: asked.host.clone(),
        port: asked.port,
        api_url: asked.api_url.clone(),
        priority: asked.priority.unwrap_or(priority),
        priority_by_tag: asked.priority.is_some(),
        quorum: asked.quorum.unwrap_or(quorum),
        quorum_by_tag: asked.quorum.is_some(),
        witness: asked.witness,
        never_ran: entry.never_ran && asked.ahead,
        ..entry.clone()
    }
}

/// Two nodes at one address are one machine configured twice.
fn address_free(
    nodes: &BTreeMap<NodeName, NodeEntry>,
    name: &NodeName,
    asked: &Register,
) -> Result<(), Refusal> {
    let same = |entry: &NodeEntry| {
        !asked.witness && !entry.witness && entry.host == asked.host && entry.port == asked.port
    };
    match nodes
        .iter()
        .find(|(other, entry)| *other != name && same(entry))
    {
        None => Ok(()),
        Some((other, _)) => Err(Refusal::conflict(format!(
            "{}:{} is the address of {other} already",
            asked.host, asked.port
        ))
        .hint(format!("choose another port, or drop {other} first"))),
    }
}

/// `node_<id>` that nobody took by hand, and the number that goes with it. Monitors are not counted: the first node
/// with Postgres is number 1.
fn free_name(
    nodes: &BTreeMap<NodeName, NodeEntry>,
    first: u64,
    witness: bool,
) -> Result<(u64, NodeName), Refusal> {
    for id in first.max(1).. {
        let text = match (witness, id) {
            (true, 1) => "monitor".to_owned(),
            (true, id) => format!("monitor_{id}"),
            (false, id) => format!("node_{id}"),
        };
        let name =
            NodeName::new(text).map_err(|bad| Refusal::new(Code::Invalid, bad.to_string()))?;
        if namesake(nodes, &name).is_none() {
            return Ok((if witness { 0 } else { id }, name));
        }
    }
    Err(overtaken())
}

fn next_id(keys: &Keys, snapshot: &Snapshot, nodes: &BTreeMap<NodeName, NodeEntry>) -> u64 {
    let counted = snapshot
        .value(&counter_key(keys))
        .and_then(|digits| digits.parse().ok());
    let highest = nodes.values().map(|entry| entry.id).max().unwrap_or(0);
    counted.unwrap_or(0).max(highest) + 1
}

/// The last number given, so that a dropped node's is not given again.
fn counter_key(keys: &Keys) -> String {
    format!("{}standfast/node_counter", keys.prefix())
}

/// All nodes, monitors included.
pub(crate) fn entries(
    keys: &Keys,
    snapshot: &Snapshot,
) -> Result<BTreeMap<NodeName, NodeEntry>, Refusal> {
    let prefix = keys.nodes();
    let mut found = BTreeMap::new();
    for (key, entry) in snapshot.entries.range(prefix.clone()..) {
        let Some(rest) = key.strip_prefix(&prefix) else {
            break;
        };
        let unreadable = |why: String| {
            Refusal::new(
                Code::Unavailable,
                format!("store key {key} can't be read: {why}"),
            )
        };
        let name = NodeName::new(rest).map_err(|bad| unreadable(bad.to_string()))?;
        let value =
            serde_json::from_str(&entry.value).map_err(|bad| unreadable(bad.to_string()))?;
        found.insert(name, value);
    }
    Ok(found)
}
