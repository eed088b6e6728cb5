//! Where sessions go that only read: the standbys.
//!
//! **Invariant:** a connection to a standby is shut down when its node is one no more: what was
//! opened to read never ends up at a primary.
//!
//! A standby that has no leader for a while keeps those who are there, and gets nobody new.

use super::{At, Kind, address_of};
use crate::gate::Gate;
use ha::{Cluster, Epoch, Member, NodeName, NodeState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Lags that differ by less than this, in bytes, are the same.
const STEP: u64 = 1024 * 1024;

/// A standby that may be read from.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) at: At,
    /// How much of the leader's WAL it does not have.
    pub(crate) lag_bytes: u64,
}

/// Follows the changes.
pub(crate) type Readers = watch::Receiver<Arc<Vec<Reader>>>;

/// The one that lags least among those that lag no more than is allowed; of several the one with
/// the fewest connections of ours.
pub(crate) fn choose(readers: &[Reader], lag_bytes_max: u64) -> Option<&Reader> {
    let near = readers.iter().filter(|one| one.lag_bytes <= lag_bytes_max);
    near.min_by_key(|one| (one.lag_bytes / STEP, one.at.gate.connections()))
}

/// What was seen of each node so far.
#[derive(Debug)]
pub(super) struct Memory {
    told: watch::Sender<Arc<Vec<Reader>>>,
    nodes: BTreeMap<NodeName, Known>,
}

#[derive(Debug)]
struct Known {
    address: String,
    /// The node's own: its epochs are the times in which it was a standby.
    gate: Arc<Gate>,
    epoch: Epoch,
    /// Who is connected may stay.
    is_kept: bool,
}

impl Memory {
    pub(super) fn new() -> (Self, Readers) {
        let (told, readers) = watch::channel(Arc::default());
        let nodes = BTreeMap::new();
        (Self { told, nodes }, readers)
    }

    /// `shunned`: nobody new goes there.
    pub(super) fn look(&mut self, cluster: &Cluster, shunned: &BTreeSet<NodeName>) {
        for (name, known) in &mut self.nodes {
            let member = cluster.members.get(name);
            let stays = member.is_some_and(|member| {
                address_of(member) == known.address && keeps(cluster, name, member)
            });
            if known.is_kept && !stays {
                known.epoch = Epoch(known.epoch.0 + 1);
                let ended = known.gate.adopt(known.epoch);
                tracing::info!(node = %name, ended, "a node is read from no more");
            }
            known.is_kept = stays;
        }
        let mut readers = Vec::new();
        for (name, member) in &cluster.members {
            if shunned.contains(name) || !is_open(cluster, name, member) {
                continue;
            }
            let known = self.nodes.entry(name.clone()).or_insert_with(|| Known {
                address: String::new(),
                gate: Gate::new(),
                epoch: Epoch(1),
                is_kept: false,
            });
            known.address = address_of(member);
            known.is_kept = true;
            known.gate.adopt(known.epoch);
            readers.push(Reader {
                at: At {
                    address: known.address.clone(),
                    epoch: known.epoch,
                    gate: Arc::clone(&known.gate),
                    kind: Kind::Standby,
                },
                lag_bytes: cluster.leader_position.0.saturating_sub(member.position.0),
            });
        }
        self.told.send_replace(Arc::new(readers));
    }
}

/// Whether it takes somebody new.
fn is_open(cluster: &Cluster, name: &NodeName, member: &Member) -> bool {
    cluster.leader.as_ref() != Some(name)
        && matches!(member.state, NodeState::Standby | NodeState::CatchingUp)
}

/// Whether who is there may stay.
fn keeps(cluster: &Cluster, name: &NodeName, member: &Member) -> bool {
    let is_standby = matches!(
        member.state,
        NodeState::Standby | NodeState::CatchingUp | NodeState::Demoted | NodeState::Maintenance
    );
    is_standby && cluster.leader.as_ref() != Some(name)
}
