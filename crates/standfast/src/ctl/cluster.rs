//! What a cluster is, as its documents say it.

use super::typed::Role;
use crate::exit::Failure;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Everything that commands ask about.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cluster {
    pub(super) scope: String,
    /// `None`: there is no such cluster; empty: it is being founded.
    pub(super) initialize: Option<String>,
    pub(super) document: Document,
    pub(super) config: Option<Map<String, Value>>,
    pub(super) history: Vec<Vec<Value>>,
}

/// `GET /cluster`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) members: Vec<Member>,
    #[serde(default)]
    pub(super) pause: bool,
    pub(super) scheduled_switchover: Option<Scheduled>,
    /// Absent where the document was made from the store.
    pub(super) scope: Option<String>,
    #[serde(default)]
    pub(super) standfast: Ours,
}

/// What Patroni has no field for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Ours {
    /// For how long the store has not answered the member that was asked.
    pub(super) store_silent_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Scheduled {
    pub(super) at: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

/// A position: text, or the word `unknown`; how far behind: bytes, or that word.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) state: String,
    pub(super) api_url: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) timeline: Option<u64>,
    pub(super) pending_restart: bool,
    pub(super) pending_restart_reason: Map<String, Value>,
    pub(super) scheduled_restart: Option<Map<String, Value>>,
    pub(super) tags: Map<String, Value>,
    pub(super) receive_lsn: String,
    pub(super) receive_lag: Value,
    pub(super) replay_lsn: String,
    pub(super) replay_lag: Value,
}

impl Member {
    pub(super) fn leads(&self) -> bool {
        self.role.ends_with("leader")
    }

    /// Where its REST interface is, without the path that the record names.
    pub(super) fn url(&self, path: &str) -> String {
        let base = self.api_url.trim_end_matches('/');
        let base = base.strip_suffix("/patroni").unwrap_or(base);
        format!("{base}/{path}")
    }

    pub(super) fn may_lead(&self) -> bool {
        self.tags.get("nofailover") != Some(&Value::Bool(true))
    }

    /// Whether commits wait for it.
    pub(super) fn is_synchronous(&self) -> bool {
        matches!(self.role.as_str(), "sync_standby" | "quorum_standby")
    }

    fn has(&self, role: Role) -> bool {
        match role {
            Role::Any => true,
            Role::Leader => self.leads(),
            Role::Primary => self.role == "leader",
            Role::StandbyLeader => self.role == "standby_leader",
            Role::Replica | Role::Standby => !self.leads(),
        }
    }
}

impl Cluster {
    pub(super) fn members(&self) -> &[Member] {
        &self.document.members
    }

    pub(super) fn leader(&self) -> Option<&Member> {
        self.members().iter().find(|member| member.leads())
    }

    pub(super) fn with_role(&self, role: Role) -> Vec<&Member> {
        let members = self.members().iter();
        members.filter(|member| member.has(role)).collect()
    }

    /// Those that can be asked, the leader first.
    pub(super) fn leader_first(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members().iter().collect();
        members.retain(|member| !member.api_url.is_empty());
        members.sort_by_key(|member| !member.leads());
        members
    }

    /// One member, by name or by role; the leader if neither is said.
    pub(super) fn one(
        &self,
        role: Option<Role>,
        name: Option<&str>,
    ) -> Result<Option<&Member>, Failure> {
        match (role, name) {
            (Some(_), Some(_)) => Err(Failure::usage(
                "--role and --member are mutually exclusive options",
            )),
            (role, None) => {
                let role = role.unwrap_or(Role::Leader);
                Ok(self.with_role(role).first().copied())
            }
            (None, Some(name)) => Ok(self.members().iter().find(|member| member.name == name)),
        }
    }
}
