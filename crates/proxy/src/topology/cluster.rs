//! The topology as the cluster's store tells it.
//!
//! **Invariant:** a primary is named only while its node holds the leader key of the newest epoch
//! and says that its Postgres is primary. A store that does not answer changes nothing.

use super::{Primary, Topology};
use crate::gate::Gate;
use ha::{Cluster, NodeState};
use std::sync::Arc;
use store::layout::{Keys, Reader};
use store::{Snapshot, Store};
use tokio::sync::watch;

pub(super) async fn follow(
    store: Arc<dyn Store>,
    keys: Keys,
    gate: Arc<Gate>,
    told: watch::Sender<Arc<Topology>>,
) {
    let mut view = store.view(keys.prefix());
    let mut reader = Reader::default();
    loop {
        let snapshot = Arc::clone(&view.borrow_and_update());
        if snapshot.revision > 0 {
            look(&mut reader, &keys, &snapshot, &gate, &told);
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = told.closed() => return,
        }
    }
}

fn look(
    reader: &mut Reader,
    keys: &Keys,
    snapshot: &Snapshot,
    gate: &Gate,
    told: &watch::Sender<Arc<Topology>>,
) {
    let cluster = match reader.read(keys, snapshot) {
        Ok(reading) => reading.cluster,
        Err(error) => {
            tracing::error!(%error, "the cluster's record can't be read; the primary stays what it was");
            return;
        }
    };
    let now = topology(&cluster);
    if **told.borrow() == now {
        return;
    }
    let ended = gate.adopt(now.epoch);
    match &now.primary {
        Ok(primary) => tracing::info!(
            epoch = now.epoch.0,
            node = primary.name,
            address = primary.address,
            ended,
            "there is a primary"
        ),
        Err(reason) => tracing::info!(epoch = now.epoch.0, reason, ended, "there is no primary"),
    }
    told.send_replace(Arc::new(now));
}

fn topology(cluster: &Cluster) -> Topology {
    Topology {
        epoch: cluster.current_epoch(),
        primary: primary(cluster),
    }
}

fn primary(cluster: &Cluster) -> Result<Primary, String> {
    let claimed = cluster.epoch.as_ref();
    let claimed = claimed.ok_or("the cluster has never had a leader")?;
    let Some(leader) = &cluster.leader else {
        return Err(format!(
            "nobody holds the leadership, {} had it last",
            claimed.leader
        ));
    };
    if *leader != claimed.leader {
        return Err(format!("{leader} leads without an epoch"));
    }
    let member = cluster.members.get(leader);
    let member = member.ok_or_else(|| format!("{leader} leads and is not there"))?;
    match member.state {
        NodeState::Primary | NodeState::Single | NodeState::WaitingPrimary => Ok(Primary {
            name: leader.to_string(),
            address: match member.host.contains(':') {
                true => format!("[{}]:{}", member.host, member.port),
                false => format!("{}:{}", member.host, member.port),
            },
        }),
        other => Err(format!("{leader} leads and is {}", other.as_str())),
    }
}
