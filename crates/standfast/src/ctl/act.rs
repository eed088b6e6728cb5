//! What members are told to do: `restart`, `reload`, `reinit`, `flush`.
//!
//! **Invariant:** nothing is sent before all that is to be asked was answered; each member that says no is named.

use super::ask;
use super::change::{ask_when, code_of, when};
use super::cluster::{Cluster, Member};
use super::http::{Answer, LONG, SOON};
use super::reach::Reach;
use super::show::{exists, members};
use super::typed::{Flush, Reinit, Reload, Restart, Role};
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::client::Method;
use rand::seq::SliceRandom as _;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How often members are looked at while something goes on in them.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Sends an order to the first member that answers, the leader first.
pub(super) async fn order(
    reach: &Reach,
    cluster: &Cluster,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, Failure> {
    for member in cluster.leader_first() {
        let url = member.url(path);
        let sent = reach.http.send(method.clone(), &url, body, SOON).await;
        match sent {
            Ok(answer) => {
                if let Some(warning) = &answer.warning {
                    output::note(&format!("warning: {warning}"));
                }
                return Ok(answer);
            }
            Err(why) => output::note(&format!("{} does not answer: {why}", member.name)),
        }
    }
    let what = "Can not find accessible cluster member";
    Err(Failure::new(ExitCode::Unreachable, what))
}

/// The members that are meant, shown and, if need be, agreed on.
struct Chosen<'a> {
    names: &'a [String],
    role: Role,
    /// The word for what is done to them.
    action: &'static str,
    force: bool,
}

impl Chosen<'_> {
    fn of<'c>(&self, cluster: &'c Cluster) -> Result<Vec<&'c Member>, Failure> {
        exists(cluster)?;
        let able = cluster.with_role(self.role);
        if able.is_empty() && self.names.is_empty() {
            let what = format!("{} cluster doesn't have any members", cluster.scope);
            return Err(Failure::unknown(what));
        }
        members(cluster);
        let mut names: Vec<String> = self.names.to_vec();
        if names.is_empty() && self.action != "reinitialize" {
            return Ok(able);
        }
        if names.is_empty() && !self.force {
            let list: Vec<&str> = able.iter().map(|member| member.name.as_str()).collect();
            let question = format!(
                "Which member do you want to {} [{}]?",
                self.action,
                list.join(", ")
            );
            names.push(ask::text(&question, Some(""))?);
        }
        let known = |name: &String| able.iter().any(|member| member.name == *name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let none = !names.iter().any(known);
            return Err(Failure::unknown(match none && !self.names.is_empty() {
                true => format!("No {} among provided members", self.role.word()),
                false => format!("{unknown} is not a member of cluster"),
            }));
        }
        Ok(able
            .into_iter()
            .filter(|member| names.contains(&member.name))
            .collect())
    }

    fn agree(&self, members: &[&Member]) -> Result<(), Failure> {
        let list: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let question = format!(
            "Are you sure you want to {} members {}?",
            self.action,
            list.join(", ")
        );
        self.agree_to(&question)
    }

    fn agree_to(&self, question: &str) -> Result<(), Failure> {
        if self.force || ask::confirm(question)? {
            return Ok(());
        }
        Err(Failure::refused(format!("Aborted {}", self.action)))
    }
}

/// The worst of what became of several members.
fn worse(code: &mut ExitCode, other: ExitCode) {
    if *code == ExitCode::Ok {
        *code = other;
    }
}

async fn tell(
    reach: &Reach,
    member: &Member,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let sent = reach.http.send(method, &member.url(path), body, LONG).await;
    sent.unwrap_or_else(|why| Answer {
        status: 599,
        text: why,
        warning: None,
    })
}

/// A member that does not answer is not one that says no.
pub(super) fn code(answer: &Answer) -> ExitCode {
    match answer.status {
        599 => ExitCode::Unreachable,
        _ => code_of(answer),
    }
}

/// How the originals report that something failed.
fn failed(action: &str, member: &Member, answer: &Answer) {
    output::line(&format!(
        "Failed: {action} for member {}, status code={}, ({})",
        member.name, answer.status, answer.text
    ));
}

pub(super) async fn restart(reach: &Reach, typed: &Restart) -> Result<ExitCode, Failure> {
    let cluster = reach.cluster(Some(&typed.members.cluster_name)).await?;
    let chosen = Chosen {
        names: &typed.members.member_names,
        role: typed.role,
        action: "restart",
        force: typed.force.force,
    };
    let mut members = chosen.of(&cluster)?;
    let at = match (&typed.scheduled, chosen.force) {
        (Some(at), _) => when(at)?,
        (None, true) => None,
        (None, false) => when(&ask_when("restart", ")")?)?,
    };
    let mut body = Map::new();
    if typed.pending {
        body.insert("restart_pending".to_owned(), json!(true));
        // Which ones need it then is not known yet.
        members.retain(|member| at.is_some() || member.pending_restart);
    }
    if typed.any {
        members.shuffle(&mut rand::rng());
        members.truncate(1);
    }
    match &at {
        Some(at) => {
            let list: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            let list = list.join(", ");
            chosen.agree_to(&format!(
                "Are you sure you want to schedule restart of members {list} at {at}?"
            ))?;
        }
        None => chosen.agree(&members)?,
    }
    let version = match (&typed.pg_version, chosen.force) {
        (Some(version), _) => version.clone(),
        (None, true) => String::new(),
        (None, false) => ask::text(
            "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ",
            Some(""),
        )?,
    };
    if !version.is_empty() {
        body.insert("postgres_version".to_owned(), json!(version));
    }
    if let Some(at) = &at {
        if cluster.document.pause {
            return Err(Failure::refused(
                "Can't schedule restart in the paused state",
            ));
        }
        body.insert("schedule".to_owned(), json!(at));
    }
    if let Some(timeout) = &typed.timeout {
        body.insert("timeout".to_owned(), json!(timeout));
    }
    let body = Value::Object(body);
    let mut result = ExitCode::Ok;
    for member in members {
        if at.is_some() && chosen.force && member.scheduled_restart.is_some() {
            let answer = tell(reach, member, Method::DELETE, "restart", None).await;
            if !answer.is_good() {
                failed("flush scheduled restart", member, &answer);
            }
        }
        let answer = tell(reach, member, Method::POST, "restart", Some(&body)).await;
        let name = &member.name;
        match answer.status {
            200 => output::line(&format!("Success: restart on member {name}")),
            202 => output::line(&format!("Success: restart scheduled on member {name}")),
            409 => output::line(&format!(
                "Failed: another restart is already scheduled on member {name}"
            )),
            _ => failed("restart", member, &answer),
        }
        if !answer.is_good() {
            worse(&mut result, code(&answer));
        }
    }
    Ok(result)
}

pub(super) async fn reload(reach: &Reach, typed: &Reload) -> Result<ExitCode, Failure> {
    let cluster = reach.cluster(Some(&typed.members.cluster_name)).await?;
    let chosen = Chosen {
        names: &typed.members.member_names,
        role: typed.role,
        action: "reload",
        force: typed.force.force,
    };
    let members = chosen.of(&cluster)?;
    chosen.agree(&members)?;
    let loop_wait = cluster
        .config
        .as_ref()
        .and_then(|config| config.get("loop_wait")?.as_f64())
        .unwrap_or(10.0);
    let mut result = ExitCode::Ok;
    for member in members {
        let answer = tell(reach, member, Method::POST, "reload", None).await;
        let name = &member.name;
        match answer.status {
            200 => output::line(&format!("No changes to apply on member {name}")),
            202 => output::line(&format!(
                "Reload request received for member {name} and will be processed within {loop_wait} seconds"
            )),
            _ => {
                failed("reload", member, &answer);
                worse(&mut result, code(&answer));
            }
        }
    }
    Ok(result)
}

pub(super) async fn reinit(reach: &Reach, typed: &Reinit) -> Result<ExitCode, Failure> {
    let cluster = reach.cluster(Some(&typed.members.cluster_name)).await?;
    let chosen = Chosen {
        names: &typed.members.member_names,
        role: Role::Replica,
        action: "reinitialize",
        force: typed.force.force,
    };
    let members = chosen.of(&cluster)?;
    chosen.agree(&members)?;
    let mut result = ExitCode::Ok;
    let mut started = Vec::new();
    for member in members {
        let mut forced = typed.force.force;
        let before = status(reach, member).await;
        let before = before.and_then(|it| it.get("postmaster_start_time").cloned());
        loop {
            let body = json!({ "force": forced, "from_leader": typed.from_leader });
            let answer = tell(reach, member, Method::POST, "reinitialize", Some(&body)).await;
            if answer.is_good() {
                output::line(&format!("Success: reinitialize for member {}", member.name));
                started.push((member, before));
                break;
            }
            failed("reinitialize", member, &answer);
            let busy = answer.text.ends_with(" already in progress") && !forced;
            if busy && ask::confirm("Do you want to cancel it and reinitialize anyway?")? {
                forced = true;
                continue;
            }
            worse(&mut result, code(&answer));
            break;
        }
    }
    if typed.wait && !started.is_empty() {
        let names = started.iter().map(|(member, _)| member.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        output::line(&format!("Waiting for reinitialize to complete on: {names}"));
        for (member, before) in started {
            copied(reach, member, before.as_ref()).await;
            output::line(&format!("Reinitialize is completed on: {}", member.name));
        }
    }
    Ok(result)
}

/// Returns when a Postgres runs that was started after the one of `before`; a copy takes as long as it takes.
async fn copied(reach: &Reach, member: &Member, before: Option<&Value>) {
    loop {
        let status = status(reach, member).await;
        let started = status
            .as_ref()
            .and_then(|it| it.get("postmaster_start_time"));
        let runs = status.as_ref().is_some_and(|it| it["state"] == "running");
        if runs && started.is_some() && started != before {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn status(reach: &Reach, member: &Member) -> Option<Value> {
    let answer = reach.http.get(&member.url("patroni")).await.ok()?;
    serde_json::from_str(&answer.text).ok()
}

pub(super) async fn flush(reach: &Reach, typed: &Flush) -> Result<ExitCode, Failure> {
    let Some((target, names)) = typed.words.split_last() else {
        return Err(Failure::usage("what is to be flushed?"));
    };
    let cluster = reach.cluster(Some(&typed.cluster_name)).await?;
    match target.as_str() {
        "switchover" => flush_switchover(reach, &cluster).await,
        "restart" => flush_restarts(reach, &cluster, typed, names).await,
        other => Err(Failure::usage(format!(
            "{other:?} can't be flushed, only restart or switchover"
        ))),
    }
}

async fn flush_switchover(reach: &Reach, cluster: &Cluster) -> Result<ExitCode, Failure> {
    exists(cluster)?;
    if cluster.document.scheduled_switchover.is_none() {
        output::line("No pending scheduled switchover");
        return Ok(ExitCode::Ok);
    }
    let answer = order(reach, cluster, Method::DELETE, "switchover", None).await?;
    if answer.status == 200 {
        output::line(&format!("Success: {}", answer.text));
        return Ok(ExitCode::Ok);
    }
    output::line(&format!("Failed: {}", answer.text));
    Ok(code(&answer))
}

async fn flush_restarts(
    reach: &Reach,
    cluster: &Cluster,
    typed: &Flush,
    names: &[String],
) -> Result<ExitCode, Failure> {
    let chosen = Chosen {
        names,
        role: typed.role,
        action: "flush",
        force: typed.force.force,
    };
    let members = chosen.of(cluster)?;
    chosen.agree(&members)?;
    let mut result = ExitCode::Ok;
    for member in members {
        let name = &member.name;
        if member.scheduled_restart.is_none() {
            output::line(&format!("No scheduled restart for member {name}"));
            continue;
        }
        let answer = tell(reach, member, Method::DELETE, "restart", None).await;
        if answer.is_good() {
            output::line(&format!(
                "Success: flush scheduled restart for member {name}"
            ));
        } else {
            failed("flush scheduled restart", member, &answer);
            worse(&mut result, code(&answer));
        }
    }
    Ok(result)
}
