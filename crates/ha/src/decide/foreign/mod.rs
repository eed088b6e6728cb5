//! Where agents of Patroni have a say in the same store, as in a cluster that changes over node by node.
//!
//! Patroni takes the leader key when its time to live is over, and knows neither epochs nor promises. Each of ours writes
//! key and epoch in one transaction, so a leader key without its epoch is Patroni's. Ours record an epoch on behalf of
//! such a leader and follow it like any other; its commits are protected by its own rules, and so is its succession.
//!
//! **Invariant:** nobody of ours claims while the leader key is Patroni's, nor after a leadership of Patroni's whose
//! commits it may not have; nobody of ours takes WAL of such a leader before an epoch stands for it.
//!
//! `guest` is what ours do under a leader of Patroni's, `vacancy` what they do when nobody leads, `host` what a leader of
//! ours grants to Patroni's nodes.

mod guest;
mod host;
#[cfg(test)]
mod tests;
mod vacancy;

pub(super) use self::guest::{accompany, are_none, is_unknown, known_lineage, recognize};
pub(super) use self::host::guest_fit;
pub use self::vacancy::gives_way;
pub(super) use self::vacancy::race;

use crate::decision::Decision;
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, NodeView};

/// Stands aside where only Patroni's own agents can go on. A primary of ours was fenced before.
pub(super) fn stand_aside(cluster: &Cluster, me: &NodeView, now: Instant) -> Option<Decision> {
    let why = hindrance(cluster, &me.name)?;
    let settled = super::settle_down(me, &cluster.settings, now);
    Some(settled.unwrap_or_else(|| Decision::wait("not ours", why)))
}

/// Why nothing may be done here, if so.
fn hindrance(cluster: &Cluster, me: &NodeName) -> Option<String> {
    let foreign = &cluster.foreign;
    if let Some(leader) = cluster.leader.as_ref().filter(|_| foreign.leads) {
        if leader == me {
            return Some(format!(
                "the leader key names {leader}, but no epoch goes with it: Patroni wrote it, and it must end first"
            ));
        }
        return (!foreign.members.contains(leader)).then(|| {
            format!(
                "{leader} leads without an epoch, and has no member record of Patroni's: it must end first"
            )
        });
    }
    if cluster.leader.is_some() || foreign.recorded {
        return None;
    }
    if foreign.sync {
        let why =
            "who had to acknowledge commits was written by Patroni: only its agents can lead on";
        return Some(why.to_owned());
    }
    let led = cluster.lineage.as_ref();
    let led = led.map(|it| it.lineage.newest().timeline);
    let (ended, led) = (foreign.ended?, led?);
    (ended >= led).then(|| {
        format!(
            "timeline {ended} was ended by a leader without an epoch: what it wrote may be missing here"
        )
    })
}

/// Members of Patroni's that may lead by its rules.
fn rivals(cluster: &Cluster) -> impl Iterator<Item = &NodeName> {
    let foreign = &cluster.foreign;
    let members = foreign.members.iter();
    members.filter(|name| !foreign.unwilling.contains(*name))
}
