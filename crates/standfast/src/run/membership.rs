//! The store's members, as the API asks for them.

use api::StoreMember;
use async_trait::async_trait;
use ha::NodeName;
use std::time::Duration;
use store::{RaftStore, Role};

/// A member that the Raft leader has not heard of for so long is shown as not reachable.
const SILENT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Members(pub(crate) RaftStore);

fn shown(member: store::MemberInfo) -> StoreMember {
    StoreMember {
        name: member.name.to_string(),
        address: member.address,
        voter: member.role == Role::Voter,
        leader: member.leader,
        reachable: member.last_contact.map(|age| age < SILENT),
    }
}

#[async_trait]
impl api::Membership for Members {
    async fn members(&self) -> Result<Vec<StoreMember>, String> {
        let members = self.0.members().await.map_err(|error| error.to_string())?;
        Ok(members.into_iter().map(shown).collect())
    }

    async fn remove(&self, name: &str) -> Result<(), String> {
        let name = NodeName::new(name).map_err(|bad| bad.to_string())?;
        self.0
            .remove_member(&name)
            .await
            .map_err(|error| error.to_string())
    }
}
