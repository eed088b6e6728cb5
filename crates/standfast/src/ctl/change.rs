//! `switchover` and `failover`.

use super::cluster::{Cluster, Member};
use super::http::{Answer, LONG};
use super::reach::Reach;
use super::show::{exists, members};
use super::typed::{Failover, Switchover};
use super::{ask, timestamp};
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::client::Method;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil};
use serde_json::{Map, Value, json};

/// What is to be done, as typed.
struct Order<'a> {
    /// The word for it.
    action: &'static str,
    cluster: Option<&'a str>,
    leader: Option<&'a str>,
    candidate: Option<&'a str>,
    scheduled: Option<&'a str>,
    force: bool,
}

pub(super) async fn failover(reach: &Reach, typed: &Failover) -> Result<ExitCode, Failure> {
    let order = Order {
        action: "failover",
        cluster: typed.cluster.cluster_name.as_deref(),
        leader: None,
        candidate: typed.candidate.as_deref(),
        scheduled: None,
        force: typed.force.force,
    };
    perform(reach, &order).await
}

pub(super) async fn switchover(reach: &Reach, typed: &Switchover) -> Result<ExitCode, Failure> {
    let order = Order {
        action: "switchover",
        cluster: typed.cluster.cluster_name.as_deref(),
        leader: typed.leader.as_deref(),
        candidate: typed.candidate.as_deref(),
        scheduled: typed.scheduled.as_deref(),
        force: typed.force.force,
    };
    perform(reach, &order).await
}

async fn perform(reach: &Reach, order: &Order<'_>) -> Result<ExitCode, Failure> {
    let cluster = reach.cluster(order.cluster).await?;
    exists(&cluster)?;
    output::line("Current cluster topology");
    members(&cluster);
    let leader = leader(&cluster, order)?;
    let candidate = candidate(&cluster, order)?;
    let at = scheduled(&cluster, order)?;
    agree(&cluster, order, candidate.as_deref(), at.as_deref())?;
    let mut body = Map::new();
    body.insert("candidate".to_owned(), json!(candidate));
    if let Some(leader) = &leader {
        body.insert("leader".to_owned(), json!(leader));
    }
    if let Some(at) = at {
        body.insert("scheduled_at".to_owned(), json!(at));
    }
    let asked = match cluster.leader() {
        Some(leader) => Some(leader),
        None => cluster
            .members()
            .iter()
            .find(|member| Some(&member.name) == candidate.as_ref()),
    };
    let asked: &Member = asked.ok_or_else(|| Failure::unknown("This cluster has no leader"))?;
    let sent = reach
        .http
        .send(
            Method::POST,
            &asked.url(order.action),
            Some(&Value::Object(body)),
            LONG,
        )
        .await;
    let answer = sent.map_err(|why| {
        let what = format!(
            "{} does not answer ({why}), the order may have been received",
            asked.name
        );
        Failure::new(ExitCode::TimedOut, what).hint("patronictl list tells what came of it")
    })?;
    if !answer.is_good() {
        let title = order.action[..1].to_uppercase() + &order.action[1..];
        output::line(&format!(
            "{title} failed, details: {}, {}",
            answer.status, answer.text
        ));
        return Ok(code_of(&answer));
    }
    output::line(&format!("{} {}", timestamp(true), answer.text));
    members(&reach.cluster(order.cluster).await?);
    Ok(ExitCode::Ok)
}

/// What an answer that is no success means.
pub(super) fn code_of(answer: &Answer) -> ExitCode {
    match answer.status {
        404 => ExitCode::Unknown,
        409 | 412 => ExitCode::Refused,
        503 if answer.text.contains("status unknown") => ExitCode::TimedOut,
        _ => ExitCode::Error,
    }
}

fn leader(cluster: &Cluster, order: &Order<'_>) -> Result<Option<String>, Failure> {
    if order.action == "failover" {
        return Ok(None);
    }
    let member = cluster.leader();
    let member = member.ok_or_else(|| Failure::refused("This cluster has no leader"))?;
    let leads = member.name.clone();
    let meant = match order.leader {
        Some(named) => named.to_owned(),
        None if order.force => leads.clone(),
        None if member.role == "standby_leader" => ask::text("Standby Leader", Some(&leads))?,
        None => ask::text("Primary", Some(&leads))?,
    };
    if meant != leads {
        let what = format!(
            "Member {meant} is not the leader of cluster {}",
            cluster.scope
        );
        return Err(Failure::refused(what));
    }
    Ok(Some(meant))
}

fn candidate(cluster: &Cluster, order: &Order<'_>) -> Result<Option<String>, Failure> {
    let mut able: Vec<&str> = cluster
        .members()
        .iter()
        .filter(|member| !member.leads() && member.may_lead())
        .map(|member| member.name.as_str())
        .collect();
    able.sort_unstable();
    if able.is_empty() {
        let what = format!("No candidates found to {} to", order.action);
        return Err(Failure::refused(what));
    }
    let candidate = match order.candidate {
        Some(named) => named.to_owned(),
        None if order.force => String::new(),
        None => {
            let list = able.join("', '");
            ask::text(&format!("Candidate ['{list}']"), Some(""))?
        }
    };
    if candidate.is_empty() {
        return match order.action {
            "failover" => Err(Failure::usage(
                "Failover could be performed only to a specific candidate",
            )),
            _ => Ok(None),
        };
    }
    if able.contains(&candidate.as_str()) {
        return Ok(Some(candidate));
    }
    let scope = &cluster.scope;
    if cluster
        .leader()
        .is_some_and(|member| member.name == candidate)
    {
        let what = format!("Member {candidate} is already the leader of cluster {scope}");
        return Err(Failure::refused(what));
    }
    Err(Failure::unknown(format!(
        "Member {candidate} does not exist in cluster {scope} or is tagged as nofailover"
    )))
}

fn scheduled(cluster: &Cluster, order: &Order<'_>) -> Result<Option<String>, Failure> {
    if order.action == "failover" {
        return Ok(None);
    }
    let at = match order.scheduled {
        Some(at) => at.to_owned(),
        None if order.force => return Ok(None),
        None => ask_when("switchover", " )")?,
    };
    let at = when(&at)?;
    if at.is_some() && cluster.document.pause {
        return Err(Failure::refused(
            "Can't schedule switchover in the paused state",
        ));
    }
    Ok(at)
}

pub(super) fn ask_when(what: &str, end: &str) -> Result<String, Failure> {
    let hour = jiff::Span::new().hours(1);
    let next = Zoned::now().saturating_add(hour);
    let next = next.strftime("%Y-%m-%dT%H:%M");
    ask::text(
        &format!("When should the {what} take place (e.g. {next}{end} "),
        Some("now"),
    )
}

/// ISO 8601 with a zone; without one the machine's is meant. `None`: now.
pub(super) fn when(text: &str) -> Result<Option<String>, Failure> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    let bare = text.replace(' ', "T");
    let zoned = bare.parse::<Timestamp>().ok().map(|at| at.to_string());
    let local = || {
        let civil: civil::DateTime = bare.parse().ok()?;
        let zoned = civil.to_zoned(TimeZone::system()).ok()?;
        Some(zoned.timestamp().to_string())
    };
    let at = zoned.or_else(local).map(|at| at.replace('Z', "+00:00"));
    let what = format!(
        "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)"
    );
    at.map(Some).ok_or_else(|| Failure::usage(what))
}

fn agree(
    cluster: &Cluster,
    order: &Order<'_>,
    candidate: Option<&str>,
    at: Option<&str>,
) -> Result<(), Failure> {
    if order.force {
        return Ok(());
    }
    let no = |what: &str| Failure::refused(format!("Aborting {what}"));
    let chosen = cluster
        .members()
        .iter()
        .find(|member| Some(member.name.as_str()) == candidate);
    let synchronous = cluster.members().iter().any(Member::is_synchronous);
    if let Some(chosen) = chosen
        && order.action == "failover"
        && synchronous
        && !chosen.is_synchronous()
        && !ask::confirm(&format!(
            "Are you sure you want to failover to the asynchronous node {}?",
            chosen.name
        ))?
    {
        return Err(no(order.action));
    }
    let demoting = cluster.leader().map_or_else(String::new, |leader| {
        format!(", demoting current leader {}", leader.name)
    });
    let (scope, action) = (&cluster.scope, order.action);
    let question = match at {
        Some(at) => format!(
            "Are you sure you want to schedule switchover of cluster {scope} at {at}{demoting}?"
        ),
        None => format!("Are you sure you want to {action} cluster {scope}{demoting}?"),
    };
    match (ask::confirm(&question)?, at) {
        (true, _) => Ok(()),
        (false, Some(_)) => Err(no(&format!("scheduled {action}"))),
        (false, None) => Err(no(action)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_iso_8601() {
        let at = |text| when(text).ok().flatten();
        let noon = Some("2030-01-01T12:00:00+00:00".to_owned());
        assert_eq!(at("2030-01-01T12:00:00Z"), noon);
        assert_eq!(at("2030-01-01T14:00:00+02:00"), noon);
        assert_eq!(at("2030-01-01 12:00:00+00:00"), noon);
        assert_eq!((at("now"), at("")), (None, None));
        assert!(at("2030-01-01T12:00").is_some_and(|at| at.ends_with("+00:00")));
        assert!(when("tomorrow").is_err());
    }
}
