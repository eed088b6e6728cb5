//! Keeps the membership in order: as leader by [`super::membership`], as a member by knocking.
//!
//! **Invariant:** one change of the membership at a time, and only by a leader with a majority.
//! **Invariant:** a member that its cluster has forgotten stops, rather than vote as who it was.

use super::member::{Leader, Member, generation};
use super::membership::{Change, LIVE, Observed, leaving, plan};
use super::types::{NodeId, Peer};
use crate::peer::message::{Refusal, Request, Response, Status};
use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const ROUND: Duration = Duration::from_millis(500);

/// So many entries behind the leader still counts as caught up: it takes a moment only.
const BEHIND_MAX: u64 = 200;

/// A change waits for a majority twice.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

pub(crate) async fn run(member: Arc<Member>) {
    // Once after the start, whatever the state: others may have gone on without this member.
    look_for_removal(&member).await;
    let mut since_leader = 0_u32;
    loop {
        tokio::time::sleep(ROUND).await;
        match member.leader() {
            Leader::Me => tend(&member).await,
            Leader::Other(_, leader) => keep_address(&member, &leader).await,
            Leader::Nobody => {}
        }
        since_leader = if member.is_settled() {
            0
        } else {
            since_leader + 1
        };
        // Every few seconds while cut off.
        if since_leader % 6 == 5 {
            look_for_removal(&member).await;
        }
    }
}

/// One step towards the membership that should be.
async fn tend(member: &Member) {
    let (name, address) = (
        member.options.name.to_string(),
        member.options.address.clone(),
    );
    // The leader itself may have moved.
    if member
        .membership()
        .membership()
        .get_node(&member.id)
        .is_some()
        && let Err(refusal) = member.let_in(member.id, name, address).await
    {
        tracing::debug!(?refusal, "the leader's own address is not committed");
    }
    let membership = member.membership();
    let joint = membership.membership().get_joint_config();
    let (change, reason) = if let [_, target] = joint.as_slice() {
        (Change::Voters(target.clone()), "a change was interrupted")
    } else {
        let observed = observe(member);
        let grace = member.options.timing.dead_voter_grace;
        let Some(planned) = plan(&observed, grace) else {
            return;
        };
        planned
    };
    match change_membership(member, change.clone()).await {
        Ok(()) => tracing::info!(?change, reason, "the store's membership changed"),
        Err(refusal) => tracing::warn!(?change, reason, ?refusal, "a membership change failed"),
    }
}

fn observe(member: &Member) -> Vec<Observed> {
    // A copy: while it is borrowed, openraft waits to write it, and a second look at it here would wait for openraft.
    let metrics = member.raft.metrics().borrow().clone();
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let observed = |(id, peer): (&NodeId, &Peer)| {
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|progress| progress.get(id));
        let matched = matched.copied().flatten().map(|log_id| log_id.index);
        Observed {
            id: *id,
            name: peer.name.clone(),
            incarnation: peer.incarnation,
            voter: voters.contains(id),
            leader: *id == member.id,
            caught_up: matched.is_some_and(|index| index + BEHIND_MAX >= last),
            silent: silence(member, *id),
        }
    };
    membership.nodes().map(observed).collect()
}

/// Never heard of since this member leads: silent since then.
fn silence(member: &Member, id: NodeId) -> Duration {
    let leading = member.leading_for();
    member
        .silence(id)
        .map_or(leading, |silence| silence.min(leading))
}

async fn change_membership(member: &Member, change: Change) -> Result<(), Refusal> {
    let changes = match change {
        Change::Voters(voters) => ChangeMembers::ReplaceAllVoters(voters),
        Change::Forget(members) => ChangeMembers::RemoveNodes(members),
    };
    propose(member, changes).await
}

async fn propose(member: &Member, changes: ChangeMembers<NodeId, Peer>) -> Result<(), Refusal> {
    // Who loses its vote stays a learner until it is forgotten by a change of its own.
    let changing = member.raft.change_membership(changes, true);
    match timeout(CHANGE_LIMIT, changing).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(
            Refusal::Unknown("the leader changed during a membership change".into()),
        ),
        Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
            Err(match error {
                ChangeMembershipError::InProgress(_) => {
                    Refusal::Unreachable("another membership change is in progress".into())
                }
                other => Refusal::Denied(other.to_string()),
            })
        }
        Ok(Err(RaftError::Fatal(fatal))) => Err(Refusal::Failed(fatal.to_string())),
        Err(_) => Err(Refusal::Unknown("a membership change took too long".into())),
    }
}

impl Member {
    /// Makes a node a learner, as leader.
    pub(crate) async fn let_in(
        &self,
        id: NodeId,
        name: String,
        address: String,
    ) -> Result<(), Refusal> {
        let membership = self.membership();
        let generation = generation(&membership);
        if let Some(known) = membership.membership().get_node(&id) {
            if known.address == address {
                return Ok(());
            }
            tracing::info!(node = %name, %address, "a member has a new address");
            let moved = Peer {
                address,
                ..known.clone()
            };
            return propose(self, ChangeMembers::SetNodes(BTreeMap::from([(id, moved)]))).await;
        }
        let namesakes: Vec<_> = membership
            .nodes()
            .filter(|(_, peer)| peer.name == name)
            .collect();
        if let Some((live, _)) = namesakes.iter().find(|(id, _)| silence(self, **id) < LIVE) {
            tracing::debug!(member = **live, node = %name, "a name is taken");
            return Err(Refusal::Denied(format!(
                "a live member is called {name} already: every node needs a name of its own"
            )));
        }
        let incarnation = namesakes
            .iter()
            .map(|(_, peer)| peer.incarnation + 1)
            .max()
            .unwrap_or(0);
        tracing::info!(node = %name, %address, incarnation, "a node joins the store");
        let peer = Peer {
            name,
            address,
            incarnation,
            generation,
        };
        propose(self, ChangeMembers::AddNodes(BTreeMap::from([(id, peer)]))).await
    }

    /// One step towards a membership without `name`, as leader; done when it is not there any more.
    pub(crate) async fn let_go(&self, name: &str) -> Result<(), Refusal> {
        match leaving(&observe(self), name).map_err(Refusal::Denied)? {
            None => Ok(()),
            Some(change) => {
                tracing::info!(node = %name, ?change, "a node leaves the store");
                change_membership(self, change).await?;
                Err(Refusal::Unreachable("the node has not left yet".into()))
            }
        }
    }
}

/// Tells the leader where this member is to be found now.
async fn keep_address(member: &Member, leader: &Peer) {
    let membership = member.membership();
    let known = membership
        .membership()
        .get_node(&member.id)
        .map(|peer| peer.address.clone());
    if known.is_none_or(|address| address == member.options.address) {
        return;
    }
    let myself = member.myself();
    let request = Request::Join {
        id: member.id,
        name: myself.name,
        address: myself.address,
    };
    let limit = member.options.timing.request_timeout;
    if let Err(error) = member
        .pool
        .call_within(limit, &leader.address, None, request)
        .await
    {
        tracing::debug!(%error, "the leader did not take note of this member's address");
    }
}

/// Asks the others whether this member still is one.
async fn look_for_removal(member: &Member) {
    if !member.is_founded().await {
        return;
    }
    let membership = member.membership();
    let mine = (
        generation(&membership),
        membership.log_id().map_or(0, |log_id| log_id.index),
    );
    let limit = member.options.timing.request_timeout;
    for (id, peer) in membership.nodes().filter(|(id, _)| **id != member.id) {
        let peer = member.reachable(peer);
        let asked = member
            .pool
            .call_within(limit, &peer.address, None, Request::Status)
            .await;
        tracing::debug!(asked = id, answer = ?asked, "asked whether this is still a member");
        let Ok(Response::Status(status)) = asked else {
            continue;
        };
        if forgets(&status, mine, member.id) {
            member.fail(format!(
                "{} is no longer a member of the store: move {} away to let it join anew",
                member.options.name,
                member.options.directory.display(),
            ));
            return;
        }
    }
}

/// Whether `status` comes from a working cluster that went on without `id`.
fn forgets(status: &Status, mine: (u64, u64), id: NodeId) -> bool {
    let theirs = (status.generation, status.membership_index);
    // The same place if the entry that removed this member reached it too.
    status.settled && theirs >= mine && status.members.iter().all(|member| member.id != id)
}
