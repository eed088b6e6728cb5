//! The store's members for the API, which answers from memory: asked in the background.

use api::StoreMember;
use async_trait::async_trait;
use ha::NodeName;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{RaftStore, Role};

const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Members {
    raft: RaftStore,
    known: Arc<Mutex<Vec<StoreMember>>>,
}

impl Members {
    /// Keeps the list fresh until the store is shut down.
    pub(crate) fn follow(raft: RaftStore) -> Self {
        let known: Arc<Mutex<Vec<StoreMember>>> = Arc::default();
        let (asked, list) = (raft.clone(), Arc::clone(&known));
        tokio::spawn(async move {
            loop {
                if let Ok(members) = asked.members().await {
                    let shown = members.into_iter().map(shown).collect();
                    *list.lock().unwrap_or_else(PoisonError::into_inner) = shown;
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { raft, known }
    }
}

fn shown(member: store::MemberInfo) -> StoreMember {
    StoreMember {
        name: member.name.to_string(),
        address: member.address,
        voter: member.role == Role::Voter,
        leader: member.leader,
        reachable: member.last_contact.map(|age| age < Duration::from_secs(3)),
    }
}

#[async_trait]
impl api::Membership for Members {
    fn members(&self) -> Vec<StoreMember> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn remove(&self, name: &str) -> Result<(), String> {
        let name = NodeName::new(name).map_err(|bad| bad.to_string())?;
        self.raft.remove_member(&name).await.map_err(|error| error.to_string())
    }
}
