//! What is asked of the node's own agent, and of nobody else: a restart, now or later, a new base backup.
//!
//! **Invariant:** an errand is a wish; whether and when it is done is decided by the agent's rules, and the answer says
//! what became of it.
//!
//! It doesn't know how Postgres is restarted.

use crate::error::Refusal;
use crate::served::Served;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// A wish and the way back.
#[derive(Debug)]
pub struct Errand {
    pub ask: Ask,
    pub answer: oneshot::Sender<Result<(), Refusal>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Answered when Postgres is open again, or at once if it is for later.
    Restart(Restart),
    /// The restart that was asked for later.
    CancelRestart,
    /// Answered when it has begun.
    Reinitialize {
        /// Also where a base backup is being made already: that one is given up.
        force: bool,
        /// The copy is made of the leader, also where another standby offers itself.
        from_leader: bool,
    },
}

/// A restart as it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    pub at: Option<Schedule>,
    /// Only in this role, as Patroni names it.
    pub role: Option<String>,
    /// Only if the server is older than this version number, such as 150018.
    pub older_than: Option<u32>,
    /// Only if a changed parameter waits for it.
    pub pending: bool,
    /// How long Postgres may take to be back.
    pub timeout: Option<Duration>,
    /// The request's own fields, to be shown.
    pub asked: Map<String, Value>,
}

/// A moment of the calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub at: SystemTime,
    /// As it was asked for.
    pub text: String,
}

impl Restart {
    /// Whether the conditions are met now; the one that is not, if so.
    pub fn due(&self, served: &Served) -> Result<(), &'static str> {
        let role = crate::patroni::role_of(served);
        let in_role = |wanted: &str| wanted == role || (wanted == "master" && role == "primary");
        if self.role.as_deref().is_some_and(|wanted| !in_role(wanted)) {
            return Err("the node is not in that role");
        }
        if self.pending && !served.pending_restart {
            return Err("no parameter waits for a restart");
        }
        let newer = |version: u32| served.server_version >= version;
        if self.older_than.is_some_and(newer) {
            return Err("the server is of that version already");
        }
        Ok(())
    }
}
