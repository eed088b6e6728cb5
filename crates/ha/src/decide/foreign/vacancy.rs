//! Nobody leads, and Patroni's agents race beside ours or have led before.
//!
//! In synchronous mode the record says who has every commit, whoever wrote it: Patroni's names the standbys of which
//! each, or in quorum mode all but `quorum`, have acknowledged, which is a setting like ours. In asynchronous mode there
//! is no proof, only manners: who is further ahead goes first, for a while.
//!
//! **Invariant:** after a leader of Patroni's only a node claims that has followed that very leader.

use crate::decision::{Action, Decision};
use crate::lineage::Lineage;
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, NodeView};
use std::time::Duration;

/// A rival looks at the key's end, asks the other members, the dead one too, and then takes it.
const RIVAL_TAKES: Duration = Duration::from_secs(3);
/// One that is ahead, or that a person has named, has longer.
const BETTER_RIVAL_TAKES: Duration = Duration::from_secs(10);

pub(in crate::decide) fn race(cluster: &Cluster, me: &NodeView, now: Instant) -> Decision {
    let decision = super::super::race::race(cluster, me, "there is no leader", now);
    if !matches!(decision.actions.first(), Some(Action::Claim(_))) {
        return decision;
    }
    match may_claim(cluster, me, now) {
        Ok(()) => decision,
        Err(why) => Decision::wait("election", format!("there is no leader; {why}")),
    }
}

fn may_claim(cluster: &Cluster, me: &NodeView, now: Instant) -> Result<(), String> {
    if super::super::race::loss_accepted(cluster, &me.name) {
        return Ok(());
    }
    if let Some(leader) = passed_by(cluster, me.lineage.as_ref()) {
        return Err(format!(
            "{leader} led last, by Patroni, and this node has not followed it"
        ));
    }
    let waited = now.since(me.promised_at.unwrap_or(now));
    let asked = cluster.switchover.as_ref().and_then(|it| it.to.as_ref());
    if asked == Some(&me.name) {
        return Ok(());
    }
    for rival in super::rivals(cluster) {
        let patience = patience(cluster, me, rival, asked == Some(rival));
        if waited < patience {
            return Err(format!(
                "{rival} may lead by Patroni's rules and goes first"
            ));
        }
    }
    Ok(())
}

/// The leader of Patroni's that led last, if a node with this note has not followed it: what it acknowledged may be
/// missing there, however much other WAL there is.
fn passed_by<'a>(cluster: &'a Cluster, note: Option<&Lineage>) -> Option<&'a NodeName> {
    let last = cluster
        .epoch
        .as_ref()
        .filter(|_| cluster.foreign.recorded)?;
    let followed = note.map(|note| note.newest().epoch);
    (followed != Some(last.epoch)).then_some(&last.leader)
}

/// Whether Patroni's agents are to pass over a node with this note, however much WAL it has. In asynchronous mode they
/// let go first who has more, and would wait for ever for one that may not lead. (In synchronous mode they look at
/// those only that are named, and in quorum mode need its vote.)
pub fn gives_way(cluster: &Cluster, note: Option<&Lineage>) -> bool {
    let raced = !cluster.foreign.members.is_empty() && cluster.sync.is_none();
    raced && (note.is_none() || passed_by(cluster, note).is_some())
}

/// How long a rival goes first.
fn patience(cluster: &Cluster, me: &NodeView, rival: &NodeName, asked: bool) -> Duration {
    if asked {
        return BETTER_RIVAL_TAKES;
    }
    // Where the promises prove that nothing is missing here, only the key decides.
    if cluster.sync.is_some() {
        return Duration::ZERO;
    }
    let theirs = cluster.members.get(rival).map(|member| member.position);
    let mine = cluster.promises.get(&me.name);
    match (theirs, mine.map(|promise| promise.position.lsn)) {
        (Some(theirs), Some(mine)) if theirs > mine => BETTER_RIVAL_TAKES,
        _ => RIVAL_TAKES,
    }
}
