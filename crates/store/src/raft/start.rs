//! How a member with an empty directory comes to its cluster.
//!
//! **Invariant:** of a fixed list, one and the same member founds, and only when all the others have
//! answered that they know no cluster; so a node that lost its disk never founds a second one.

use super::member::{Leader, Member};
use super::options::Start;
use super::types::{NodeId, Peer};
use crate::peer::connection::CallError;
use crate::peer::message::{Refusal, Request, Response, Status};
use ha::NodeName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_millis(250);
/// A refusal that stays is said again this often.
const AGAIN: Duration = Duration::from_secs(60);

/// The refusal that was said last, and when.
#[derive(Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    fn refused(&mut self, address: &str, reason: &str) {
        let known = self.0.as_ref();
        if known.is_some_and(|(last, at)| last == reason && at.elapsed() < AGAIN) {
            return;
        }
        tracing::warn!(%address, %reason, "the store does not let this node in; asking on");
        self.0 = Some((reason.to_owned(), Instant::now()));
    }
}

/// Works until this member is part of a cluster.
pub(crate) async fn run(member: Arc<Member>) {
    let start = member.options.start.clone();
    let mut said = Said::default();
    while !member.is_founded().await {
        match &start {
            Start::Found => found(&member, BTreeMap::from([(member.id, member.myself())])).await,
            Start::Members(list) => meet(&member, list, &mut said).await,
            Start::Join(addresses) => join(&member, addresses, &mut said).await,
        }
        if !member.is_founded().await {
            tokio::time::sleep(ROUND).await;
        }
    }
}

async fn found(member: &Member, voters: BTreeMap<NodeId, Peer>) {
    let count = voters.len();
    match member.raft.initialize(voters).await {
        Ok(()) => tracing::info!(voters = count, "founded a store"),
        Err(error) => tracing::warn!(%error, "cannot found a store"),
    }
}

async fn meet(member: &Member, list: &BTreeMap<NodeName, String>, said: &mut Said) {
    let others = || {
        list.iter()
            .filter(|(name, _)| **name != member.options.name)
    };
    let limit = member.options.timing.request_timeout;
    let asking = others().map(|(name, address)| async move {
        let asked = member
            .pool
            .call_within(limit, address, None, Request::Status)
            .await;
        (name, address, asked)
    });
    let answers = futures_util::future::join_all(asking).await;
    let mut fresh = BTreeMap::from([(member.id, member.myself())]);
    for (name, address, asked) in answers {
        match asked {
            Ok(Response::Status(status)) if status.founded => {
                // The founder may be about to contact this member under its number; then it is in.
                if knows(&status, member) {
                    return;
                }
                return join(member, std::slice::from_ref(address), said).await;
            }
            Ok(Response::Status(status)) if status.name == name.as_str() => {
                let peer = Peer {
                    name: status.name,
                    address: address.clone(),
                    ..Peer::default()
                };
                fresh.insert(status.id, peer);
            }
            Ok(other) => {
                tracing::warn!(expected = %name, %address, answer = ?other, "another node answers");
            }
            Err(error) => tracing::debug!(node = %name, %error, "not there yet"),
        }
    }
    let founder = list.keys().next();
    if fresh.len() == list.len() && founder == Some(&member.options.name) {
        found(member, fresh).await;
    }
}

fn knows(status: &Status, member: &Member) -> bool {
    status.members.iter().any(|known| known.id == member.id)
}

/// Asks at each address, and at the leader's if it is told one.
async fn join(member: &Member, addresses: &[String], said: &mut Said) {
    let limit = member.options.timing.request_timeout * 3;
    for address in addresses {
        let mut next = Some(address.clone());
        // Once more at the leader's own address, and once if it has just changed.
        for _ in 0..3 {
            let Some(address) = next.take() else { break };
            let myself = member.myself();
            let request = Request::Join {
                id: member.id,
                name: myself.name,
                address: myself.address,
            };
            match member
                .pool
                .call_within(limit, &address, None, request)
                .await
            {
                Ok(_) => return wait_for_leader(member).await,
                Err(CallError::Refused(Refusal::NotLeader { leader })) => {
                    next = leader.map(|peer| peer.address);
                }
                Err(CallError::Refused(Refusal::Denied(reason))) => {
                    said.refused(&address, &reason);
                }
                Err(error) => tracing::debug!(%address, %error, "cannot join there"),
            }
        }
    }
}

/// The leader sends the log to its new learner by itself.
async fn wait_for_leader(member: &Member) {
    let mut changes = member.raft.server_metrics();
    let led =
        async { while member.leader() == Leader::Nobody && changes.changed().await.is_ok() {} };
    if tokio::time::timeout(Duration::from_secs(5), led)
        .await
        .is_err()
    {
        tracing::debug!("let in, but no leader has come yet");
    }
}
