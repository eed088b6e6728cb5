//! Handing the leadership over: to whom, and by whose order.
//!
//! **Invariant:** a node of ours is asked to take over only while it streams, is near enough, and, where commits are
//! synchronous, is one that they need.
//!
//! It does not know how a node stops or takes over.

use super::setting::is_guest;
use crate::decision::{Action, Decision};
use crate::types::NodeName;
use crate::view::{Cluster, NodeView, Primary, Switchover};

/// Why a node can't be handed the leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub why: String,
    /// A standby that has just come back is fit a moment later without anybody's doing.
    pub passing: bool,
}

impl Unfit {
    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            passing: false,
        }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            passing: true,
        }
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// Who would be asked to take over, or why nobody can be.
pub fn handover_candidate(
    cluster: &Cluster,
    me: &NodeName,
    primary: &Primary,
    wanted: Option<&NodeName>,
) -> Result<NodeName, Unfit> {
    if cluster.settings.remote.is_some() && cluster.led_by_standby() {
        return super::standby::candidate(cluster, me, wanted);
    }
    let check = |name: &NodeName| candidate_fit(cluster, primary, name);
    if let Some(name) = wanted {
        if name == me {
            return Err(Unfit::lasting(format!("{name} is the leader already")));
        }
        return check(name).map(|()| name.clone());
    }
    let mut reasons = Vec::new();
    let mut passing = false;
    let mut fit: Vec<&NodeName> = Vec::new();
    for name in cluster.nodes.keys().filter(|name| *name != me) {
        match check(name) {
            Ok(()) => fit.push(name),
            Err(unfit) => {
                passing |= unfit.passing;
                reasons.push(unfit.why);
            }
        }
    }
    let rank = |name: &&NodeName| {
        let flushed = primary
            .standbys
            .get(*name)
            .map(|walsender| walsender.flushed);
        (cluster.node(name).priority, flushed)
    };
    match fit.into_iter().max_by_key(rank) {
        Some(best) => Ok(best.clone()),
        None if reasons.is_empty() => Err(Unfit::lasting("there is no other node")),
        None => Err(Unfit {
            why: reasons.join("; "),
            passing,
        }),
    }
}

fn candidate_fit(cluster: &Cluster, primary: &Primary, name: &NodeName) -> Result<(), Unfit> {
    if is_guest(cluster, name) {
        return super::foreign::guest_fit(cluster, primary, name);
    }
    let node = cluster.node(name);
    let Some(member) = cluster.members.get(name) else {
        return Err(Unfit::lasting(format!("{name} is not alive")));
    };
    if let Some(why) = &member.unfit {
        return Err(Unfit::lasting(format!("{name}: {why}")));
    }
    if node.priority == 0 {
        return Err(Unfit::lasting(format!(
            "{name}: its candidate priority is 0"
        )));
    }
    if node.maintenance || node.dropped {
        return Err(Unfit::lasting(format!("{name} is in maintenance")));
    }
    let Some(walsender) = primary
        .standbys
        .get(name)
        .filter(|walsender| walsender.streaming)
    else {
        return Err(Unfit::passing(format!(
            "{name} is not streaming from the primary"
        )));
    };
    if let Some(sync) = &cluster.sync
        && !sync.newest().standbys.contains(name)
    {
        return Err(Unfit::passing(format!(
            "{name} is not a synchronous standby"
        )));
    }
    let lag = primary.flushed.bytes_since(walsender.flushed);
    if lag > cluster.settings.lag_bytes_max {
        return Err(Unfit::passing(format!("{name} lags {lag} bytes behind")));
    }
    Ok(())
}

pub(super) fn hand_over(
    cluster: &Cluster,
    me: &NodeView,
    primary: &Primary,
    order: &Switchover,
) -> Option<Decision> {
    if order.from.as_ref().is_some_and(|from| *from != me.name) {
        let outcome = match order.to.as_ref().filter(|to| **to != me.name) {
            Some(to) => format!("done: {} leads, and not {to}", me.name),
            None => format!("done: {} leads", me.name),
        };
        return Some(clear("switchover done", outcome));
    }
    if order.from.is_none() && order.to.as_ref() == Some(&me.name) {
        return Some(clear("switchover done", format!("done: {} leads", me.name)));
    }
    if order.accept_loss {
        // Given for a cluster without a leader; there is one, so nothing needs to be lost.
        let outcome = format!("refused: {} leads, no loss needs to be accepted", me.name);
        return Some(clear("switchover refused", outcome));
    }
    match handover_candidate(cluster, &me.name, primary, order.to.as_ref()) {
        Ok(to) => Some(Decision::act(
            "switchover",
            Action::Drain,
            match &order.to {
                Some(_) => format!("switchover from {} to {to}: stopping cleanly", me.name),
                None => format!(
                    "switchover from {} to whoever is best then, {to} by now: stopping cleanly",
                    me.name
                ),
            },
        )),
        Err(why) => Some(clear("switchover refused", format!("refused: {why}"))),
    }
}

pub(super) fn clear(rule: &'static str, outcome: String) -> Decision {
    Decision::act(
        rule,
        Action::ClearSwitchover {
            outcome: outcome.clone(),
        },
        outcome,
    )
}

/// Maintenance or drop of the leader: hand over first, if somebody can take over.
pub(super) fn step_aside(cluster: &Cluster, me: &NodeView, primary: &Primary) -> Decision {
    match handover_candidate(cluster, &me.name, primary, None) {
        Ok(to) => Decision::act(
            "step aside",
            Action::Drain,
            format!(
                "{} steps aside for whoever is best then, {to} by now: stopping cleanly",
                me.name
            ),
        ),
        Err(why) if super::is_only(cluster, &me.name) => Decision::act(
            "step aside",
            Action::Drain,
            format!("the last node steps aside: {why}"),
        ),
        Err(why) => Decision::wait("step aside", format!("can't step aside yet: {why}")),
    }
}
