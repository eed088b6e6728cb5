//! `perform …` and `enable|disable maintenance`: an order, and what is seen of it until it is done.

use super::Target;
use super::node::find;
use super::state::host_port;
use super::table::{Column, row, widths};
use crate::cli::meant::{MaintenanceOrder, PerformOrder};
use crate::confirm::confirm;
use crate::exit::{ExitCode, Failure};
use crate::output::{line, note, print};
use api::client::Method;
use api::v1::{Action, Explain, Maintenance, Node, Outcome, OutcomeKind, Perform, State};
use ha::{NodeName, NodeState};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const COLUMNS: &[Column] = &[
    Column::new("Time").width(8),
    Column::new("Name"),
    Column::new("Node").width(5),
    Column::new("Host:Port"),
    Column::new("Current State").width(19),
    Column::new("Assigned State").width(19),
];
/// How often the cluster is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// How long the outcome of a change is watched after the change itself.
const SETTLE: Duration = Duration::from_secs(10);
/// How much longer than it may take an answer may be under way.
const UNDER_WAY: Duration = Duration::from_secs(5);

pub(super) async fn perform(target: &Target, order: &PerformOrder) -> anyhow::Result<ExitCode> {
    let to = match order.action {
        Action::Promotion => Some(target.node(order.to.as_ref())?),
        Action::Failover | Action::Switchover => order.to.clone(),
    };
    let before = target.state().await?;
    if let Some(to) = &to {
        find_postgres(&before, to)?;
    }
    if order.dry_run {
        return dry_run(target, to.as_ref(), order.accept_loss).await;
    }
    if order.accept_loss {
        confirm(
            "make a node primary that may lack acknowledged commits; they are lost",
            order.yes,
        )?;
    }
    let perform = Perform {
        action: order.action,
        to,
        timeout_s: Some(order.wait.as_secs_f64()),
        epoch: None,
        accept_loss: order.accept_loss,
    };
    let outcome = change(target, &before, &perform, order.wait).await;
    match outcome {
        Ok(outcome) => {
            note(&outcome.message);
            Ok(match outcome.outcome {
                OutcomeKind::Done | OutcomeKind::AlreadyLeads => ExitCode::Ok,
                OutcomeKind::DoneInstead => ExitCode::Error,
            })
        }
        // Who does not want to wait is told that it was ordered.
        Err(error) if order.wait.is_zero() && is_timeout(&error) => {
            note("ordered");
            Ok(ExitCode::Ok)
        }
        Err(error) if before.leader.is_none() && !order.accept_loss && is_timeout(&error) => {
            Err(unled(target, error).await)
        }
        Err(error) => Err(error),
    }
}

/// What kept the nodes from electing the one that was named.
async fn unled(target: &Target, error: anyhow::Error) -> anyhow::Error {
    let explain = target.api.get::<Explain>("/api/v1/explain").await;
    match (error.downcast::<Failure>(), explain) {
        (Ok(failure), Ok(explain)) if explain.leader.is_none() => Failure {
            message: format!("{}; {}", failure.message, explain.summary),
            ..failure
        }
        .hint("bring back what it waits for; if that is gone for good: --allow-data-loss")
        .into(),
        (Ok(failure), _) => failure.into(),
        (Err(error), _) => error,
    }
}

/// Orders a change of leader and prints what changes meanwhile.
async fn change(
    target: &Target,
    before: &State,
    perform: &Perform,
    wait: Duration,
) -> anyhow::Result<Outcome> {
    let ordered = target.api.order_within::<_, Outcome>(
        Method::POST,
        "/api/v1/perform",
        Some(perform),
        wait + UNDER_WAY,
    );
    tokio::pin!(ordered);
    let mut seen = Seen::new(before);
    loop {
        tokio::select! {
            outcome = &mut ordered => {
                let outcome = outcome?;
                watch_settle(target, &mut seen, wait.min(SETTLE)).await;
                return Ok(outcome);
            }
            () = tokio::time::sleep(LOOK) => {
                if let Ok(state) = target.state().await {
                    seen.print_changes(&state);
                }
            }
        }
    }
}

/// Goes on looking until the new primary is protected again, as pg_autoctl does: then the next order can be given.
/// That it takes longer is no failure of this one.
async fn watch_settle(target: &Target, seen: &mut Seen, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(state) = target.state().await {
            seen.print_changes(&state);
            let leads = |node: &&Node| state.leader.as_ref() == Some(&node.name);
            let leader = state.nodes.iter().find(leads);
            if leader
                .is_some_and(|node| matches!(node.state, NodeState::Primary | NodeState::Single))
            {
                return;
            }
        }
        if Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_timeout(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Failure>()
        .is_some_and(|failure| failure.code == ExitCode::TimedOut)
}

async fn dry_run(
    target: &Target,
    to: Option<&NodeName>,
    accept_loss: bool,
) -> anyhow::Result<ExitCode> {
    let explain: Explain = target.api.get("/api/v1/explain").await?;
    let Some(to) = to else {
        line(&explain.summary);
        return Ok(if explain.would_win.is_some() {
            ExitCode::Ok
        } else {
            ExitCode::Refused
        });
    };
    let Some(node) = explain.nodes.iter().find(|node| node.name == *to) else {
        return Err(Failure::unknown(format!("{to} has no Postgres")).into());
    };
    // What is refused even then only the order itself finds out: who is ahead of whom.
    if accept_loss && explain.leader.is_none() && !node.may_lead {
        line(&format!(
            "{to} would lead, with loss, unless another one that is there is ahead of it: {}",
            node.why
        ));
        return Ok(ExitCode::Ok);
    }
    line(&format!(
        "{to} {}: {}",
        if node.may_lead {
            "would lead"
        } else {
            "may not lead"
        },
        node.why
    ));
    Ok(if node.may_lead {
        ExitCode::Ok
    } else {
        ExitCode::Refused
    })
}

pub(super) async fn maintenance(
    target: &Target,
    order: &MaintenanceOrder,
) -> anyhow::Result<ExitCode> {
    let name = target.node(order.node.as_ref())?;
    let before = target.state().await?;
    find_postgres(&before, &name)?;
    let deadline = Instant::now() + order.wait;
    if order.enabled && before.leader.as_ref() == Some(&name) {
        if !order.allow_failover {
            let failure = Failure::refused(format!(
                "{name} is the primary, the cluster would be without one"
            ));
            return Err(failure
                .hint("--allow-failover makes another node the primary first")
                .into());
        }
        let perform = Perform {
            action: Action::Switchover,
            to: None,
            timeout_s: Some(order.wait.as_secs_f64()),
            epoch: None,
            accept_loss: false,
        };
        let outcome = change(target, &before, &perform, order.wait).await?;
        note(&outcome.message);
    }
    let path = format!("/api/v1/nodes/{name}/maintenance");
    let asked = Maintenance {
        enabled: order.enabled,
    };
    let _: serde_json::Value = target.api.post(&path, &asked).await?;
    let mut seen = Seen::new(&before);
    loop {
        let state = target.state().await?;
        seen.print_changes(&state);
        if is_reached(find(&state, &name)?, order.enabled) {
            return Ok(ExitCode::Ok);
        }
        if order.wait.is_zero() {
            note("ordered");
            return Ok(ExitCode::Ok);
        }
        if Instant::now() >= deadline {
            let what = format!("{name} has not got there within {} s", order.wait.as_secs());
            let failure = Failure::new(ExitCode::TimedOut, what);
            return Err(failure
                .hint("the order stands; standfast explain tells what it waits for")
                .into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn find_postgres<'a>(state: &'a State, name: &NodeName) -> Result<&'a Node, Failure> {
    let node = find(state, name)?;
    if node.witness {
        return Err(Failure::unknown(format!("{name} has no Postgres")));
    }
    Ok(node)
}

fn is_reached(node: &Node, enabled: bool) -> bool {
    if enabled {
        return node.state == NodeState::Maintenance;
    }
    let takes_part = matches!(node.state, NodeState::Standby | NodeState::CatchingUp);
    node.alive && (takes_part || node.state.is_in_office())
}

/// What was printed of each node last.
struct Seen {
    states: BTreeMap<NodeName, (NodeState, NodeState)>,
    widths: Vec<usize>,
    titled: bool,
}

impl Seen {
    fn new(state: &State) -> Self {
        let nodes = || state.nodes.iter().filter(|node| !node.witness);
        let rows: Vec<Vec<String>> = nodes().map(cells).collect();
        Self {
            states: nodes()
                .map(|node| (node.name.clone(), (node.state, node.assigned)))
                .collect(),
            widths: widths(COLUMNS, &rows),
            titled: false,
        }
    }

    fn print_changes(&mut self, state: &State) {
        for node in state.nodes.iter().filter(|node| !node.witness) {
            let now = (node.state, node.assigned);
            if self.states.insert(node.name.clone(), now) == Some(now) {
                continue;
            }
            if !self.titled {
                self.titled = true;
                print(&self.title());
            }
            line(&row(COLUMNS, &self.widths, &cells(node)));
        }
    }

    fn title(&self) -> String {
        super::table::head(COLUMNS, &self.widths)
    }
}

fn cells(node: &Node) -> Vec<String> {
    vec![
        jiff::Zoned::now().strftime("%H:%M:%S").to_string(),
        node.name.to_string(),
        node.id.to_string(),
        host_port(node),
        node.state.pg_auto_failover().to_owned(),
        node.assigned.pg_auto_failover().to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::state::tests::{node, state};
    use expect_test::expect;

    #[test]
    fn the_frame_is_that_of_pg_auto_failover() {
        let state = state(&[node(1, NodeState::Primary, NodeState::Draining)]);
        let seen = Seen::new(&state);
        let mut cells = cells(&state.nodes[0]);
        "11:58:15".clone_into(&mut cells[0]);
        expect![[r#"
                Time |   Name |  Node |      Host:Port |       Current State |      Assigned State
            ---------+--------+-------+----------------+---------------------+--------------------
            11:58:15 | node_1 |     1 | 127.0.0.1:6010 |             primary |            draining"#]]
        .assert_eq(&(seen.title() + &row(COLUMNS, &seen.widths, &cells)));
    }
}
