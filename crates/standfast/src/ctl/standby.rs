//! A cluster told to follow another one's primary, or to have one of its own: `demote-cluster`, `promote-cluster`.
//!
//! **Invariant:** success is said only when the leader says by itself that it is what was asked for.

use super::act::{LOOK, code, order};
use super::ask;
use super::reach::Reach;
use super::show::{exists, members, named};
use super::typed::{DemoteCluster, OneCluster, PromoteCluster};
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::client::Method;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// A clean stop, a comparison and perhaps a rewind; or a promotion.
const DONE_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn demote(reach: &Reach, typed: &DemoteCluster) -> Result<ExitCode, Failure> {
    let said = [
        ("host", typed.host.clone().map(Value::from)),
        ("port", typed.port.map(Value::from)),
        (
            "restore_command",
            typed.restore_command.clone().map(Value::from),
        ),
    ];
    if said.iter().all(|(_, value)| value.is_none()) {
        let what = "At least --host, --port or --restore-command should be specified";
        return Err(Failure::usage(what));
    }
    let slot = typed.primary_slot_name.clone().map(Value::from);
    let named = said.into_iter().chain([("primary_slot_name", slot)]);
    let config: Map<String, Value> = named
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    let change = Change {
        verb: "demote",
        done: "demoted",
        role: "standby_leader",
        config: config.into(),
    };
    change.make(reach, &typed.cluster, typed.force.force).await
}

pub(super) async fn promote(reach: &Reach, typed: &PromoteCluster) -> Result<ExitCode, Failure> {
    let change = Change {
        verb: "promote",
        done: "promoted",
        role: "leader",
        config: Value::Null,
    };
    change.make(reach, &typed.cluster, typed.force.force).await
}

struct Change {
    verb: &'static str,
    done: &'static str,
    /// What the leader is then, as `/cluster` says it.
    role: &'static str,
    config: Value,
}

impl Change {
    async fn make(
        &self,
        reach: &Reach,
        typed: &OneCluster,
        force: bool,
    ) -> Result<ExitCode, Failure> {
        let cluster = named(reach, typed).await?;
        exists(&cluster)?;
        let Some(leader) = cluster.leader() else {
            let what = format!("Cluster has no leader, can't {} it", self.verb);
            return Err(Failure::refused(what));
        };
        if leader.role == self.role {
            let what = format!("Cluster is already in the required state: {}", self.done);
            return Err(Failure::error(what));
        }
        output::line("Current cluster topology");
        members(&cluster);
        let scope = &cluster.scope;
        let question = format!("Are you sure you want to {} {scope} cluster?", self.verb);
        if !force && !ask::confirm(&question)? {
            return Err(Failure::refused("Aborted!"));
        }
        let body = json!({ "standby_cluster": self.config });
        let answer = order(reach, &cluster, Method::PATCH, "config", Some(&body)).await?;
        if answer.status != 200 {
            output::line(&format!(
                "Failed to {} {scope} cluster: /config PATCH status code={}, ({})",
                self.verb, answer.status, answer.text
            ));
            return Ok(code(&answer));
        }
        let until = Instant::now() + DONE_WITHIN;
        loop {
            let cluster = named(reach, typed).await?;
            let leader = cluster.leader().map(|leader| leader.url("patroni"));
            let is = match leader {
                Some(url) => {
                    reach
                        .http
                        .send(Method::GET, &url, None, super::http::SOON)
                        .await
                }
                None => Err("there is no leader".into()),
            };
            let document = is
                .ok()
                .and_then(|it| serde_json::from_str::<Value>(&it.text).ok());
            let role = match self.role {
                "leader" => "primary",
                role => role,
            };
            let done = document.is_some_and(|it| it["role"] == role && it["state"] == "running");
            if done {
                members(&cluster);
                output::line(&format!("Cluster is successfully {}", self.done));
                return Ok(ExitCode::Ok);
            }
            if Instant::now() >= until {
                let what = format!(
                    "the configuration is changed, and the cluster is not {} after {} s",
                    self.done,
                    DONE_WITHIN.as_secs()
                );
                return Err(Failure::new(ExitCode::TimedOut, what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
