//! Before there is a cluster: one node founds it under the leader's lease, so that a founder that dies is replaced.
//!
//! **Invariant:** a copy of a cluster that Standfast has run founds no new one without a person's word.

use crate::decision::{Action, Decision};
use crate::view::{Cluster, DataDir, Initialize, NodeView, Postgres};

pub(super) fn found(cluster: &Cluster, me: &NodeView) -> Decision {
    match &cluster.leader {
        Some(leader) if *leader == me.name => create(me),
        Some(leader) => Decision::wait(
            "founding",
            format!("waiting for {leader} to create the first data directory"),
        ),
        None => {
            let unwanted = super::unwanted(cluster, &me.name).map(str::to_owned);
            if let Some(why) = unwanted.or_else(|| super::unfit(me)) {
                return Decision::wait(
                    "founding",
                    format!("this node can't found the cluster: {why}"),
                );
            }
            let begun = matches!(cluster.initialize, Initialize::Founding);
            if let Some(why) = may_not(cluster, me, begun) {
                return why;
            }
            let reason = if begun {
                "the founder has gone: founding the cluster in its place"
            } else {
                "there is no cluster yet: founding it"
            };
            Decision::act("found", Action::Found, reason)
        }
    }
}

/// A copy of data that there is, is not passed over for an empty directory; and where the store of a cluster was lost,
/// no node knows whether its copy is the newest: a person does.
fn may_not(cluster: &Cluster, me: &NodeView, begun: bool) -> Option<Decision> {
    // A note that the store has not forgotten is of this founding.
    let mine = begun && me.lineage.is_some();
    if let (DataDir::Ready(_), Some(why), false) = (&me.data, &me.may_not_found, mine) {
        let reason = format!("this node can't found the cluster: {why}");
        return Some(Decision::wait("lost cluster", reason));
    }
    if matches!(me.data, DataDir::Ready(_)) {
        return None;
    }
    let others = cluster.members.iter();
    let mut full = others.filter(|(name, member)| {
        let wanted = super::unwanted(cluster, name).is_none();
        **name != me.name && member.unfit.is_none() && wanted
    });
    let (name, _) = full.next()?;
    let reason = format!("waiting for {name}, which has data, to found the cluster");
    Some(Decision::wait("founding", reason))
}

fn create(me: &NodeView) -> Decision {
    match (&me.data, &me.postgres) {
        (
            DataDir::Ready(system),
            Postgres::Down { .. } | Postgres::Standby(_) | Postgres::Primary(_),
        ) => Decision::act(
            "adopt",
            Action::Adopt,
            format!("adopting the data directory with system identifier {system} as the first"),
        ),
        (DataDir::Empty | DataDir::Unfinished, Postgres::Down { .. }) => Decision::act(
            "bootstrap",
            Action::Bootstrap,
            "creating the first data directory",
        ),
        _ => Decision::wait("bootstrap", "Postgres is starting for the first time"),
    }
}
