//! What concerns a cluster as a whole: `pause`, `resume`, `remove`.
//!
//! **Invariant:** nothing is removed before the cluster was named twice, once in words that no habit types.

use super::act::{LOOK, code, order, status};
use super::cluster::Cluster;
use super::members::{self, Look};
use super::reach::Reach;
use super::show::{exists, named};
use super::typed::{Pause, Remove};
use super::{ask, timestamp};
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::client::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long a cluster may take to know of a pause.
const PAUSE_KNOWN: Duration = Duration::from_secs(11);

pub(super) async fn pause(reach: &Reach, typed: &Pause, paused: bool) -> Result<ExitCode, Failure> {
    let cluster = named(reach, &typed.cluster).await?;
    if cluster.document.pause == paused {
        let word = if paused { "already" } else { "not" };
        return Err(Failure::error(format!("Cluster is {word} paused")));
    }
    let (verb, done) = match paused {
        true => ("pause", "paused"),
        false => ("resume", "resumed"),
    };
    let change = json!({ "pause": paused.then_some(true) });
    let answer = order(reach, &cluster, Method::PATCH, "config", Some(&change)).await?;
    if answer.status != 200 {
        output::line(&format!(
            "Failed: {verb} cluster management status code={}, ({})",
            answer.status, answer.text
        ));
        return Ok(code(&answer));
    }
    if typed.wait {
        output::line(&format!(
            "'{verb}' request sent, waiting until it is recognized by all nodes"
        ));
        let deaf = deaf(reach, &cluster, paused).await;
        if !deaf.is_empty() {
            output::line(&format!(
                "{} members didn't recognized pause state after {} seconds",
                deaf.join(", "),
                PAUSE_KNOWN.as_secs()
            ));
            return Ok(ExitCode::TimedOut);
        }
    }
    output::line(&format!("Success: cluster management is {done}"));
    Ok(ExitCode::Ok)
}

/// The members that don't know of it when the time is over.
async fn deaf<'c>(reach: &Reach, cluster: &'c Cluster, paused: bool) -> Vec<&'c str> {
    let until = Instant::now() + PAUSE_KNOWN;
    let mut open = cluster.leader_first();
    loop {
        let mut still = Vec::new();
        for member in open {
            let status = status(reach, member).await;
            let knows = status.is_some_and(|it| it["pause"].as_bool().unwrap_or(false) == paused);
            if !knows {
                still.push(member);
            }
        }
        if still.is_empty() || Instant::now() >= until {
            return still
                .into_iter()
                .map(|member| member.name.as_str())
                .collect();
        }
        open = still;
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn remove(reach: &Reach, typed: &Remove) -> Result<ExitCode, Failure> {
    let scope = &typed.cluster_name;
    let cluster = reach.cluster(Some(scope)).await?;
    let look = Look {
        format: typed.format,
        ..Look::PLAIN
    };
    output::print(&members::text(&cluster, look));
    exists(&cluster)?;
    if ask::text("Please confirm the cluster name to remove", None)? != *scope {
        return Err(Failure::refused("Cluster names specified do not match"));
    }
    let aware = "Yes I am aware";
    let question = format!(
        "You are about to remove all information in DCS for {scope}, please type: \"{aware}\""
    );
    if ask::text(&question, None)? != aware {
        return Err(Failure::refused(format!(
            "You did not exactly type \"{aware}\""
        )));
    }
    if let Some(leader) = cluster.leader() {
        let question =
            "This cluster currently is healthy. Please specify the leader name to continue";
        if ask::text(question, None)? != leader.name {
            return Err(Failure::refused(
                "You did not specify the current leader of the cluster",
            ));
        }
    }
    reach.delete(scope).await?;
    output::note(&format!("{} removed {scope}", timestamp(false)));
    Ok(ExitCode::Ok)
}
