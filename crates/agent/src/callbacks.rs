//! The user's programs that are told what becomes of this node's Postgres: `postgresql.callbacks`.
//!
//! **Invariant:** nothing of the agent waits for them. They run one at a time and in order, each for a limited time.
//!
//! They get Patroni's arguments: the action, the role, the cluster's name.

use ha::{NodeView, Postgres};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;

/// One that takes longer is killed: those behind it have newer things to tell.
const LIMIT: Duration = Duration::from_secs(60);

/// Which program is run when, by Patroni's name of the occasion; each with its arguments.
pub type Programs = BTreeMap<String, Vec<String>>;

/// What became of Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Down,
    Standby,
    StandbyLeader,
    Primary,
}

impl Role {
    /// `None`: it is neither, for the moment.
    fn of(me: &NodeView) -> Option<Self> {
        match &me.postgres {
            Postgres::Down { .. } => Some(Self::Down),
            Postgres::Standby(standby) if me.lease.is_some() && standby.remote.is_some() => {
                Some(Self::StandbyLeader)
            }
            Postgres::Standby(_) => Some(Self::Standby),
            Postgres::Primary(_) if me.lease.is_some() => Some(Self::Primary),
            Postgres::Primary(_) | Postgres::Starting | Postgres::Unresponsive { .. } => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::StandbyLeader => "standby_leader",
            Self::Standby | Self::Down => "replica",
        }
    }
}

/// A call that stands in line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    action: &'static str,
    role: &'static str,
}

/// Notices what becomes of Postgres, and has the programs told.
#[derive(Debug)]
pub(crate) struct Callbacks {
    line: Option<mpsc::UnboundedSender<Call>>,
    seen: Option<Role>,
    /// What it was while it last ran.
    ran_as: Option<Role>,
}

impl Callbacks {
    /// Must be called inside a runtime.
    pub(crate) fn new(programs: Programs, scope: String) -> Self {
        let line = (!programs.is_empty()).then(|| {
            let (line, calls) = mpsc::unbounded_channel();
            tokio::spawn(run(calls, programs, scope));
            line
        });
        Self {
            line,
            seen: None,
            ran_as: None,
        }
    }

    /// To be told of each look at the node.
    pub(crate) fn look(&mut self, me: &NodeView) {
        if let Some(role) = Role::of(me) {
            for call in self.become_(role) {
                self.call(call);
            }
        }
    }

    /// Postgres has read a new configuration.
    pub(crate) fn reloaded(&self) {
        if let Some(role) = self.seen.filter(|role| *role != Role::Down) {
            self.call(Call {
                action: "on_reload",
                role: role.word(),
            });
        }
    }

    fn call(&self, call: Call) {
        if let Some(line) = &self.line {
            let _ = line.send(call);
        }
    }

    /// What there is to tell of a new role. What an agent finds when it starts is no news.
    fn become_(&mut self, role: Role) -> Vec<Call> {
        let before = self.seen.replace(role);
        let ran_as = self.ran_as;
        if role != Role::Down {
            self.ran_as = Some(role);
        }
        let call = |action| Call {
            action,
            role: role.word(),
        };
        match (before, role) {
            (None, _) => Vec::new(),
            (Some(before), role) if before == role => Vec::new(),
            (Some(before), Role::Down) => vec![Call {
                action: "on_stop",
                role: before.word(),
            }],
            (Some(Role::Down), role) => {
                let changed = ran_as.is_some_and(|ran_as| ran_as != role);
                let change = changed.then(|| call("on_role_change"));
                [call("on_start")].into_iter().chain(change).collect()
            }
            (Some(_), _) => vec![call("on_role_change")],
        }
    }
}

async fn run(mut calls: mpsc::UnboundedReceiver<Call>, programs: Programs, scope: String) {
    while let Some(Call { action, role }) = calls.recv().await {
        let Some([program, arguments @ ..]) = programs.get(action).map(Vec::as_slice) else {
            continue;
        };
        let started = Command::new(program)
            .args(arguments)
            .args([action, role, &scope])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let ended = match started {
            Ok(mut child) => tokio::time::timeout(LIMIT, child.wait()).await,
            Err(error) => Ok(Err(error)),
        };
        match ended {
            Ok(Ok(status)) if status.success() => {
                tracing::debug!(action, role, "the callback has run");
            }
            Ok(Ok(status)) => tracing::warn!(action, role, %status, "the callback failed"),
            Ok(Err(error)) => tracing::warn!(action, role, %error, "the callback can't be run"),
            Err(_) => tracing::warn!(action, role, "the callback took too long and was killed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn told(roles: &[Role]) -> Vec<String> {
        let mut callbacks = Callbacks {
            line: None,
            seen: None,
            ran_as: None,
        };
        let calls = roles.iter().flat_map(|role| callbacks.become_(*role));
        calls
            .map(|call| format!("{} {}", call.action, call.role))
            .collect()
    }

    #[test]
    fn what_becomes_of_postgres_is_told_once() {
        use Role::{Down, Primary, Standby};
        assert_eq!(
            told(&[Primary, Primary]),
            [] as [&str; 0],
            "an agent that takes over"
        );
        assert_eq!(
            told(&[Down, Standby, Standby, Primary]),
            ["on_start replica", "on_role_change primary"]
        );
        assert_eq!(
            told(&[Primary, Down, Standby]),
            [
                "on_stop primary",
                "on_start replica",
                "on_role_change replica"
            ]
        );
    }

    /// Patroni: Configuration | `callbacks` | work, in order, none is killed for a newer one before 60 s;
    ///   `on_restart` is `on_stop` and `on_start`
    #[tokio::test]
    async fn programs_run_in_order_with_patronis_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let (program, log) = (dir.path().join("tell"), dir.path().join("log"));
        std::fs::write(
            &program,
            format!(
                "#!/bin/sh\nsleep 0.0$1; shift\necho \"$@\" >> {}\n",
                log.display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let tell = |slow: &str| {
            vec![
                program.display().to_string(),
                slow.to_owned(),
                "own".to_owned(),
            ]
        };
        let programs = Programs::from([
            ("on_start".to_owned(), tell("5")),
            ("on_role_change".to_owned(), tell("0")),
            ("on_stop".to_owned(), vec!["/nowhere".to_owned()]),
        ]);
        let mut callbacks = Callbacks::new(programs, "shop".to_owned());
        for role in [Role::Primary, Role::Down, Role::Standby, Role::Primary] {
            for call in callbacks.become_(role) {
                callbacks.call(call);
            }
        }
        let expected = "own on_start replica shop\nown on_role_change replica shop\nown on_role_change primary shop\n";
        let written = async {
            while std::fs::read_to_string(&log).unwrap_or_default() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written)
            .await
            .unwrap();
    }
}
