//! `GET /api/v1/explain`: for every node whether it may lead, or the one reason why not, with numbers.
//!
//! It asks the very functions that decide: [`ha::handover_candidate`] under a leader, [`ha::verdict`] without one.

use crate::error::Refusal;
use crate::office::Office;
use crate::v1;
use ha::{Cluster, NodeName, NodeState, NodeView, Primary, Verdict, Walsender};
use std::collections::BTreeSet;
use std::time::Duration;
use store::layout::{Keys, MemberRecord};

pub(crate) fn explain(keys: &Keys, office: &Office<'_>) -> Result<v1::Explain, Refusal> {
    let cluster = super::cluster(office)?;
    let names: BTreeSet<&NodeName> = cluster.nodes.keys().chain(cluster.members.keys()).collect();
    let explain = match &cluster.leader {
        Some(leader) => {
            let primary = seen_by_leader(keys, office, cluster);
            let says = |name: &NodeName| stream_says(keys, office, name);
            under_leader(office, cluster, leader, &primary, &names, &says)
        }
        None => without_leader(office, cluster, &names),
    };
    Ok(match office.silence() {
        Some(silence) => in_silence(office, silence, explain),
        None => explain,
    })
}

/// Nobody claims without the store: what it said last is no more than that. Who has a lease that lasts leads on.
fn in_silence(office: &Office<'_>, silence: Duration, last: v1::Explain) -> v1::Explain {
    let seconds = format!("{}.{}", silence.as_secs(), silence.subsec_millis() / 100);
    let leads = |name: &NodeName| *name == office.served.name && office.lease().is_some();
    let nodes = last.nodes.into_iter().map(|node| match leads(&node.name) {
        true => node,
        false => v1::ExplainNode {
            may_lead: false,
            why: format!("the store is silent; it said last: {}", node.why),
            waits_for: Some("the store must answer".to_owned()),
            ..node
        },
    });
    v1::Explain {
        would_win: None,
        summary: format!(
            "the store has been silent for {seconds} s here: nobody can claim the leadership before it answers; it said \
             last: {}",
            last.summary
        ),
        nodes: nodes.collect(),
        ..last
    }
}

/// The standbys as their primary sees them, or where another node answers, as they say themselves.
pub(crate) fn seen_by_leader(keys: &Keys, office: &Office<'_>, cluster: &Cluster) -> Primary {
    if let (Some(primary), Some(_)) = (office.primary(), office.lease()) {
        return primary.clone();
    }
    let streams = |name: &NodeName| {
        let text = office.served.snapshot.value(&keys.member(name));
        let record: Option<MemberRecord> = text.and_then(|text| serde_json::from_str(text).ok());
        record
            .and_then(|record| record.replication_state)
            .as_deref()
            == Some("streaming")
    };
    let standbys = cluster
        .members
        .iter()
        .filter(|(name, _)| cluster.leader.as_ref() != Some(*name))
        .map(|(name, member)| {
            let streaming = member.state == NodeState::Standby || streams(name);
            let walsender = Walsender {
                streaming,
                flushed: member.position,
                seen: office.now,
            };
            (name.clone(), walsender)
        });
    Primary {
        timeline: cluster
            .leader
            .as_ref()
            .and_then(|leader| cluster.members.get(leader))
            .map(|member| member.timeline)
            .unwrap_or_default(),
        flushed: cluster.leader_position,
        standbys: standbys.collect(),
        open: true,
    }
}

/// What the Postgres of a standby says of its stream.
fn stream_says(keys: &Keys, office: &Office<'_>, name: &NodeName) -> Option<String> {
    let text = office.served.snapshot.value(&keys.member(name))?;
    let record: MemberRecord = serde_json::from_str(text).ok()?;
    record.standfast?.stream_says
}

fn under_leader(
    office: &Office<'_>,
    cluster: &Cluster,
    leader: &NodeName,
    primary: &Primary,
    names: &BTreeSet<&NodeName>,
    says: &dyn Fn(&NodeName) -> Option<String>,
) -> v1::Explain {
    let epoch = cluster.current_epoch();
    let next = ha::handover_candidate(cluster, leader, primary, None);
    let nodes = names.iter().map(|name| {
        if *name == leader {
            return v1::ExplainNode {
                name: leader.clone(),
                may_lead: true,
                why: in_office(office, cluster, leader),
                waits_for: None,
            };
        }
        match ha::handover_candidate(cluster, leader, primary, Some(name)) {
            Ok(_) => candidate(cluster, primary, name),
            Err(unfit) => v1::ExplainNode {
                name: (*name).clone(),
                may_lead: false,
                waits_for: remedy(cluster, primary, name, says(name)),
                why: unfit.why,
            },
        }
    });
    let nodes = nodes.collect();
    let (would_win, summary) = match next {
        Ok(next) => {
            let text = if cluster.settings.paused {
                format!(
                    "{leader} leads epoch {epoch}; the cluster is paused: {next} would lead if it were ordered, and \
                     nobody by itself"
                )
            } else {
                format!("{leader} leads epoch {epoch}; {next} would lead next")
            };
            (Some(next), text)
        }
        Err(why) => (
            None,
            format!("{leader} leads epoch {epoch}; nobody could take over: {why}"),
        ),
    };
    v1::Explain {
        epoch,
        leader: Some(leader.clone()),
        would_win,
        summary,
        nodes,
    }
}

fn in_office(office: &Office<'_>, cluster: &Cluster, leader: &NodeName) -> String {
    let epoch = cluster.current_epoch();
    let commits = match &cluster.sync {
        _ if cluster.led_by_standby() => "nothing is written here".to_owned(),
        Some(sync) => format!("commits need {}", sync.newest()),
        None => "commits are asynchronous".to_owned(),
    };
    let left = office.lease().filter(|_| office.served.name == *leader);
    match left {
        Some(lease) => {
            let left = lease.deadline.since(office.now).as_millis();
            format!("it leads epoch {epoch}, its lease lasts {left} ms more, {commits}")
        }
        None => format!("it leads epoch {epoch}, {commits}"),
    }
}

fn candidate(cluster: &Cluster, primary: &Primary, name: &NodeName) -> v1::ExplainNode {
    let flushed = primary
        .standbys
        .get(name)
        .map(|walsender| walsender.flushed)
        .unwrap_or_default();
    let lag = primary.flushed.bytes_since(flushed);
    let priority = cluster.node(name).priority;
    let counted = match &cluster.sync {
        _ if cluster.led_by_standby() => "a standby of the standby leader",
        Some(_) => "a synchronous standby",
        None => "an asynchronous standby",
    };
    v1::ExplainNode {
        name: name.clone(),
        may_lead: true,
        why: format!("{name} is {counted}, {lag} bytes behind, with priority {priority}"),
        waits_for: None,
    }
}

/// What would make a node a candidate again, if it is on its way.
fn remedy(
    cluster: &Cluster,
    primary: &Primary,
    name: &NodeName,
    says: Option<String>,
) -> Option<String> {
    let node = cluster.node(name);
    let Some(member) = cluster.members.get(name) else {
        return Some(format!("the agent of {name} must come back"));
    };
    if node.maintenance {
        return Some(format!("standfast disable maintenance --name {name}"));
    }
    if node.priority == 0 {
        return Some(format!(
            "standfast set node candidate-priority 50 --name {name}"
        ));
    }
    if member.unfit.is_some() || node.dropped {
        return None;
    }
    match primary
        .standbys
        .get(name)
        .filter(|walsender| walsender.streaming)
    {
        None => Some(match says {
            Some(why) => format!("{name} must stream from the primary: {why}"),
            None => format!("{name} must stream from the primary"),
        }),
        Some(walsender) => Some(format!(
            "{name} must catch up {} bytes and be counted among the synchronous standbys",
            primary.flushed.bytes_since(walsender.flushed)
        )),
    }
}

/// The election as it stands: who may claim, and what the others wait for.
fn without_leader(
    office: &Office<'_>,
    cluster: &Cluster,
    names: &BTreeSet<&NodeName>,
) -> v1::Explain {
    let epoch = cluster.current_epoch();
    let mut claims = None;
    let mut nodes = Vec::new();
    for name in names {
        // Only the node itself knows its turn and its window.
        let me: Option<&NodeView> = office
            .served
            .me
            .as_ref()
            .filter(|_| office.served.name == **name);
        let at = cluster
            .live_promises()
            .get(*name)
            .map(|promise| promise.position);
        let at = at.map(|at| format!(" at {at}"));
        let (may_lead, why, waits_for) = match ha::verdict(cluster, name, me, office.now) {
            Verdict::Claims { counted } => {
                claims.get_or_insert_with(|| (*name).clone());
                let at = at.unwrap_or_default();
                (
                    true,
                    format!("{name}{at} may claim on {} promises", counted.len()),
                    None,
                )
            }
            Verdict::Waits { why } => match at {
                Some(at) => (false, format!("{name} has promised{at}; {why}"), Some(why)),
                None => (false, why, Some(absent(cluster, name))),
            },
        };
        nodes.push(v1::ExplainNode {
            name: (*name).clone(),
            may_lead,
            why,
            waits_for,
        });
    }
    let (would_win, outlook) = outlook(office, cluster, claims);
    let paused = if cluster.settings.paused {
        ", and the cluster is paused"
    } else {
        ""
    };
    let summary = format!("there is no leader{paused}; {outlook}");
    v1::Explain {
        epoch,
        leader: None,
        would_win,
        summary,
        nodes,
    }
}

/// Who would win as things stand, and what stands in the way.
fn outlook(
    office: &Office<'_>,
    cluster: &Cluster,
    claims: Option<NodeName>,
) -> (Option<NodeName>, String) {
    let next = cluster.current_epoch().next();
    if let Some(name) = claims {
        let text = format!("{name} may claim epoch {next}");
        return (Some(name), text);
    }
    let promised: BTreeSet<NodeName> = cluster.live_promises().into_keys().cloned().collect();
    if promised.is_empty() {
        return (None, format!("nobody has promised for epoch {next} yet"));
    }
    if let Some(Err(missing)) = cluster.sync.as_ref().map(|sync| sync.accepts(&promised)) {
        return (None, format!("nobody may claim epoch {next}: {missing}"));
    }
    match foremost(cluster) {
        Some(name) => match ha::verdict(cluster, &name, None, office.now) {
            Verdict::Waits { why } => (Some(name.clone()), format!("{name} is foremost; {why}")),
            Verdict::Claims { .. } => (Some(name.clone()), format!("{name} is foremost")),
        },
        None => (None, "none of those that promised can lead".to_owned()),
    }
}

fn absent(cluster: &Cluster, name: &NodeName) -> String {
    if cluster.members.contains_key(name) {
        format!("{name} must find the end of its WAL and promise")
    } else {
        format!("the agent of {name} must come back")
    }
}

/// The most advanced of those that can lead at all.
fn foremost(cluster: &Cluster) -> Option<NodeName> {
    cluster
        .live_promises()
        .into_iter()
        .filter(|(_, promise)| promise.unfit.is_none())
        .max_by_key(|(name, promise)| {
            (
                promise.position.rank(),
                promise.priority,
                std::cmp::Reverse(*name),
            )
        })
        .map(|(name, _)| name.clone())
}
