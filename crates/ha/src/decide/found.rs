//! Before there is a cluster: one node founds it under the leader's lease, so that a founder that dies is replaced.

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
            let reason = if begun {
                "the founder has gone: founding the cluster in its place"
            } else {
                "there is no cluster yet: founding it"
            };
            Decision::act("found", Action::Found, reason)
        }
    }
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
